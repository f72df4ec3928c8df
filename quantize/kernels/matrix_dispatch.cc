#include <math.h>

#include "quantize/kernels/matrix.h"

namespace quire {
namespace {

// Sixteen columns at a time, which compilers vectorize where the CPU's baseline has a fused
// multiply-add.
void MultiplyAddAll(const MultiplyAddArgs& args) {
  constexpr int kColumns = 16;
  for (int64_t j = 0; j < args.cols; j += kColumns) {
    for (int64_t i = 0; i < args.rows; ++i) {
      float sums[kColumns] = {};
      for (int64_t t = 0; t < args.k; ++t) {
        const float factor = args.a[i * args.a_row + t * args.a_step];
        const float* b = args.b + t * args.b_row + j;
        for (int v = 0; v < kColumns; ++v) sums[v] = fmaf(factor, b[v], sums[v]);
      }
      float* c = args.c + i * args.c_row + j;
      for (int v = 0; v < kColumns; ++v) c[v] += args.sign * sums[v];
    }
  }
}

constexpr MatrixKernels kScalar = {"scalar", [] { return true; }, MultiplyAddAll};

}  // namespace

const MatrixKernels& ScalarMatrixKernels() { return kScalar; }

const MatrixKernels* const* AllMatrixKernels() {
  static const MatrixKernels* const kAll[] = {
      &ScalarMatrixKernels(),
#if defined(__x86_64__)
      &Avx2MatrixKernels(),
      &Avx512MatrixKernels(),
#endif
      nullptr,
  };
  return kAll;
}

const MatrixKernels& ChooseMatrixKernels() {
  static const MatrixKernels* const kBest = [] {
    const MatrixKernels* best = nullptr;
    for (const MatrixKernels* const* k = AllMatrixKernels(); *k != nullptr; ++k) {
      if ((*k)->supported()) best = *k;
    }
    return best;
  }();
  return *kBest;
}

}  // namespace quire
