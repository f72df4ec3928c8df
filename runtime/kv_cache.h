// Keys and values of past tokens, in f16.
#ifndef QUIRE_RUNTIME_KV_CACHE_H_
#define QUIRE_RUNTIME_KV_CACHE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/anonymous_memory.h"

namespace quire {

// Layout [layer][keys, values][kv head][position][head_dim]: attention of one head reads one
// contiguous run of positions, which hardware prefetchers follow. With the positions outermost, a
// 7B model's head would read 256 bytes out of every 8 KiB: another page for each position.
//
// Pages are touched when a token is first stored, so that a cache for a long context costs what has
// been used of it.
class KvCache {
 public:
  // Exactly this much address space: keys and values of ctx positions, 2 bytes an element.
  static constexpr int64_t Bytes(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim,
                                 int64_t ctx) {
    return 2 * n_layers * ctx * n_kv_heads * head_dim * 2;
  }

  // ResourceExhausted where the system refuses the memory.
  static absl::StatusOr<KvCache> Create(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim,
                                        int64_t ctx);

  int64_t ctx() const { return ctx_; }
  int64_t bytes() const { return memory_.bytes(); }
  int64_t ResidentBytes() const { return memory_.ResidentBytes(); }
  // Elements from one position of a head to the next.
  int64_t position_stride() const { return head_dim_; }
  // [ctx][head_dim] of one head.
  uint16_t* keys(int64_t layer, int64_t head) { return Plane(2 * layer, head); }
  uint16_t* values(int64_t layer, int64_t head) { return Plane(2 * layer + 1, head); }

 private:
  KvCache(AnonymousMemory memory, int64_t n_kv_heads, int64_t head_dim, int64_t ctx)
      : memory_(std::move(memory)), n_kv_heads_(n_kv_heads), head_dim_(head_dim), ctx_(ctx) {}
  uint16_t* Plane(int64_t plane, int64_t head) {
    return reinterpret_cast<uint16_t*>(memory_.data()) +
           (plane * n_kv_heads_ + head) * ctx_ * head_dim_;
  }

  AnonymousMemory memory_;
  int64_t n_kv_heads_, head_dim_, ctx_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_KV_CACHE_H_
