// AVX-512 with VNNI: a line of a panel is one register, sixteen rows its lanes.
#include <immintrin.h>
#include <stdint.h>

#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

#define QUIRE_INLINE inline __attribute__((always_inline))
#define QUIRE_LAMBDA __attribute__((always_inline))

bool Supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

// Sixteen f32: what the definition calls lanes.
struct Lanes {
  __m512 v;
};
QUIRE_INLINE __mmask16 FirstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }
QUIRE_INLINE Lanes Set(float x) { return {_mm512_set1_ps(x)}; }
QUIRE_INLINE Lanes Load(const float* p) { return {_mm512_loadu_ps(p)}; }
QUIRE_INLINE Lanes LoadFirst(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(FirstLanes(n), p)};
}
QUIRE_INLINE Lanes LoadHalf(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
QUIRE_INLINE Lanes LoadHalfFirst(const uint16_t* p, int n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes(n), p))};
}
QUIRE_INLINE void Store(float* p, Lanes x) { _mm512_storeu_ps(p, x.v); }
QUIRE_INLINE void StoreFirst(float* p, int n, Lanes x) {
  _mm512_mask_storeu_ps(p, FirstLanes(n), x.v);
}
QUIRE_INLINE void StoreHalf(uint16_t* p, Lanes x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
QUIRE_INLINE Lanes Add(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
QUIRE_INLINE Lanes Sub(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
QUIRE_INLINE Lanes Mul(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
QUIRE_INLINE Lanes Div(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
QUIRE_INLINE Lanes Fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// Where either is NaN, b.
QUIRE_INLINE Lanes Max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
QUIRE_INLINE Lanes Min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
// 2^n for n that was rounded by adding kRound.
QUIRE_INLINE Lanes Exponent(Lanes rounded) {
  const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(rounded.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f800000)))};
}
QUIRE_INLINE float Fold(Lanes x) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

// The dot products that attention takes at a time, and their folds.
constexpr int kDots = 16;
QUIRE_INLINE void FoldDots(const Lanes x[kDots], float out[kDots]) {
  // Each step adds the halves of what is left of two sums and keeps both results in one register.
  __m512 a[8], b[4], c[2];
  for (int i = 0; i < 8; ++i) {
    a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0x44),
                         _mm512_shuffle_f32x4(x[i].v, x[i + 8].v, 0xee));
  }
  for (int i = 0; i < 4; ++i) {
    b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88),
                         _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
  }
  for (int i = 0; i < 2; ++i) {
    const __m512d low = _mm512_castps_pd(b[i]), high = _mm512_castps_pd(b[i + 2]);
    c[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
  }
  const __m512 d =
      _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xdd));
  // a pairs 8 apart in halves; b's 128-bit quarters are x[i], x[i+8], x[i+4], x[i+12]; c's pairs
  // add 2; d's lanes are c0.lo c0.hi c1.lo c1.hi, that is +0 +2 +1 +3.
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  _mm512_storeu_ps(out, _mm512_permutexvar_ps(order, d));
}

QUIRE_INLINE float FoldMax(Lanes x) { return _mm512_reduce_max_ps(x.v); }

// The largest of 32 magnitudes, as bits (where NaN is above all).
QUIRE_INLINE uint32_t MaxMagnitude(Lanes a, Lanes b) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  return _mm512_reduce_max_epu32(
      _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a.v), mask),
                       _mm512_and_si512(_mm512_castps_si512(b.v), mask)));
}
// Rounds 32 values to int8, stores them and returns their sum.
QUIRE_INLINE int32_t StoreRounded(int8_t* out, Lanes a, Lanes b) {
  const __m512i low = _mm512_cvtps_epi32(a.v), high = _mm512_cvtps_epi32(b.v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out) + 1, _mm512_cvtepi32_epi8(high));
  return _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
}

#include "runtime/kernels/lanes.inc"
#include "runtime/kernels/panels.inc"

QUIRE_INLINE __m512i LoadLine(const uint8_t* p) { return _mm512_loadu_si512(p); }
QUIRE_INLINE __m512 HalfScales(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
QUIRE_INLINE __m512i LowNibbles(__m512i line) {
  return _mm512_and_si512(line, _mm512_set1_epi8(15));
}
QUIRE_INLINE __m512i HighNibbles(__m512i line) { return LowNibbles(_mm512_srli_epi16(line, 4)); }

// What differs between the integer encodings. Unpack makes the eight lines of a group unsigned, by
// adding 128 >> shift.
struct Q8 {
  static constexpr Encoding kEncoding = Encoding::kQ8;
  static constexpr int kBiasShift = 0;
  explicit Q8(const int8_t*) {}
  QUIRE_INLINE void Unpack(const uint8_t* codes, __m512i w[8]) const {
    for (int j = 0; j < 8; ++j)
      w[j] = _mm512_xor_si512(LoadLine(codes + j * kLineBytes), _mm512_set1_epi8(-128));
  }
  QUIRE_INLINE __m512 Scales(const uint8_t* p) const { return HalfScales(p); }
};

struct Q4 {
  static constexpr Encoding kEncoding = Encoding::kQ4;
  static constexpr int kBiasShift = 0;
  __m512i codebook;
  explicit Q4(const int8_t* values)
      : codebook(_mm512_xor_si512(
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values))),
            _mm512_set1_epi8(-128))) {}
  QUIRE_INLINE void Unpack(const uint8_t* codes, __m512i w[8]) const {
    for (int j = 0; j < 4; ++j) {
      const __m512i line = LoadLine(codes + j * kLineBytes);
      w[j] = _mm512_shuffle_epi8(codebook, LowNibbles(line));
      w[4 + j] = _mm512_shuffle_epi8(codebook, HighNibbles(line));
    }
  }
  QUIRE_INLINE __m512 Scales(const uint8_t* p) const {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
};

struct Q4_0 {
  static constexpr Encoding kEncoding = Encoding::kQ4_0;
  static constexpr int kBiasShift = 4;
  explicit Q4_0(const int8_t*) {}
  QUIRE_INLINE void Unpack(const uint8_t* codes, __m512i w[8]) const {
    for (int j = 0; j < 4; ++j) {
      const __m512i line = LoadLine(codes + j * kLineBytes);
      w[j] = LowNibbles(line);
      w[4 + j] = HighNibbles(line);
    }
  }
  QUIRE_INLINE __m512 Scales(const uint8_t* p) const { return HalfScales(p); }
};

template <typename Code>
struct IntegerProduct {
  static constexpr int kMaxTokens = 16;
  const MatmulArgs& a;
  const Code code;

  // Four tokens go side by side, so that the eight products of one are not a chain that waits for
  // itself.
  template <int T, bool kFirst>
  QUIRE_INLINE void Tile(const uint8_t* panel, int64_t t0, float* y) const {
    constexpr Encoding E = Code::kEncoding;
    constexpr int kSide = T < 4 ? T : 4;
    __m512 sum[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) sum[t] = _mm512_setzero_ps();
    ForEachGroup<E, kFirst>(
        panel, a.groups, [&](const uint8_t* scales, const uint8_t* codes, int64_t g) QUIRE_LAMBDA {
          const int8_t* q = a.xq.q + (g * a.n_tokens + t0) * kGroupColumns;
          const float* scale = a.xq.scale + g * a.n_tokens + t0;
          const int32_t* bias = a.xq.bias + g * a.n_tokens + t0;
          __m512i w[8];
          code.Unpack(codes, w);
          const __m512 row_scale = code.Scales(scales);
#pragma GCC unroll 4
          for (int t = 0; t < T; t += kSide) {
            __m512i dot[kSide];
#pragma GCC unroll 4
            for (int s = 0; s < kSide; ++s) {
              dot[s] = _mm512_srai_epi32(_mm512_set1_epi32(bias[t + s]), Code::kBiasShift);
            }
#pragma GCC unroll 8
            for (int j = 0; j < 8; ++j) {
#pragma GCC unroll 4
              for (int s = 0; s < kSide; ++s) {
                const int32_t x = LoadInt32(q + (t + s) * kGroupColumns + 4 * j);
                dot[s] = _mm512_dpbusd_epi32(dot[s], w[j], _mm512_set1_epi32(x));
              }
            }
#pragma GCC unroll 4
            for (int s = 0; s < kSide; ++s) {
              const __m512 both_scales = _mm512_mul_ps(row_scale, _mm512_set1_ps(scale[t + s]));
              sum[t + s] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[s]), both_scales, sum[t + s]);
            }
          }
        });
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
      if (Info(E).row_scale) sum[t] = _mm512_mul_ps(sum[t], _mm512_loadu_ps(panel));
      _mm512_storeu_ps(y + t * a.y_stride, sum[t]);
    }
  }
};

template <typename Code>
void MatmulInteger(const MatmulArgs& a) {
  Multiply(a, IntegerProduct<Code>{a, Code(a.codebook)});
}

// Float codes, as two f32 registers whose lanes are the line's elements in some order; Activations
// loads what meets them. The chains of even and odd columns lie side by side in the lanes (f16), in
// registers (bf16), or in turns (f32).
struct F16 {
  static constexpr Encoding kEncoding = Encoding::kF16;
  static constexpr int kLineColumns = 2;
  // Rows 0..7 and 8..15, each as even and odd column side by side.
  QUIRE_INLINE static void Unpack(const uint8_t* line, __m512 w[2]) {
    w[0] = HalfScales(line);
    w[1] = HalfScales(line + 32);
  }
  QUIRE_INLINE static void Activations(const float* x, __m512 v[2]) {
    double pair;
    __builtin_memcpy(&pair, x, sizeof pair);
    v[0] = v[1] = _mm512_castpd_ps(_mm512_set1_pd(pair));
  }
  QUIRE_INLINE static __m512 Join(__m512 a, __m512 b) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_add_ps(
        _mm512_permutex2var_ps(a, even, b),
        _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b));
  }
};

struct BF16 {
  static constexpr Encoding kEncoding = Encoding::kBF16;
  static constexpr int kLineColumns = 2;
  QUIRE_INLINE static void Unpack(const uint8_t* line, __m512 w[2]) {
    const __m512i pairs = LoadLine(line);
    w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    w[1] = _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
  }
  QUIRE_INLINE static void Activations(const float* x, __m512 v[2]) {
    v[0] = _mm512_set1_ps(x[0]);
    v[1] = _mm512_set1_ps(x[1]);
  }
  QUIRE_INLINE static __m512 Join(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};

struct F32 {
  static constexpr Encoding kEncoding = Encoding::kF32;
  static constexpr int kLineColumns = 1;
  QUIRE_INLINE static void Unpack(const uint8_t* line, __m512 w[2]) {
    w[0] = _mm512_loadu_ps(line);
    w[1] = _mm512_loadu_ps(line + kLineBytes);
  }
  QUIRE_INLINE static void Activations(const float* x, __m512 v[2]) {
    v[0] = _mm512_set1_ps(x[0]);
    v[1] = _mm512_set1_ps(x[1]);
  }
  QUIRE_INLINE static __m512 Join(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};

template <typename Code>
struct FloatProduct {
  static constexpr int kMaxTokens = 8;
  const MatmulArgs& a;

  template <int T, bool kFirst>
  QUIRE_INLINE void Tile(const uint8_t* panel, int64_t t0, float* y) const {
    constexpr int kPairBytes = 2 / Code::kLineColumns * kLineBytes;
    __m512 sum[T][2];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
    ForEachGroup<Code::kEncoding, kFirst>(
        panel, a.groups, [&](const uint8_t*, const uint8_t* line, int64_t g) QUIRE_LAMBDA {
          const float* x = a.x + t0 * a.x_stride + g * kGroupColumns;
          for (int k = 0; k < kGroupColumns; k += 2, line += kPairBytes) {
            __m512 w[2];
            Code::Unpack(line, w);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
              __m512 v[2];
              Code::Activations(x + t * a.x_stride + k, v);
              sum[t][0] = _mm512_fmadd_ps(w[0], v[0], sum[t][0]);
              sum[t][1] = _mm512_fmadd_ps(w[1], v[1], sum[t][1]);
            }
          }
        });
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
      _mm512_storeu_ps(y + t * a.y_stride, Code::Join(sum[t][0], sum[t][1]));
  }
};

template <typename Code>
void MatmulFloat(const MatmulArgs& a) {
  Multiply(a, FloatProduct<Code>{a});
}

constexpr KernelTable kTable = {
    "avx512vnni",
    Supported,
    {MatmulFloat<F32>, MatmulFloat<F16>, MatmulFloat<BF16>, MatmulInteger<Q8>, MatmulInteger<Q4>,
     MatmulInteger<Q4_0>},
    Quantize,
    RmsNorm,
    SiluMul,
    ToHalf,
    Attention,
};

}  // namespace

const KernelTable& Avx512VnniKernels() { return kTable; }

}  // namespace quire
