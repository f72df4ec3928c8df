// A text's hidden states on their way through a model, one layer at a time.
#ifndef QUIRE_QUANTIZE_LAYER_INPUTS_H_
#define QUIRE_QUANTIZE_LAYER_INPUTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/session.h"

namespace quire {

// The token ids of a text, of a file or (empty) the built-in one, in sequences of the session's
// ctx, one after another; each begins with the token that texts begin with, where the model has
// one. FailedPrecondition where the model has no tokenizer, or the text not one whole sequence;
// ResourceExhausted where tokenizing so much text takes more than the budget.
absl::StatusOr<std::vector<int32_t>> CalibrationTokens(const Session& session,
                                                       const std::string& text_file,
                                                       int64_t memory_budget);

// Hidden states [tokens][hidden_dim] of such sequences. Borrows all it is given; not thread-safe.
class LayerInputs {
 public:
  LayerInputs(Session& session, absl::Span<const int32_t> tokens)
      : model_(session.model()), transformer_(session.transformer()), tokens_(tokens) {}

  // What goes into the first layer.
  void Embed(float* states);
  // Runs a layer's attention block or feed-forward block on all states, in place. `observe`
  // (Transformer) sees the inputs of its matrices, a batch at a time.
  void RunAttention(const Layer& layer, float* states, Transformer::ObserveInput observe);
  void RunFeedForward(const Layer& layer, float* states, Transformer::ObserveInput observe);

 private:
  // run(position in the sequence, n, first state), for every batch.
  void ForEachBatch(float* states,
                    absl::FunctionRef<void(int64_t position, int64_t n, float* x)> run);

  const Model& model_;
  Transformer& transformer_;
  const absl::Span<const int32_t> tokens_;
};

}  // namespace quire

#endif  // QUIRE_QUANTIZE_LAYER_INPUTS_H_
