// The kernels' one table. Each ISA is one file with one external symbol, a function that returns
// its table; the scalar file is the readable definition and the oracle of the others. Plain C++
// only, so that per-file compiler flags cannot leak into shared inline functions.
//
// Every table gives the same bits. scalar.cc fixes the order of each f32 operation; a fused
// multiply-add stands where it has one and nowhere else (compile with -ffp-contract=off). So what a
// model says depends neither on the CPU, nor on how a prompt is cut into batches or the work into
// threads. Kernels are thread-safe where their outputs do not overlap.
//
// Activations that meet integer weights (q8, q4, q4_0, q5, q6, q4_1) are quantized to int8, one f32
// scale per token and group of 32 columns: scale = max|x| / 127, q = round(x * (127 / max|x|)) to
// nearest even. A group whose max|x| is under 2^-120 becomes zeros; one that holds NaN or Inf gets
// scale NaN, which then shows in every y. Layout for a batch of n tokens (so that a tile of tokens
// is contiguous within a group):
//   q     [groups][n][32] int8
//   scale [groups][n] f32
//   bias  [groups][n] int32, -128 x the sum of the group's 32 q values: where a dot product wants
//   unsigned weights, an
//         accumulator that starts at it takes w + 128 for w
#ifndef QUIRE_RUNTIME_KERNELS_KERNELS_H_
#define QUIRE_RUNTIME_KERNELS_KERNELS_H_

#include <stdint.h>

#include "format/encoding.h"

namespace quire {

// What attention accumulates on its stack.
inline constexpr int kMaxHeadDim = 512;

struct QuantizedActivations {
  int8_t* q;
  float* scale;
  int32_t* bias;
};

struct MatmulArgs {
  const uint8_t*
      panels;  // first of the panels to multiply, in the layout of format/packed_layout.h (PANELS)
  int64_t panel_bytes;  // from one panel to the next
  int64_t n_panels;
  int64_t groups;           // padded columns / 32
  const int8_t* codebook;   // Info(encoding).codebook_size values, or null
  QuantizedActivations xq;  // integer encodings read these
  const float* x;           // float encodings read these: [n_tokens][x_stride], padded columns zero
  int64_t x_stride;
  int64_t n_tokens;  // 1: decode
  float* y;          // y[t * y_stride + 16 * panel + row], row 0..15 (rows are padded: y has room)
  int64_t y_stride;
};

// One KV head, the query heads that share it, and consecutive tokens. Query head h of token t is
// the head_dim floats at q + t * q_stride + h * head_dim; it sees cached positions [begin,
// n_positions + t). Its result softmax(scale * q.k) v goes to out + t * out_stride + h * head_dim.
//
// Positions lie in spans of kAttentionSpan. What a span has to say of a query is summed up on its
// own, then joined to what the spans before it said. So threads may split the work by KV heads,
// query heads, tokens, and the spans of one token: the bits stay the same.
struct AttentionArgs {
  const float* q;
  int64_t q_stride;
  int64_t n_heads;
  int64_t n_tokens;
  const uint16_t* keys;    // f16 [span][kAttentionSpan][AttentionWidth(head_dim)], zeros behind
  const uint16_t* values;  // head_dim; every row of a span is read, whatever it holds
  int64_t span_stride;     // elements from one span to the next
  int64_t begin;           // within the first span
  int64_t n_positions;     // above begin
  int64_t head_dim;        // 1..kMaxHeadDim
  float scale;
  // Instead of results, parts, which join_parts turns into them: that of query head h goes to out +
  // h * AttentionPartFloats(head_dim). Then n_tokens is 1, n_positions at most kAttentionSpan.
  bool parts;
  float* out;
  int64_t out_stride;
};

// Positions that a KV cache keeps together, and that threads take of one token's attention.
inline constexpr int kAttentionSpan = 128;
constexpr int64_t AttentionWidth(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
// What a span says of one query: AttentionWidth(head_dim) sums of weighted values, then the maximum
// of the scores and the sum of the weights exp(score - maximum).
constexpr int64_t AttentionPartFloats(int64_t head_dim) { return AttentionWidth(head_dim) + 16; }

struct KernelTable {
  const char* name;  // "scalar", "avx2", "avx512vnni", ... as in QUIRE_KERNELS
  // Whether this CPU (and its operating system) can run it.
  bool (*supported)();
  // y = W x for each encoding, indexed by Encoding - 1.
  void (*matmul[kNumEncodings])(const MatmulArgs&);
  // Quantizes tokens [t0, t1) of x[n_tokens][x_stride] over `groups` groups into out (laid out for
  // n_tokens).
  void (*quantize)(const float* x, int64_t x_stride, int64_t n_tokens, int64_t t0, int64_t t1,
                   int64_t groups, const QuantizedActivations& out);
  // out[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps); out may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  // gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)).
  void (*silu_mul)(float* gate, const float* up, int64_t n);
  // f32 to f16, to nearest even: rows of the KV cache.
  void (*to_half)(const float* x, int64_t n, uint16_t* out);
  void (*attention)(const AttentionArgs&);
  // The result [head_dim] of one query from the parts of all its spans, in order; part p begins at
  // parts + p * stride.
  void (*join_parts)(const float* parts, int64_t n_parts, int64_t stride, int64_t head_dim,
                     float* out);
};

// Constants of the definition, shared by the tables.

// exp(x) = 2^n (1 + r + r^2 P(r)), n = round(x / ln 2), r = x - n ln 2 (in two steps). P is a
// minimax fit for |r| <= ln 2 / 2; within 1.1 ulp for x in [kExpMin, kExpMax], to which x is
// clamped.
inline constexpr float kExpMin = -87.0f, kExpMax = 88.0f;
inline constexpr float kLog2E = 0x1.715476p+0f;
inline constexpr float kRound =
    12582912.0f;  // 1.5 x 2^23: added to a small float, leaves it rounded in the low bits
inline constexpr float kLn2High = 0x1.62e430p-1f, kLn2Low = -0x1.05c610p-29f;
inline constexpr float kExpP[5] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f, 0x1.123a20p-7f,
                                   0x1.6a23cep-10f};

const KernelTable& ScalarKernels();
#if defined(__x86_64__)
const KernelTable& Avx2Kernels();
const KernelTable& AvxVnniKernels();
const KernelTable& Avx512VnniKernels();
const KernelTable& AmxKernels();
#elif defined(__aarch64__)
const KernelTable& NeonKernels();
const KernelTable& NeonI8mmKernels();
#endif

// Every table of this build, best last. Ends with a null pointer.
const KernelTable* const* AllKernels();
// The best that this CPU supports, or the one that QUIRE_KERNELS names. Null where that one is
// unknown or cannot run here.
const KernelTable* ChooseKernels();

}  // namespace quire

#endif  // QUIRE_RUNTIME_KERNELS_KERNELS_H_
