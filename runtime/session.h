// A model, opened and ready to run: what every command of the runtime begins with.
#ifndef QUIRE_RUNTIME_SESSION_H_
#define QUIRE_RUNTIME_SESSION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/command_line.h"
#include "format/thread_pool.h"
#include "runtime/layer_feed.h"
#include "runtime/model.h"
#include "runtime/sampler.h"
#include "runtime/tokenizer.h"
#include "runtime/transformer.h"

namespace quire {

// Positions of the cache where nobody asks for a number; fewer where the model was trained for
// fewer.
inline constexpr int64_t kDefaultCtx = 512;

struct SessionOptions {
  int64_t ctx = 0;         // 0: kDefaultCtx
  int64_t threads = 0;     // 0: the CPUs this process may run on
  int64_t max_logits = 1;  // as Transformer::Create
  ByteSize resident;       // memory for the weights; 0: the limits decide
};

inline constexpr char kResidentHelp[] =
    "memory that weights may take; the rest is read for each token (without: what the limits "
    "allow)";

enum class StopReason { kEndOfText, kTokens, kContext };

struct Generation {
  std::vector<int32_t> tokens;  // an end-of-text token included
  StopReason stopped = StopReason::kTokens;
  int64_t prefilled = 0;       // tokens of the prompt that were not in the cache yet
  double prefill_seconds = 0;  // from the call to the first token
  double decode_seconds = 0;   // from the first token to the last
};

// Not thread-safe.
class Session {
 public:
  // Opens the model and allots memory for one sequence; reads no weight. From here on a page of the
  // file that cannot be read ends the process with a message (format/sigbus_guard.h). FailedPrecondition
  // where QUIRE_KERNELS names kernels that cannot run here; otherwise what Model::Open and
  // Transformer::Create return.
  static absl::StatusOr<std::unique_ptr<Session>> Open(const std::string& path,
                                                       const SessionOptions& options);

  const Model& model() const { return model_; }
  const KernelTable& kernels() const { return kernels_; }
  ThreadPool& pool() { return pool_; }
  Transformer& transformer() { return *transformer_; }
  const Transformer& transformer() const { return *transformer_; }
  const LayerFeed& feed() const { return *feed_; }
  double open_ms() const { return open_ms_; }  // Model::Open: mapping, header, manifest

  // FailedPrecondition where the model has none; InvalidArgument where it has more pieces than the
  // embedding rows.
  absl::StatusOr<Tokenizer> LoadTokenizer() const;

  // Continues `prompt` by up to max_tokens tokens. Of a prompt that begins like what is in the
  // cache, only the rest is computed. Stops after a token of `stop_at`, and when the context is
  // full. on_token hears of each as it comes. InvalidArgument for an empty prompt,
  // ResourceExhausted for one beyond the context, DataLoss where the file changed.
  absl::StatusOr<Generation> Generate(const std::vector<int32_t>& prompt, int64_t max_tokens,
                                      absl::Span<const int32_t> stop_at, Sampler& sampler,
                                      absl::FunctionRef<void(int32_t id)> on_token);

 private:
  Session(Model model, const KernelTable& kernels, int threads)
      : model_(std::move(model)), kernels_(kernels), pool_(threads) {}

  Model model_;
  const KernelTable& kernels_;
  ThreadPool pool_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<LayerFeed> feed_;
  std::vector<int32_t> sequence_;  // tokens in the cache
  double open_ms_ = 0;
};

// Where memory is too short for all weights: one line on stderr.
void SayWhatIsStreamed(const Session& session);

}  // namespace quire

#endif  // QUIRE_RUNTIME_SESSION_H_
