// AVX2 with AVX-VNNI: vpdpbusd on 256 bits, for CPUs without AVX-512.
#include <immintrin.h>
#include <stdint.h>

#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

// Codes go in as w + 128; the sum that starts at the bias takes it back.
constexpr char kFlip = -128;

struct WideDot {
  static inline __m256i Start(int32_t bias) { return _mm256_set1_epi32(bias); }
  static inline __m256i Step(__m256i sum, __m256i w, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
  }
  static inline __m256i Finish(__m256i sum, int32_t) { return sum; }
};

struct NibbleDot : WideDot {
  static inline __m256i Start(int32_t bias) { return _mm256_set1_epi32(bias / 16); }
};

struct SixBitDot : WideDot {
  static inline __m256i Start(int32_t bias) { return _mm256_set1_epi32(bias / 4); }
};

#include "runtime/kernels/ymm.inc"

constexpr KernelTable kTable = {
    "avxvnni",
    [] {
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c") && __builtin_cpu_supports("avxvnni");
    },
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

const KernelTable& AvxVnniKernels() { return kTable; }

}  // namespace quire
