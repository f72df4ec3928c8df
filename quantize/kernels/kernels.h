// The encoders' one table. Each ISA is one file with one external symbol, a function that returns
// its table; the scalar file is the readable definition and the oracle of the others, whose bytes
// and sums equal its own bit for bit: per row, the same operations in the same order (columns
// ascending), none fused. Plain C++ only, so that per-file compiler flags cannot leak into shared
// inline functions.
#ifndef QUIRE_QUANTIZE_KERNELS_KERNELS_H_
#define QUIRE_QUANTIZE_KERNELS_KERNELS_H_

#include <stdint.h>

#include "format/encoding.h"

namespace quire {

struct PanelArgs {
  const float* columns;         // [32 * groups][16]: the panel's rows side by side; padding is zero
  int64_t cols;                 // without padding
  int64_t groups;               // padded columns / 32
  const int8_t* codebook;       // Info(encoding).codebook_size ascending values, or null
  const float* column_weights;  // [cols] of values >= 0, or null: all equal
  float* scratch;               // [groups][16]
  uint8_t* out;                 // the panel (PANELS of format/packed_layout.h), all zero before
  double* squared_error;        // [16]: adds, per row, sum over columns of (x - decoded x)^2
  double* squared_norm;         // [16]: adds, per row, sum over columns of x^2
};

using EncodePanelFunction = void (*)(const PanelArgs&);

struct EncodeKernels {
  const char* name;  // "scalar", "avx2", "avx512"
  // Whether this CPU (and its operating system) can run it.
  bool (*supported)();
  // Indexed by Encoding - 1.
  EncodePanelFunction encode[kNumEncodings];
};

const EncodeKernels& ScalarEncodeKernels();
#if defined(__x86_64__)
const EncodeKernels& Avx2EncodeKernels();
const EncodeKernels& Avx512EncodeKernels();
#endif

// Every table of this build, best last. Ends with a null pointer.
const EncodeKernels* const* AllEncodeKernels();
// The best that this CPU supports.
const EncodeKernels& ChooseEncodeKernels();

// The scale search of q4, q5 and q6, common to all kernels. A group's first scale maps its element of
// largest magnitude onto the level of largest magnitude; the candidates are that scale times
// each of these factors, the one of least squared error wins. Three take most of
// what a finer search would (docs/quantization.md).
inline constexpr int kNumPlainFactors = 3, kNumWeightedFactors = 13;
inline constexpr float kPlainFactors[kNumPlainFactors] = {1.0f, 0.94f, 1.05f};
// With column weights the search is wider.
inline constexpr float kWeightedFactors[kNumWeightedFactors] = {
    1.0f, 0.98f, 1.02f, 0.96f, 1.05f, 0.94f, 0.92f, 0.9f, 0.88f, 0.86f, 0.83f, 0.8f, 0.76f};
// Room for it in the 8-bit scales.
inline constexpr float kLargestFactor = 1.05f;
// Row scales are neither subnormal (a kernel may flush those) nor so large that a decoded value
// overflows.
inline constexpr float kMinRowScale = 0x1p-126f, kMaxRowScale = 0x1.02p114f;
// A 16-bit float's largest finite value, and bfloat16's.
inline constexpr float kMaxHalf = 65504.0f, kMaxBfloat16 = 0x1.fep127f;

}  // namespace quire

#endif  // QUIRE_QUANTIZE_KERNELS_KERNELS_H_
