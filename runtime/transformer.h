// The forward pass of a Llama-like transformer over a mapped model.
#ifndef QUIRE_RUNTIME_TRANSFORMER_H_
#define QUIRE_RUNTIME_TRANSFORMER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/thread_pool.h"
#include "runtime/anonymous_memory.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kv_cache.h"
#include "runtime/layer_feed.h"
#include "runtime/model.h"

namespace quire {

// One sequence: its cache, its position, its scratch memory. Not thread-safe; uses the pool's
// threads by itself. For one kernel table, results depend neither on the number of threads nor on
// how the tokens are cut into calls.
class Transformer {
 public:
  // Tokens that go through a layer together; more are cut into batches. Enough for the arithmetic
  // to hide the reading of the weights, few enough for the scratch memory of a 7B model to stay
  // below 20 MB.
  static constexpr int64_t kBatchTokens = 128;

  // `model`, `kernels` and `pool` must outlive it. ctx: positions of the cache, 1 to
  // context_tokens. max_logits: tokens whose logits one call of Logits gives. ResourceExhausted
  // where memory is refused.
  static absl::StatusOr<std::unique_ptr<Transformer>> Create(const Model& model,
                                                             const KernelTable& kernels,
                                                             ThreadPool& pool, int64_t ctx,
                                                             int64_t max_logits = 1);

  // From now on layers come from `feed`, which must outlive this; without, from the mapping.
  void set_feed(LayerFeed* feed) { feed_ = feed; }
  // Memory that `tokens` more tokens, and a few after them, may touch for the first time.
  int64_t GrowthBytes(int64_t tokens) const;

  int64_t ctx() const { return cache_.ctx(); }
  int64_t position() const { return position_; }  // tokens so far
  int64_t max_logits() const { return max_logits_; }
  int64_t kv_cache_bytes() const { return cache_.bytes(); }
  int64_t scratch_bytes() const { return scratch_.bytes(); }
  // The parts of them that are in memory: pages are touched as they are needed.
  int64_t kv_cache_resident_bytes() const { return cache_.ResidentBytes(); }
  int64_t scratch_resident_bytes() const { return scratch_.ResidentBytes(); }

  // Appends tokens to the sequence. ResourceExhausted where they do not fit into ctx;
  // InvalidArgument for an id that the embedding has no row for; what the feed returns. On an error
  // the sequence has not changed.
  absl::Status Forward(absl::Span<const int32_t> tokens);

  // Logits [vocab_size] after the last token. Valid until the next call of anything.
  absl::Span<const float> Logits();
  // Logits [count][logits_stride()] after tokens first, first + 1, ... of the last batch: of the
  // last call of Forward if it had at most kBatchTokens. count: 1 to max_logits.
  const float* Logits(int64_t first, int64_t count);
  int64_t logits_stride() const { return logits_stride_; }

  // Forgets all tokens from `position` on. Precondition: 0 <= position <= position().
  void Rewind(int64_t position) { position_ = position; }

  // One block of one layer at a time, over hidden states that the caller keeps (layer_run.cc): for
  // calibration, which runs many sequences through a layer before the next.

  // The inputs that a layer's matrices multiply, in order: of wq, wk and wv; of wo; of w_gate and
  // w_up; of w_down.
  enum class LayerInput { kQkv, kWo, kGateUp, kDown };
  // Sees such an input, [n][stride] with zeros in padded columns, before it is multiplied; says
  // whether to go on.
  using ObserveInput =
      absl::FunctionRef<bool(LayerInput input, const float* x, int64_t stride, int64_t n)>;

  // The embedding's rows of up to kBatchTokens valid token ids, into x [n][hidden_dim].
  void EmbedTokens(absl::Span<const int32_t> tokens, float* x);
  // x [n][hidden_dim] becomes x + attention(norm(x)), for n <= kBatchTokens tokens from `position`
  // on of one sequence, whose earlier tokens went through the same layer before. `layer` may be of
  // any encodings, in or outside the mapping. The first layer's part of the cache is overwritten.
  // Where `observe` said stop, x is as before, and the result is false; behind kQkv the tokens'
  // keys and values are in the cache, as later tokens of the sequence want them.
  bool RunAttention(const Layer& layer, int64_t position, int64_t n, float* x,
                    ObserveInput observe);
  // x [n][hidden_dim] becomes x + ffn(norm(x)); likewise.
  bool RunFeedForward(const Layer& layer, int64_t n, float* x, ObserveInput observe);

 private:
  // What a phase multiplies: n tokens [n][stride] in f32 and, where it meets integer weights,
  // quantized.
  struct Input {
    const float* x;
    int64_t stride;
    QuantizedActivations quantized;
  };
  // Where a phase's input comes from: f32 values, which RMSNorm may precede.
  struct Source {
    const float* x;
    int64_t stride;
    int64_t columns;
    const float* norm;  // weights, or null
    bool quantize;      // whether any of the matrices is made of integers
  };
  // Room for normed and quantized inputs.
  struct InputBuffers {
    float* normed;
    QuantizedActivations quantized;
  };
  // A thread's own, for phases of one token. A cache line apart from the others'.
  struct alignas(kLineBytes) OwnInput {
    InputBuffers buffers;
    Input input;
    bool ready = false;
  };
  struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
  };
  // A matrix whose panels are handed out in units of several.
  struct Part {
    const Matrix* matrix;
    int64_t unit_panels;
    int64_t units() const { return (matrix->geometry.units() + unit_panels - 1) / unit_panels; }
  };
  // What a phase multiplies by, its panels laid end to end.
  using Parts = absl::InlinedVector<Part, 3>;
  // How the units of a phase are cut into pieces.
  struct Pieces {
    int64_t count, units;
    int64_t FirstUnit(int64_t piece) const { return units * piece / count; }
  };

  Transformer(const Model& model, const KernelTable& kernels, ThreadPool& pool, KvCache cache,
              int64_t max_logits);
  bool ObserveNormed(LayerInput which, const float* norm, int64_t n, ObserveInput observe);
  void CopyIn(const float* x, int64_t n);
  void CopyOut(int64_t n, float* x) const;
  // Points everything below into `base` (null: into nothing). Returns the bytes that takes.
  int64_t LayOutScratch(uint8_t* base);

  absl::Status ForwardBatch(absl::Span<const int32_t> tokens);
  absl::Status WithLayer(int64_t l, LayerStep step, absl::FunctionRef<void(const Layer&)> compute);
  void Embed(absl::Span<const int32_t> tokens);
  Parts QkvParts(const Layer& layer) const;
  void ProjectQkv(const Layer& layer, int64_t l, int64_t n);
  void Attend(int64_t l, int64_t n);
  AttentionArgs HeadAttention(int64_t l, int64_t kv_head, int64_t token, int64_t n, int64_t begin,
                              int64_t end);
  void AttendToken(int64_t l);
  void AttendBatch(int64_t l, int64_t n);
  void AttendTokens(int64_t l, int64_t kv_head, Range tokens);
  void AddProjection(const Matrix& matrix, const Source& source, int64_t n, const Parts& next);
  void GateAndUp(const Layer& layer, int64_t n);

  Input Prepare(const Source& source, int64_t n, Range tokens, const InputBuffers& buffers) const;
  static Pieces Cut(const Parts& parts);
  absl::Span<const uint8_t> FirstBytes(const Parts& parts, int thread) const;
  void Phase(const Source& source, int64_t n, const Parts& parts, const Parts& next,
             absl::FunctionRef<void(int part, Range panels, const Input& input)> work);
  void Multiply(const Matrix& matrix, Range panels, const Input& input, int64_t n, float* y,
                int64_t y_stride) const;

  const Model& model_;
  LayerFeed* feed_ = nullptr;
  const pb::ModelConfig& config_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  KvCache cache_;
  int64_t position_ = 0;
  int64_t batch_ = 0;                                 // tokens of the last batch
  int64_t largest_batch_ = 0, largest_position_ = 0;  // how much memory was touched
  const int64_t max_logits_;

  const std::vector<float> frequencies_;  // [head_dim / 2]
  const int64_t head_dim_, q_dim_, kv_dim_;
  // Floats from token to token: columns padded to groups.
  const int64_t hidden_stride_, q_stride_, kv_stride_, ffn_stride_, logits_stride_;
  const int64_t window_;                          // positions that a query sees at most
  std::vector<std::atomic<int64_t>> spans_done_;  // of a token's attention, by KV head

  AnonymousMemory scratch_;
  // All below point into scratch_; [kBatchTokens][stride] where nothing else is said. Paddings are
  // zero and stay so.
  float* x_;               // the residual stream
  float* delta_;           // what a block adds to it
  float *cosine_, *sine_;  // [kBatchTokens][head_dim / 2]
  float *q_, *k_, *v_, *attention_;
  float *gate_, *up_;
  float* parts_;               // [spans][n_heads][AttentionPartFloats], where there are several
  float* unit_rows_;           // [threads][16][hidden_stride], where the embedding is in panels
  float* logits_;              // [max_logits][logits_stride]
  InputBuffers shared_;        // for a batch
  std::vector<OwnInput> own_;  // for one token, one for each thread
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TRANSFORMER_H_
