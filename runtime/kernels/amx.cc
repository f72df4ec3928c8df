// AVX-512 with VNNI, and AMX for sixteen tokens at a time: a group of a panel is a B tile (8 lines:
// 32 columns by 16 rows), the activations of 16 tokens an A tile, their products a C tile. Scales
// differ from group to group, so that every C tile goes through memory (L1) to the f32 sums.
#include <immintrin.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

#include "runtime/kernels/zmm.inc"

// A process must ask Linux before it uses tile registers (Documentation/arch/x86/xstate.rst).
bool Supported() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return SupportsZmm() && __builtin_cpu_supports("amx-tile") &&
         __builtin_cpu_supports("amx-int8") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

constexpr int kTileTokens = 16;
// The operand of ldtilecfg: tile 0 is C, 1 is A, 2 is B. (The intrinsics take literal tile numbers
// only.)
struct TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {kPanelRows * 4, kGroupColumns, kLineBytes};
  uint8_t rows[16] = {kTileTokens, kTileTokens, kGroupColumns / 4};
};
static_assert(sizeof(TileShapes) == 64, "as the instruction reads it");

// GCC's tile intrinsics do not say that they read and write memory.
QUIRE_INLINE void MemoryBarrier() { asm volatile("" ::: "memory"); }

template <typename Code>
struct TileProduct {
  static constexpr int kMaxTokens = kTileTokens;
  const IntegerProduct<Code> fewer;  // tokens

  template <int T, bool kFirst>
  QUIRE_INLINE void Tile(const uint8_t* panel, int64_t t0, float* y) const {
    if constexpr (T < kTileTokens) return fewer.template Tile<T, kFirst>(panel, t0, y);
    constexpr Encoding E = Code::kEncoding;
    const MatmulArgs& a = fewer.a;
    __m512 sum[kTileTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) sum[t] = _mm512_setzero_ps();
    ForEachGroup<E, kFirst>(
        panel, a.groups, [&](const uint8_t* scales, const uint8_t* codes, int64_t g) QUIRE_LAMBDA {
          const int64_t at = g * a.n_tokens + t0;
          alignas(64) __m512i w[8];
          alignas(64) int32_t dot[kTileTokens][kPanelRows];
          fewer.code.Unpack(codes, w);
          MemoryBarrier();
          _tile_zero(0);
          _tile_loadd(1, a.xq.q + at * kGroupColumns, kGroupColumns);
          _tile_loadd(2, w, kLineBytes);
          _tile_dpbsud(0, 1, 2);
          _tile_stored(0, dot, kPanelRows * 4);
          MemoryBarrier();
          const __m512 row_scale = fewer.code.Scales(scales);
#pragma GCC unroll 16
          for (int t = 0; t < kTileTokens; ++t) {
            const int32_t bias = a.xq.bias[at + t];
            const __m512i exact = _mm512_add_epi32(_mm512_load_si512(dot[t]), Bias<Code>(bias));
            sum[t] =
                AddGroup(fewer.code, scales, row_scale, exact, a.xq.scale[at + t], bias, sum[t]);
          }
        });
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
      if (Info(E).row_scale) sum[t] = _mm512_mul_ps(sum[t], _mm512_loadu_ps(panel));
      _mm512_storeu_ps(y + t * a.y_stride, sum[t]);
    }
  }
};

template <typename Code>
void MatmulInteger(const MatmulArgs& a) {
  const IntegerProduct<Code> product{a, Code(a.codebook)};
  if (a.n_tokens < kTileTokens) return Multiply(a, product);
  const TileShapes shapes;
  MemoryBarrier();
  _tile_loadconfig(&shapes);
  Multiply(a, TileProduct<Code>{product});
  _tile_release();
}

constexpr KernelTable kTable = {
    "amx",
    Supported,
    {MatmulFloat<F32>, MatmulFloat<F16>, MatmulFloat<BF16>, MatmulInteger<Q8>, MatmulInteger<Q4>,
     MatmulInteger<Q4_0>, MatmulInteger<Q5>, MatmulInteger<Q6>, MatmulInteger<Q4_1>},
    Quantize,
    RmsNorm,
    SiluMul,
    ToHalf,
    Attention,
    JoinParts,
};

}  // namespace

const KernelTable& AmxKernels() { return kTable; }

}  // namespace quire
