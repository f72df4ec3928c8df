// AVX-512 (F, BW, DQ, VL): a panel in a register.
#include <immintrin.h>
#include <stdint.h>

#include "quantize/kernels/kernels.h"

namespace quire {
namespace {

constexpr int kLanes = 16;
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
  __m512 values;
  explicit Table(const float* v) : values(_mm512_loadu_ps(v)) {}
  F32 operator[](I32 i) const {
    return (F32)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)i, values);
  }
};

template <>
struct Table<32> {
  __m512 low, high;
  explicit Table(const float* v) : low(_mm512_loadu_ps(v)), high(_mm512_loadu_ps(v + 16)) {}
  F32 operator[](I32 i) const { return (F32)_mm512_permutex2var_ps(low, (__m512i)i, high); }
};

#include "quantize/kernels/lanes.inc"

bool Supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

constexpr EncodeKernels MakeKernels() {
  EncodeKernels kernels{"avx512", Supported, {}};
  for (int i = 0; i < kNumEncodings; ++i) kernels.encode[i] = kEncodePanel[i];
  return kernels;
}
constexpr EncodeKernels kKernels = MakeKernels();

}  // namespace

const EncodeKernels& Avx512EncodeKernels() { return kKernels; }

}  // namespace quire
