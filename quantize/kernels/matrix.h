// The one kernel of the linear algebra of calibration, by ISA. Plain C++ only, as kernels.h. Every
// table gives the same bits: each element's sum is one chain of fused multiply-adds from zero, t
// ascending.
#ifndef QUIRE_QUANTIZE_KERNELS_MATRIX_H_
#define QUIRE_QUANTIZE_KERNELS_MATRIX_H_

#include <stdint.h>

namespace quire {

// c[i][j] += sign * (sum over t < k of a(i, t) * b[t][j]) for i < rows, j < cols.
struct MultiplyAddArgs {
  const float* a;  // a(i, t) at a[i * a_row + t * a_step]
  int64_t a_row, a_step;
  const float* b;  // rows b_row apart
  int64_t b_row;
  int64_t k;
  float* c;  // rows c_row apart
  int64_t c_row;
  int64_t rows;  // a multiple of 8
  int64_t cols;  // a multiple of 32
  float sign;    // 1 or -1
};

struct MatrixKernels {
  const char* name;  // "scalar", "avx2", "avx512"
  // Whether this CPU (and its operating system) can run it.
  bool (*supported)();
  void (*multiply_add)(const MultiplyAddArgs& args);
};

const MatrixKernels& ScalarMatrixKernels();
#if defined(__x86_64__)
const MatrixKernels& Avx2MatrixKernels();
const MatrixKernels& Avx512MatrixKernels();
#endif

// Every table of this build, best last. Ends with a null pointer.
const MatrixKernels* const* AllMatrixKernels();
// The best that this CPU supports.
const MatrixKernels& ChooseMatrixKernels();

}  // namespace quire

#endif  // QUIRE_QUANTIZE_KERNELS_MATRIX_H_
