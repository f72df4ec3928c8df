#include "runtime/roof.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "format/command_line.h"

namespace quire {
namespace {

constexpr int kPrefetchBytes = 4096;

// Sixteen bytes a load: narrow, but far from being the limit.
typedef uint64_t Vector __attribute__((vector_size(16)));

Vector Load(const uint8_t* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

uint64_t Sum(const uint8_t* data, int64_t n) {
  Vector a = {}, b = {}, c = {}, d = {};
  for (int64_t i = 0; i + 64 <= n; i += 64) {
    __builtin_prefetch(data + i + kPrefetchBytes);
    a += Load(data + i);
    b += Load(data + i + 16);
    c += Load(data + i + 32);
    d += Load(data + i + 48);
  }
  const Vector total = a + b + c + d;
  return total[0] + total[1];
}

std::atomic<uint64_t> g_sink;  // keeps sums from being optimized away

// Enough independent chains to hide any instruction's latency, each in a register of its own:
// STEP(v) advances chain v.
constexpr int kChains = 12;
#define QUIRE_CHAINS(type, zero, STEP)                                                           \
  type a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero, i = zero, \
       j = zero, k = zero, l = zero;                                                             \
  for (int64_t round = 0; round < rounds; ++round) {                                             \
    STEP(a)                                                                                      \
    STEP(b) STEP(c) STEP(d) STEP(e) STEP(f) STEP(g) STEP(h) STEP(i) STEP(j) STEP(k) STEP(l)      \
  }

#if defined(__x86_64__)

// The empty asm keeps the compiler from folding the rounds.
#define QUIRE_STEP(v, value) \
  v = value;                 \
  asm volatile("" : "+v"(v));

__attribute__((target("avx2"))) void Maddubs(int64_t rounds) {
  const __m256i x = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
#define STEP(v) \
  QUIRE_STEP(v, _mm256_add_epi32(v, _mm256_madd_epi16(_mm256_maddubs_epi16(v, x), ones)))
  QUIRE_CHAINS(__m256i, x, STEP)
#undef STEP
}
__attribute__((target("avxvnni"))) void DotYmm(int64_t rounds) {
  const __m256i x = _mm256_set1_epi8(3);
#define STEP(v) QUIRE_STEP(v, _mm256_dpbusd_avx_epi32(v, x, x))
  QUIRE_CHAINS(__m256i, x, STEP)
#undef STEP
}
__attribute__((target("avx512f,avx512vnni"))) void DotZmm(int64_t rounds) {
  const __m512i x = _mm512_set1_epi8(3);
#define STEP(v) QUIRE_STEP(v, _mm512_dpbusd_epi32(v, x, x))
  QUIRE_CHAINS(__m512i, x, STEP)
#undef STEP
}
__attribute__((target("avx2,fma"))) void FmaYmm(int64_t rounds) {
  const __m256 x = _mm256_set1_ps(0.5f);
#define STEP(v) QUIRE_STEP(v, _mm256_fmadd_ps(v, x, x))
  QUIRE_CHAINS(__m256, x, STEP)
#undef STEP
}
__attribute__((target("avx512f"))) void FmaZmm(int64_t rounds) {
  const __m512 x = _mm512_set1_ps(0.5f);
#define STEP(v) QUIRE_STEP(v, _mm512_fmadd_ps(v, x, x))
  QUIRE_CHAINS(__m512, x, STEP)
#undef STEP
}

constexpr Peak kInt8[] = {
    {"vpmaddubsw + vpmaddwd, ymm", [] { return !!__builtin_cpu_supports("avx2"); }, kChains * 64,
     Maddubs},
    {"vpdpbusd, ymm", [] { return !!__builtin_cpu_supports("avxvnni"); }, kChains * 64, DotYmm},
    {"vpdpbusd, zmm", [] { return !!__builtin_cpu_supports("avx512vnni"); }, kChains * 128, DotZmm},
};
constexpr Peak kF32[] = {
    {"vfmadd, ymm", [] { return !!__builtin_cpu_supports("fma"); }, kChains * 16, FmaYmm},
    {"vfmadd, zmm", [] { return !!__builtin_cpu_supports("avx512f"); }, kChains * 32, FmaZmm},
};

#elif defined(__aarch64__)

void Fmla(int64_t rounds) {
  const float32x4_t x = vdupq_n_f32(0.5f);
#define STEP(v) asm volatile("fmla %0.4s, %1.4s, %1.4s" : "+w"(v) : "w"(x));
  QUIRE_CHAINS(float32x4_t, x, STEP)
#undef STEP
}
void Sdot(int64_t rounds) {
  const int32x4_t x = vdupq_n_s32(0x03030303);
#define STEP(v) \
  asm volatile(".arch_extension dotprod\nsdot %0.4s, %1.16b, %1.16b" : "+w"(v) : "w"(x));
  QUIRE_CHAINS(int32x4_t, x, STEP)
#undef STEP
}

constexpr Peak kInt8[] = {{"sdot", [] { return true; }, kChains * 32, Sdot}};
constexpr Peak kF32[] = {{"fmla", [] { return true; }, kChains * 8, Fmla}};

#endif

double SecondsSince(int64_t start_ns) {
  return 1e-9 * static_cast<double>(std::max<int64_t>(1, MonotonicNanoseconds() - start_ns));
}

}  // namespace

absl::StatusOr<AnonymousMemory> RoofMemory(int64_t bytes, ThreadPool& pool) {
  absl::StatusOr<AnonymousMemory> memory = AnonymousMemory::Map("measurement of memory", bytes);
  if (!memory.ok()) return memory.status();
  madvise(memory->data(), bytes, MADV_HUGEPAGE);
  const int64_t share = bytes / pool.size();
  pool.Run([&](int thread) {
    uint64_t state = 0x9e3779b97f4a7c15 + thread;
    for (int64_t i = thread * share; i + 8 <= (thread + 1) * share; i += 8) {
      state ^= state << 13;  // Marsaglia's xorshift64
      state ^= state >> 7;
      state ^= state << 17;
      std::memcpy(memory->data() + i, &state, 8);
    }
  });
  return memory;
}

double ReadBandwidth(absl::Span<const uint8_t> slice, ThreadPool& pool) {
  const int64_t share = static_cast<int64_t>(slice.size()) / pool.size() / 64 * 64;
  const int64_t start = MonotonicNanoseconds();
  pool.Run([&](int thread) {
    g_sink.store(Sum(slice.data() + thread * share, share), std::memory_order_relaxed);
  });
  return static_cast<double>(share * pool.size()) / SecondsSince(start);
}

absl::Span<const Peak> Int8Peaks() { return kInt8; }
absl::Span<const Peak> F32Peaks() { return kF32; }

const Peak* BestPeak(absl::Span<const Peak> peaks) {
  const Peak* best = nullptr;
  for (const Peak& peak : peaks) {
    if (peak.supported()) best = &peak;
  }
  return best;
}

double MeasurePeak(const Peak& peak, ThreadPool& pool) {
  constexpr int64_t kRounds = 400000;
  const int64_t start = MonotonicNanoseconds();
  pool.Run([&](int) { peak.run(kRounds); });
  return static_cast<double>(kRounds * peak.ops_per_round * pool.size()) / SecondsSince(start);
}

}  // namespace quire
