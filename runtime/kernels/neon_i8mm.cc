// AArch64 with the int8 matrix extension (i8mm): smmla multiplies two rows by two tokens, eight
// columns at a time, twice the products of sdot. One token alone goes by sdot.
#include <arm_neon.h>
#include <stdint.h>
#include <sys/auxv.h>

#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

#include "runtime/kernels/neon.inc"

template <typename Code, int T>
struct MatrixTile {
  static_assert(T % 2 == 0, "tokens go in pairs");

  // Columns 8k .. 8k+7: `even` holds the first four of them, four rows a register, `odd` the
  // others.
  QUIRE_INLINE static void Columns(const int8x16_t even[4], const int8x16_t odd[4], const int8_t* q,
                                   int32x4_t pairs[T / 2][8]) {
    int8x16_t rows[8];  // two rows of eight columns each
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const int32x4_t a = vreinterpretq_s32_s8(even[r]), b = vreinterpretq_s32_s8(odd[r]);
      rows[2 * r] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
      rows[2 * r + 1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
#pragma GCC unroll 2
    for (int t = 0; t < T / 2; ++t) {
      const int8_t* at = q + 2 * t * kGroupColumns;
      const int8x16_t tokens = vcombine_s8(vld1_s8(at), vld1_s8(at + kGroupColumns));
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) pairs[t][r] = vmmlaq_s32(pairs[t][r], rows[r], tokens);
    }
  }

  QUIRE_INLINE static void Group(const Code& code, const uint8_t* codes, const int8_t* q,
                                 int32x4_t dot[T][4]) {
    int32x4_t pairs[T / 2][8];  // row 2r by both tokens, row 2r+1 by both
#pragma GCC unroll 2
    for (int t = 0; t < T / 2; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) pairs[t][r] = vdupq_n_s32(0);
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      int8x16_t even[2][4], odd[2][4];
      code.Unpack(codes, 2 * k, even[0], even[1]);
      code.Unpack(codes, 2 * k + 1, odd[0], odd[1]);
      Columns(even[0], odd[0], q + 8 * k, pairs);
      Columns(even[1], odd[1], q + 16 + 8 * k, pairs);
    }
#pragma GCC unroll 2
    for (int t = 0; t < T / 2; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        dot[2 * t][r] = vuzp1q_s32(pairs[t][2 * r], pairs[t][2 * r + 1]);
        dot[2 * t + 1][r] = vuzp2q_s32(pairs[t][2 * r], pairs[t][2 * r + 1]);
      }
    }
  }
};

template <typename Code>
struct MatrixTile<Code, 1> : DotTile<Code, 1> {};

constexpr unsigned long kHasDotProduct = 1ul << 20;  // of AT_HWCAP
constexpr unsigned long kHasMatrixInt8 = 1ul << 13;  // of AT_HWCAP2

constexpr KernelTable kTable = {
    "neon_i8mm",
    [] {
      return (getauxval(AT_HWCAP) & kHasDotProduct) != 0 &&
             (getauxval(AT_HWCAP2) & kHasMatrixInt8) != 0;
    },
    {MatmulFloat<F32>, MatmulFloat<F16>, MatmulFloat<BF16>, MatmulInteger<Q8, MatrixTile>,
     MatmulInteger<Q4, MatrixTile>, MatmulInteger<Q4_0, MatrixTile>, MatmulInteger<Q5, MatrixTile>,
     MatmulInteger<Q6, MatrixTile>, MatmulInteger<Q4_1, MatrixTile>},
    Quantize,
    RmsNorm,
    SiluMul,
    ToHalf,
    Attention,
    JoinParts,
};

}  // namespace

const KernelTable& NeonI8mmKernels() { return kTable; }

}  // namespace quire
