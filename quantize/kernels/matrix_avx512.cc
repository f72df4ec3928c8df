#include <immintrin.h>
#include <stdint.h>

#include "quantize/kernels/matrix.h"

namespace quire {
namespace {

constexpr int kLanes = 16, kTileRows = 8, kTileVectors = 2;
typedef __m512 F32;
inline F32 Load(const float* p) { return _mm512_loadu_ps(p); }
inline void Store(F32 v, float* p) { _mm512_storeu_ps(p, v); }
inline F32 All(float x) { return _mm512_set1_ps(x); }
inline F32 MultiplyAdd(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }

#include "quantize/kernels/matrix.inc"

bool Supported() { return __builtin_cpu_supports("avx512f"); }
constexpr MatrixKernels kKernels = {"avx512", Supported, MultiplyAddAll};

}  // namespace

const MatrixKernels& Avx512MatrixKernels() { return kKernels; }

}  // namespace quire
