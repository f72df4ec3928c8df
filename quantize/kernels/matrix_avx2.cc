#include <immintrin.h>
#include <stdint.h>

#include "quantize/kernels/matrix.h"

namespace quire {
namespace {

constexpr int kLanes = 8, kTileRows = 4, kTileVectors = 2;
typedef __m256 F32;
inline F32 Load(const float* p) { return _mm256_loadu_ps(p); }
inline void Store(F32 v, float* p) { _mm256_storeu_ps(p, v); }
inline F32 All(float x) { return _mm256_set1_ps(x); }
inline F32 MultiplyAdd(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }

#include "quantize/kernels/matrix.inc"

bool Supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
constexpr MatrixKernels kKernels = {"avx2", Supported, MultiplyAddAll};

}  // namespace

const MatrixKernels& Avx2MatrixKernels() { return kKernels; }

}  // namespace quire
