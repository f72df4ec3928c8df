// XXH3-64 of bytes that come in parts.
#ifndef QUIRE_FORMAT_XXH3_H_
#define QUIRE_FORMAT_XXH3_H_

#define XXH_STATIC_LINKING_ONLY  // the state by value, so that there is no allocation to fail
#include <xxhash.h>

#include <cstddef>
#include <cstdint>

namespace quire {

class Xxh3 {
 public:
  Xxh3() { Reset(); }
  void Reset() { XXH3_64bits_reset(&state_); }
  void Update(const void* data, size_t bytes) { XXH3_64bits_update(&state_, data, bytes); }
  uint64_t Digest() const { return XXH3_64bits_digest(&state_); }

 private:
  XXH3_state_t state_;
};

}  // namespace quire

#endif  // QUIRE_FORMAT_XXH3_H_
