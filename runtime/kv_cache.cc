#include "runtime/kv_cache.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quire {

absl::StatusOr<KvCache> KvCache::Create(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim,
                                        int64_t ctx) {
  constexpr int64_t kAddressSpace = int64_t{1} << 47;
  const int64_t position_bytes = Bytes(n_layers, n_kv_heads, head_dim, 1) / kAttentionSpan;
  if (ctx > kAddressSpace / position_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a KV cache of ", ctx, " positions of ", position_bytes, " bytes each"));
  }
  absl::StatusOr<AnonymousMemory> memory =
      AnonymousMemory::Map("KV cache", Bytes(n_layers, n_kv_heads, head_dim, ctx));
  if (!memory.ok()) return memory.status();
  KvCache cache(*std::move(memory), n_layers, n_kv_heads, head_dim, ctx);
  const int64_t small = kSmallPagePositions / kAttentionSpan * cache.span_bytes();
  if (small < cache.bytes()) cache.memory_.UseHugePages(small);
  return cache;
}

int64_t KvCache::BytesOf(int64_t positions) const {
  constexpr int64_t kHugePage = int64_t{2} << 20;
  if (positions <= kSmallPagePositions) return span_bytes() / kAttentionSpan * positions;
  const int64_t spans = (positions + kAttentionSpan - 1) / kAttentionSpan;
  return std::min(bytes(), spans * span_bytes() + kHugePage);
}

}  // namespace quire
