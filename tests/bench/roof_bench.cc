// Prints the machine's limits: read bandwidth with 1 to N threads, int8 and f32 peaks.
//   bazel run -c opt //tests/bench:roof_bench [threads]
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "runtime/roof.h"

namespace quire {
namespace {

constexpr int kRepeats = 40;
constexpr int64_t kBufferBytes = int64_t{1} << 30, kSliceBytes = int64_t{1} << 27;

void PrintPeaks(const char* what, absl::Span<const Peak> peaks, ThreadPool& pool) {
  for (const Peak& peak : peaks) {
    if (!peak.supported()) continue;
    double best = 0;
    for (int i = 0; i < kRepeats; ++i) best = std::max(best, MeasurePeak(peak, pool));
    std::printf("  %-5s %8.3f Tops/s  (%s)\n", what, best * 1e-12, peak.name);
  }
}

int Main(int max_threads) {
  for (int n = 1; n <= max_threads; ++n) {
    ThreadPool pool(n);
    const absl::StatusOr<AnonymousMemory> memory = RoofMemory(kBufferBytes, pool);
    if (!memory.ok()) {
      std::fprintf(stderr, "%s\n", memory.status().ToString().c_str());
      return 1;
    }
    std::printf("%d thread%s\n", n, n == 1 ? "" : "s");
    double best = 0;
    for (int i = 0; i < kRepeats; ++i) {
      const int64_t at = i * kSliceBytes % kBufferBytes;
      best = std::max(best,
                      ReadBandwidth({memory->data() + at, static_cast<size_t>(kSliceBytes)}, pool));
    }
    std::printf("  read  %8.2f GB/s\n", best * 1e-9);
    PrintPeaks("int8", Int8Peaks(), pool);
    PrintPeaks("f32", F32Peaks(), pool);
  }
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  return quire::Main(argc > 1 ? std::atoi(argv[1]) : quire::DefaultThreads());
}
