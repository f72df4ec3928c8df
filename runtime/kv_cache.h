// Keys and values of past tokens, in f16.
#ifndef QUIRE_RUNTIME_KV_CACHE_H_
#define QUIRE_RUNTIME_KV_CACHE_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/anonymous_memory.h"
#include "runtime/kernels/kernels.h"

namespace quire {

// Layout [span][layer][kv head][keys, values][position of the span][AttentionWidth(head_dim)]: a
// piece of attention, one head over one span, reads one contiguous stretch, and a layer's pieces
// follow one another, so that processors fetch ahead.
//
// Memory is touched as the sequence grows: page by page first, and from kSmallPagePositions on,
// where reading small pages would cost more than it saves, a span at a time.
class KvCache {
 public:
  static constexpr int64_t kSmallPagePositions = 512;

  // Exactly this much address space: ctx positions, in whole spans, 2 bytes an element.
  static constexpr int64_t Bytes(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim,
                                 int64_t ctx) {
    const int64_t spans = (ctx + kAttentionSpan - 1) / kAttentionSpan;
    return spans * kAttentionSpan * 2 * n_layers * n_kv_heads * AttentionWidth(head_dim) * 2;
  }

  // ResourceExhausted where the system refuses the memory.
  static absl::StatusOr<KvCache> Create(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim,
                                        int64_t ctx);

  int64_t ctx() const { return ctx_; }
  int64_t bytes() const { return memory_.bytes(); }
  int64_t ResidentBytes() const { return memory_.ResidentBytes(); }
  // Of all bytes, what the first `positions` may touch.
  int64_t BytesOf(int64_t positions) const;

  // Rows [head_dim] of a position; in the rest up to AttentionWidth are zeros.
  uint16_t* key(int64_t layer, int64_t head, int64_t position) {
    const int64_t plane = (position / kAttentionSpan * n_layers_ + layer) * n_kv_heads_ + head;
    return reinterpret_cast<uint16_t*>(memory_.data()) +
           (2 * plane * kAttentionSpan + position % kAttentionSpan) * width_;
  }
  uint16_t* value(int64_t layer, int64_t head, int64_t position) {
    return key(layer, head, position) + kAttentionSpan * width_;
  }
  // Elements from a row to the same of the next span.
  int64_t span_stride() const { return 2 * n_layers_ * n_kv_heads_ * kAttentionSpan * width_; }

 private:
  int64_t span_bytes() const { return 2 * span_stride(); }
  KvCache(AnonymousMemory memory, int64_t n_layers, int64_t n_kv_heads, int64_t head_dim,
          int64_t ctx)
      : memory_(std::move(memory)),
        n_layers_(n_layers),
        n_kv_heads_(n_kv_heads),
        width_(AttentionWidth(head_dim)),
        ctx_(ctx) {}

  AnonymousMemory memory_;
  int64_t n_layers_, n_kv_heads_, width_, ctx_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_KV_CACHE_H_
