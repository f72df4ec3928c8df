#include "runtime/memory_roof.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "format/command_line.h"
#include "format/encoding.h"
#include "runtime/anonymous_memory.h"

namespace quire {
namespace {

constexpr int kPasses = 8;
// Ahead of the reader, in bytes: far enough to cover the latency of memory, on the same page
// mostly.
constexpr int64_t kPrefetchBytes = 4096;

// The sum of the words, four lines at a time, so that reading is all that takes time.
uint64_t Read(const uint8_t* data, int64_t bytes) {
  constexpr int64_t kStep = 4 * kLineBytes, kWords = kStep / 8;
  uint64_t sums[kWords] = {};
  for (int64_t at = 0; at + kStep <= bytes; at += kStep) {
    for (int64_t line = 0; line < kStep; line += kLineBytes) {
      __builtin_prefetch(data + at + kPrefetchBytes + line);
    }
    uint64_t words[kWords];
    std::memcpy(words, data + at, kStep);
    for (int64_t i = 0; i < kWords; ++i) sums[i] += words[i];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

absl::StatusOr<double> MeasureMemoryRead(ThreadPool& pool, int64_t bytes) {
  absl::StatusOr<AnonymousMemory> memory = AnonymousMemory::Map("measurement of memory", bytes);
  if (!memory.ok()) return memory.status();
  const int64_t share = bytes / pool.size() / kLineBytes * kLineBytes;
  // Pages that were never written are all one page of zeros.
  pool.Run([&](int thread) { std::memset(memory->data() + thread * share, thread + 1, share); });
  double best = 0;
  std::atomic<uint64_t> total{0};  // keeps the reading from being optimised away
  for (int pass = 0; pass < kPasses; ++pass) {
    const int64_t start = MonotonicNanoseconds();
    pool.Run([&](int thread) { total += Read(memory->data() + thread * share, share); });
    const int64_t ns = std::max<int64_t>(1, MonotonicNanoseconds() - start);
    best = std::max(best, 1e9 * static_cast<double>(share * pool.size()) / static_cast<double>(ns));
  }
  return best;
}

}  // namespace quire
