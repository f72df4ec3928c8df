// How well a model predicts a text, and how far its predictions are from another model's.
#ifndef QUIRE_RUNTIME_PERPLEXITY_H_
#define QUIRE_RUNTIME_PERPLEXITY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "runtime/session.h"

namespace quire {

struct PerplexityOptions {
  int64_t chunks = 0;       // at most so many; 0: all
  std::string save_logits;  // file to write (logits_file.h), or empty
  bool overwrite = false;   // replace that file if it exists
  std::string kl_base;      // file to compare with, or empty
};

struct Divergence {
  double mean_kld;        // of the Kullback-Leibler divergence KL(base || model), in nats
  double p99_kld;         // its 99th percentile over positions
  double top1_agreement;  // part of the positions at which both models' most likely tokens agree
};

struct PerplexityResult {
  int64_t tokens = 0;  // that were predicted
  double nll = 0;      // mean negative log-likelihood, in nats
  std::optional<Divergence> divergence;

  double perplexity() const;
};

// As llama.cpp's perplexity tool does it: the tokens are cut into chunks of the session's ctx (a
// rest that fills none is left out), each is a text of its own and begins with `bos`, where the
// model has one, in the place of its first token; the predictions made at positions ctx/2 .. ctx-2,
// of the tokens that follow them, count. `progress` hears of chunks done. InvalidArgument where the
// tokens fill no chunk, or the base is about another text, context or vocabulary. The session needs
// max_logits of at least 1; more take fewer passes over the output matrix.
absl::StatusOr<PerplexityResult> MeasurePerplexity(
    Session& session, std::vector<int32_t> tokens, std::optional<int32_t> bos,
    const PerplexityOptions& options,
    absl::FunctionRef<void(int64_t done, int64_t chunks)> progress);

// Sum over the vocabulary of p_base (log p_base - log p), with p = softmax(logits). In double.
double KlDivergence(absl::Span<const float> base_log_probabilities, absl::Span<const float> logits);

}  // namespace quire

#endif  // QUIRE_RUNTIME_PERPLEXITY_H_
