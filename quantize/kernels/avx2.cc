// AVX2: half a panel in a register.
#include <immintrin.h>
#include <stdint.h>

#include "quantize/kernels/kernels.h"

namespace quire {
namespace {

constexpr int kLanes = 8;
typedef float F32 __attribute__((vector_size(4 * kLanes)));
typedef int32_t I32 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U32 __attribute__((vector_size(4 * kLanes)));
typedef uint16_t U16 __attribute__((vector_size(2 * kLanes)));
typedef int8_t I8 __attribute__((vector_size(kLanes)));
typedef float HalfF32 __attribute__((vector_size(2 * kLanes)));
typedef double F64 __attribute__((vector_size(4 * kLanes)));

template <int kSize>
struct Table;

template <>
struct Table<16> {
  __m256 low, high;
  explicit Table(const float* v) : low(_mm256_loadu_ps(v)), high(_mm256_loadu_ps(v + 8)) {}
  F32 operator[](I32 i) const {
    const __m256i index = (__m256i)i;
    const __m256 pick = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));  // bit 3 as the sign
    return (F32)_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index),
                                 _mm256_permutevar8x32_ps(high, index), pick);
  }
};

template <>
struct Table<32> {
  Table<16> low, high;
  explicit Table(const float* v) : low(v), high(v + 16) {}
  F32 operator[](I32 i) const {
    const __m256 pick = _mm256_castsi256_ps(_mm256_slli_epi32((__m256i)i, 27));
    return (F32)_mm256_blendv_ps((__m256)low[i], (__m256)high[i], pick);
  }
};

#include "quantize/kernels/lanes.inc"

bool Supported() { return __builtin_cpu_supports("avx2"); }

constexpr EncodeKernels MakeKernels() {
  EncodeKernels kernels{"avx2", Supported, {}};
  for (int i = 0; i < kNumEncodings; ++i) kernels.encode[i] = kEncodePanel[i];
  return kernels;
}
constexpr EncodeKernels kKernels = MakeKernels();

}  // namespace

const EncodeKernels& Avx2EncodeKernels() { return kKernels; }

}  // namespace quire
