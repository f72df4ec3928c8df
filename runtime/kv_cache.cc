#include "runtime/kv_cache.h"

#include <utility>

namespace quire {

absl::StatusOr<KvCache> KvCache::Create(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim,
                                        int64_t ctx) {
  absl::StatusOr<AnonymousMemory> memory =
      AnonymousMemory::Map("KV cache", Bytes(n_layers, n_kv_heads, head_dim, ctx));
  if (!memory.ok()) return memory.status();
  return KvCache(*std::move(memory), n_kv_heads, head_dim, ctx);
}

}  // namespace quire
