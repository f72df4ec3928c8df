// The kernels' one table. Each ISA is one file with one external symbol, a function that returns its table; the scalar
// file is the readable definition and the oracle of the others. Plain C++ only, so that per-file compiler flags cannot
// leak into shared inline functions.
//
// Activations that meet integer weights (q8, q4, q4_0) are quantized to int8, one f32 scale per token and group of 32
// columns: scale = max|x| / 127, q = round(x / scale) to nearest even. Layout for a batch of n tokens (so that a tile of
// tokens is contiguous within a group):
//   q     [groups][n][32] int8
//   scale [groups][n] f32
//   sum   [groups][n] int32, the sum of the group's 32 q values
#ifndef QUIRE_RUNTIME_KERNELS_KERNELS_H_
#define QUIRE_RUNTIME_KERNELS_KERNELS_H_

#include <stdint.h>

#include "format/encoding.h"

namespace quire {

struct QuantizedActivations {
  int8_t* q;
  float* scale;
  int32_t* sum;
};

struct MatmulArgs {
  const uint8_t* panels;     // first of the panels to multiply, in the layout of format/packed_layout.h (PANELS)
  int64_t panel_bytes;       // from one panel to the next
  int64_t n_panels;
  int64_t groups;            // padded columns / 32
  const int8_t* codebook;    // 16 values, or null
  QuantizedActivations xq;   // integer encodings read these
  const float* x;            // float encodings read these: [n_tokens][x_stride], padded columns zero
  int64_t x_stride;
  int64_t n_tokens;          // 1: decode
  float* y;                  // y[t * y_stride + 16 * panel + row], row 0..15 (rows are padded: y has room)
  int64_t y_stride;
};

using MatmulFunction = void (*)(const MatmulArgs&);

struct KernelTable {
  const char* name;  // "scalar", "avx2", "avx512vnni", ... as in QUIRE_KERNELS
  // Whether this CPU (and its operating system) can run it.
  bool (*supported)();
  // y = W x for each encoding, indexed by Encoding - 1.
  MatmulFunction matmul[kNumEncodings];
  // Quantizes tokens [t0, t1) of x[n_tokens][x_stride] over `groups` groups into out (laid out for n_tokens).
  void (*quantize)(const float* x, int64_t x_stride, int64_t n_tokens, int64_t t0, int64_t t1, int64_t groups,
                   const QuantizedActivations& out);
  // out[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps). In f32, the sum in lanes; out may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  // gate[i] = silu(gate[i]) * up[i].
  void (*silu_mul)(float* gate, const float* up, int64_t n);
  // Attention of one query head over n cached positions (keys and values f16, [position][kv_stride]):
  // out[head_dim] = softmax(scale * q.k) v. `scores` is scratch of n floats.
  void (*attention)(const float* q, const uint16_t* keys, const uint16_t* values, int64_t kv_stride, int64_t n,
                    int64_t head_dim, float scale, float* scores, float* out);
};

const KernelTable& ScalarKernels();
#if defined(__x86_64__)
const KernelTable& Avx2Kernels();
const KernelTable& Avx512VnniKernels();
#endif

// Every table of this build, best last. Ends with a null pointer.
const KernelTable* const* AllKernels();
// The best that this CPU supports, or the one that QUIRE_KERNELS names. Null where that one is unknown or cannot run here.
const KernelTable* ChooseKernels();

}  // namespace quire

#endif  // QUIRE_RUNTIME_KERNELS_KERNELS_H_
