// AVX2 with FMA and F16C. Without VNNI: vpmaddubsw multiplies unsigned by signed bytes and adds
// pairs in 16 bits, where 255 x 127 x 2 would saturate. So wide codes go in as magnitudes, their
// signs moved to the activations: 128 x 127 x 2 = 32512 fits. Nibbles go in as they are: the pairs
// of all eight steps of a group, 8 x 2 x 15 x 127 = 30480, fit one sum.
#include <immintrin.h>
#include <stdint.h>

#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

constexpr char kFlip = 0;

struct WideDot {
  static inline __m256i Start(int32_t) { return _mm256_setzero_si256(); }
  static inline __m256i Step(__m256i sum, __m256i w, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static inline __m256i Finish(__m256i sum, int32_t) { return sum; }
};

// 16-bit sums of nibble x activation; -8 x the sum of the activations makes up for the codes'
// offset.
struct NibbleDot {
  static inline __m256i Start(int32_t) { return _mm256_setzero_si256(); }
  static inline __m256i Step(__m256i sum, __m256i w, __m256i x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
  }
  static inline __m256i Finish(__m256i sum, int32_t bias) {
    return _mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)),
                            _mm256_set1_epi32(bias / 16));
  }
};

// Codes 0..63 go in as they are: a pair of products, 2 x 63 x 127, fits 16 bits. -32 x the sum of
// the activations makes up for their offset.
struct SixBitDot {
  static inline __m256i Start(int32_t) { return _mm256_setzero_si256(); }
  static inline __m256i Step(__m256i sum, __m256i w, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static inline __m256i Finish(__m256i sum, int32_t bias) {
    return _mm256_add_epi32(sum, _mm256_set1_epi32(bias / 4));
  }
};

#include "runtime/kernels/ymm.inc"

constexpr KernelTable kTable = {
    "avx2",
    [] {
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
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

const KernelTable& Avx2Kernels() { return kTable; }

}  // namespace quire
