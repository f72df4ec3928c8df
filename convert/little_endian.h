// Unsigned integers from little-endian bytes, at any alignment.
#ifndef QUIRE_CONVERT_LITTLE_ENDIAN_H_
#define QUIRE_CONVERT_LITTLE_ENDIAN_H_

#include <cstdint>

namespace quire {

template <typename T>
T LoadLittleEndian(const void* bytes) {
  const uint8_t* p = static_cast<const uint8_t*>(bytes);
  T value = 0;
  for (unsigned i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<T>(p[i]) << (8 * i));
  return value;
}

}  // namespace quire

#endif  // QUIRE_CONVERT_LITTLE_ENDIAN_H_
