// 16-bit floats, converted exactly as IEEE 754 (round to nearest, ties to even) and as bfloat16
// hardware does.
#ifndef QUIRE_FORMAT_HALF_H_
#define QUIRE_FORMAT_HALF_H_

#include <cstdint>
#include <cstring>

namespace quire {

inline float BitsToFloat(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
inline uint32_t FloatToBits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  return bits;
}

inline float Bfloat16ToFloat(uint16_t h) { return BitsToFloat(uint32_t{h} << 16); }

inline uint16_t FloatToBfloat16(float f) {
  const uint32_t bits = FloatToBits(f);
  if ((bits & 0x7fffffff) > 0x7f800000)
    return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float HalfToFloat(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00)
    return BitsToFloat(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);  // Inf, NaN
  if (magnitude >= 0x400) return BitsToFloat(sign | ((magnitude << 13) + 0x38000000));
  // Subnormal: magnitude x 2^-24, exact in f32.
  return BitsToFloat(sign | FloatToBits(static_cast<float>(magnitude) * 5.9604644775390625e-8f));
}

inline uint16_t FloatToHalf(float f) {
  const uint32_t bits = FloatToBits(f);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds to 65520 or more
  if (magnitude < 0x38800000) {
    // Subnormal result: adding 0.5 leaves magnitude x 2^24, rounded to nearest even, in the low
    // bits.
    return static_cast<uint16_t>(sign | (FloatToBits(BitsToFloat(magnitude) + 0.5f) - 0x3f000000));
  }
  return static_cast<uint16_t>(sign |
                               ((magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13));
}

}  // namespace quire

#endif  // QUIRE_FORMAT_HALF_H_
