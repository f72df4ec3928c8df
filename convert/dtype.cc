// The table of element types, and their decoders to f32.
#include <array>
#include <cstring>

#include "convert/tensor_source.h"
#include "format/half.h"

namespace quire {
namespace {

constexpr DTypeInfo kDTypes[] = {
    {DType::kF64, "float64", 1, 8, true},
    {DType::kF32, "float32", 1, 4, true},
    {DType::kF16, "float16", 1, 2, true},
    {DType::kBF16, "bfloat16", 1, 2, true},
    {DType::kI64, "int64", 1, 8, true},
    {DType::kI32, "int32", 1, 4, true},
    {DType::kI16, "int16", 1, 2, true},
    {DType::kI8, "int8", 1, 1, true},
    {DType::kU8, "uint8", 1, 1, true},
    {DType::kBool, "bool", 1, 1, true},
    {DType::kU16, "uint16", 1, 2, true},
    {DType::kU32, "uint32", 1, 4, true},
    {DType::kU64, "uint64", 1, 8, true},
    {DType::kF8E4M3FN, "float8_e4m3fn", 1, 1, true},
    {DType::kF8E5M2, "float8_e5m2", 1, 1, true},
    {DType::kComplex64, "complex64", 1, 8, false},
    {DType::kComplex128, "complex128", 1, 16, false},
    {DType::kGgmlQ4_0, "q4_0", 32, 18, true},
    {DType::kGgmlQ4_1, "q4_1", 32, 20, true},
    {DType::kGgmlQ5_0, "q5_0", 32, 22, true},
    {DType::kGgmlQ5_1, "q5_1", 32, 24, true},
    {DType::kGgmlQ8_0, "q8_0", 32, 34, true},
    {DType::kGgmlQ2K, "q2_k", 256, 84, true},
    {DType::kGgmlQ3K, "q3_k", 256, 110, true},
    {DType::kGgmlQ4K, "q4_k", 256, 144, true},
    {DType::kGgmlQ5K, "q5_k", 256, 176, true},
    {DType::kGgmlQ6K, "q6_k", 256, 210, true},
    // A type of ggml's that is listed, never read; its size is the container's matter.
    {DType::kGgmlOther, "ggml_other", 1, 0, false},
};

constexpr bool TableIsInOrder() {
  for (size_t i = 0; i < std::size(kDTypes); ++i) {
    if (static_cast<size_t>(kDTypes[i].dtype) != i) return false;
  }
  return std::size(kDTypes) == static_cast<size_t>(DType::kGgmlOther) + 1;
}
static_assert(TableIsInOrder());

template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// HalfToFloat without branches, so that the loop over it becomes vector code; and without
// subnormal operands, on which processors stall.
inline float HalfToFloatVectorisable(uint16_t h) {
  const auto magnitude = static_cast<int32_t>(h & 0x7fffu) << 13;
  const int32_t special = (0x0f7fffff - magnitude) >> 31;    // all ones: infinity or NaN
  const int32_t subnormal = (magnitude - 0x00800000) >> 31;  // all ones: subnormal or zero
  // The exponent moves from bias 15 to 127; that of infinities and NaN is all ones.
  const int32_t normal = magnitude + ((127 - 15) << 23) + (special & (127 - 15) << 23);
  // 2^-14 x 1.mantissa - 2^-14 = 2^-14 x 0.mantissa, exact.
  const auto one_more = static_cast<uint32_t>(magnitude + ((127 - 14) << 23));
  const auto small = static_cast<int32_t>(FloatToBits(BitsToFloat(one_more) - 0x1p-14f));
  const int32_t bits = (subnormal & small) | (~subnormal & normal);
  return BitsToFloat(static_cast<uint32_t>(bits) | uint32_t{h & 0x8000u} << 16);
}

// 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, NaN is S.1111.111 (Micikevicius et
// al. 2022, "FP8 Formats for Deep Learning", table 1).
std::array<float, 256> MakeE4M3Table() {
  std::array<float, 256> table;
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    float value = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-9f
                                : BitsToFloat(static_cast<uint32_t>(exponent + 120) << 23 |
                                              static_cast<uint32_t>(mantissa) << 20);
    if ((code & 0x7f) == 0x7f) value = BitsToFloat(0x7fc00000);
    table[static_cast<size_t>(code)] = code & 0x80 ? -value : value;
  }
  return table;
}

template <typename T>
void Cast(const uint8_t* raw, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(Load<T>(raw + i * sizeof(T)));
}

// The blocks of ggml. Each decodes one block; layouts as in ggml-common.h, arithmetic in the order
// of ggml-quants.c, so that results are the same to the bit.

float LoadHalf(const uint8_t* p) { return HalfToFloat(Load<uint16_t>(p)); }

void DecodeQ4_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((q[i] >> 4) - 8);
  }
}

void DecodeQ4_1(const uint8_t* block, float* out) {
  const float d = LoadHalf(block), m = LoadHalf(block + 2);
  const uint8_t* q = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(q[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(q[i] >> 4) + m;
  }
}

void DecodeQ5_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const uint32_t high = Load<uint32_t>(block + 2);
  const uint8_t* q = block + 6;
  for (int i = 0; i < 16; ++i) {
    const int low = static_cast<int>((q[i] & 15u) | (high >> i & 1) << 4);
    const int upper = static_cast<int>((q[i] >> 4) | (high >> (i + 16) & 1) << 4);
    out[i] = d * static_cast<float>(low - 16);
    out[i + 16] = d * static_cast<float>(upper - 16);
  }
}

void DecodeQ5_1(const uint8_t* block, float* out) {
  const float d = LoadHalf(block), m = LoadHalf(block + 2);
  const uint32_t high = Load<uint32_t>(block + 4);
  const uint8_t* q = block + 8;
  for (int i = 0; i < 16; ++i) {
    const int low = static_cast<int>((q[i] & 15u) | (high >> i & 1) << 4);
    const int upper = static_cast<int>((q[i] >> 4) | (high >> (i + 16) & 1) << 4);
    out[i] = d * static_cast<float>(low) + m;
    out[i + 16] = d * static_cast<float>(upper) + m;
  }
}

void DecodeQ8_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  for (int i = 0; i < 32; ++i) {
    out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
  }
}

// 16 groups of 16: [16 scale | min nibbles][64 bytes of 2-bit codes][d][dmin].
void DecodeQ2K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block + 80), dmin = LoadHalf(block + 82);
  for (int group = 0; group < 16; ++group) {
    const uint8_t* codes = block + 16 + group / 8 * 32 + group % 2 * 16;
    const int shift = group / 2 % 4 * 2;
    const float scale = d * static_cast<float>(block[group] & 15);
    const float min = dmin * static_cast<float>(block[group] >> 4);
    for (int i = 0; i < 16; ++i) {
      out[group * 16 + i] = scale * static_cast<float>(codes[i] >> shift & 3) - min;
    }
  }
}

// 16 groups of 16: [32 bytes of high bits, inverted][64 bytes of low 2 bits][12 bytes of 6-bit
// scales, biased by 32][d].
void DecodeQ3K(const uint8_t* block, float* out) {
  const uint8_t* packed = block + 96;
  const float d = LoadHalf(block + 108);
  for (int group = 0; group < 16; ++group) {
    const int scale = (packed[group % 8] >> (group / 8 * 4) & 15) |
                      (packed[8 + group % 4] >> (group / 4 * 2) & 3) << 4;
    const float scaled = d * static_cast<float>(scale - 32);
    const uint8_t* high = block + group % 2 * 16;
    const uint8_t* low = block + 32 + group / 8 * 32 + group % 2 * 16;
    const int high_bit = group / 2, low_shift = group / 2 % 4 * 2;
    for (int i = 0; i < 16; ++i) {
      const int code = (low[i] >> low_shift & 3) + (high[i] >> high_bit & 1) * 4 - 4;
      out[group * 16 + i] = scaled * static_cast<float>(code);
    }
  }
}

// Scale and min of group g (0..7) of 32 in the 12 bytes that Q4_K and Q5_K share: 6 bits each.
struct ScaleAndMin {
  int scale, min;
};
ScaleAndMin UnpackScaleAndMin(const uint8_t* packed, int g) {
  if (g < 4) return {packed[g] & 63, packed[g + 4] & 63};
  return {(packed[g + 4] & 15) | packed[g - 4] >> 6 << 4, packed[g + 4] >> 4 | packed[g] >> 6 << 4};
}

// [d][dmin][12 bytes of scales and mins][128 bytes of nibbles: 32 low ones, then their high ones].
void DecodeQ4K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block), dmin = LoadHalf(block + 2);
  for (int g = 0; g < 8; ++g) {
    const ScaleAndMin s = UnpackScaleAndMin(block + 4, g);
    const float scale = d * static_cast<float>(s.scale), min = dmin * static_cast<float>(s.min);
    const uint8_t* codes = block + 16 + g / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      out[g * 32 + i] = scale * static_cast<float>(codes[i] >> (g % 2 * 4) & 15) - min;
    }
  }
}

// As Q4_K, with 32 bytes of fifth bits (bit g belongs to group g) before the nibbles.
void DecodeQ5K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block), dmin = LoadHalf(block + 2);
  const uint8_t* high = block + 16;
  for (int g = 0; g < 8; ++g) {
    const ScaleAndMin s = UnpackScaleAndMin(block + 4, g);
    const float scale = d * static_cast<float>(s.scale), min = dmin * static_cast<float>(s.min);
    const uint8_t* codes = block + 48 + g / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int code = (codes[i] >> (g % 2 * 4) & 15) | (high[i] >> g & 1) << 4;
      out[g * 32 + i] = scale * static_cast<float>(code) - min;
    }
  }
}

// [128 bytes of low nibbles][64 bytes of high 2 bits][16 int8 scales][d], in two halves of 128.
void DecodeQ6K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block + 208);
  for (int group = 0; group < 16; ++group) {
    const int half = group / 8, part = group / 2 % 4, at = group % 2 * 16;
    const uint8_t* low = block + half * 64 + part % 2 * 32 + at;
    const uint8_t* high = block + 128 + half * 32 + at;
    const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + group]));
    const int low_shift = part / 2 * 4, high_shift = part * 2;
    for (int i = 0; i < 16; ++i) {
      const int code = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
      out[group * 16 + i] = scale * static_cast<float>(code - 32);
    }
  }
}

template <void (*kDecode)(const uint8_t*, float*)>
void Blocks(const DTypeInfo& info, const uint8_t* raw, size_t n, float* out) {
  const auto elements = static_cast<size_t>(info.block_elements);
  for (size_t i = 0; i < n; i += elements) {
    kDecode(raw, out + i);
    raw += info.block_bytes;
  }
}

}  // namespace

const DTypeInfo& Info(DType dtype) { return kDTypes[static_cast<int>(dtype)]; }

void DecodeToFloat(DType dtype, absl::Span<const uint8_t> raw_span, absl::Span<float> out_span) {
  const uint8_t* raw = raw_span.data();
  float* out = out_span.data();
  const size_t n = out_span.size();
  const DTypeInfo& info = Info(dtype);
  switch (dtype) {
    case DType::kF32:
      if (n > 0) std::memcpy(out, raw, n * sizeof(float));
      return;
    case DType::kF16:
      for (size_t i = 0; i < n; ++i) out[i] = HalfToFloatVectorisable(Load<uint16_t>(raw + 2 * i));
      return;
    case DType::kBF16:
      for (size_t i = 0; i < n; ++i) out[i] = Bfloat16ToFloat(Load<uint16_t>(raw + 2 * i));
      return;
    case DType::kF64:
      return Cast<double>(raw, n, out);
    case DType::kI64:
      return Cast<int64_t>(raw, n, out);
    case DType::kI32:
      return Cast<int32_t>(raw, n, out);
    case DType::kI16:
      return Cast<int16_t>(raw, n, out);
    case DType::kI8:
      return Cast<int8_t>(raw, n, out);
    case DType::kU8:
      return Cast<uint8_t>(raw, n, out);
    case DType::kBool:
      for (size_t i = 0; i < n; ++i) out[i] = raw[i] != 0 ? 1.0f : 0.0f;
      return;
    case DType::kU16:
      return Cast<uint16_t>(raw, n, out);
    case DType::kU32:
      return Cast<uint32_t>(raw, n, out);
    case DType::kU64:
      return Cast<uint64_t>(raw, n, out);
    case DType::kF8E4M3FN: {
      static const std::array<float, 256> table = MakeE4M3Table();
      for (size_t i = 0; i < n; ++i) out[i] = table[raw[i]];
      return;
    }
    case DType::kF8E5M2:  // the upper half of an f16
      for (size_t i = 0; i < n; ++i) {
        out[i] = HalfToFloatVectorisable(static_cast<uint16_t>(raw[i] << 8));
      }
      return;
    case DType::kGgmlQ4_0:
      return Blocks<DecodeQ4_0>(info, raw, n, out);
    case DType::kGgmlQ4_1:
      return Blocks<DecodeQ4_1>(info, raw, n, out);
    case DType::kGgmlQ5_0:
      return Blocks<DecodeQ5_0>(info, raw, n, out);
    case DType::kGgmlQ5_1:
      return Blocks<DecodeQ5_1>(info, raw, n, out);
    case DType::kGgmlQ8_0:
      return Blocks<DecodeQ8_0>(info, raw, n, out);
    case DType::kGgmlQ2K:
      return Blocks<DecodeQ2K>(info, raw, n, out);
    case DType::kGgmlQ3K:
      return Blocks<DecodeQ3K>(info, raw, n, out);
    case DType::kGgmlQ4K:
      return Blocks<DecodeQ4K>(info, raw, n, out);
    case DType::kGgmlQ5K:
      return Blocks<DecodeQ5K>(info, raw, n, out);
    case DType::kGgmlQ6K:
      return Blocks<DecodeQ6K>(info, raw, n, out);
    case DType::kComplex64:
    case DType::kComplex128:
    case DType::kGgmlOther:
      return;
  }
}

}  // namespace quire
