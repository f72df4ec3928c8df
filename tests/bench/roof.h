// The machine's limits, measured: what benchmarks divide by. Neighbours and frequency move these
// numbers from second to second, so measure them in turns with the thing they bound, in one
// process, and keep the best of each.
#ifndef QUIRE_TESTS_BENCH_ROOF_H_
#define QUIRE_TESTS_BENCH_ROOF_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "format/thread_pool.h"

namespace quire {

double Seconds();  // monotonic

// Memory to stream through: its pages present and of distinct contents. Rounded up to 64 bytes.
class Buffer {
 public:
  explicit Buffer(int64_t n_bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  uint8_t* data_;
  int64_t size_;
};

// Bytes per second at which all threads together read a slice, each a contiguous share, with a
// prefetch ahead: one measurement.
double ReadBandwidth(absl::Span<const uint8_t> slice, ThreadPool& pool);

// An instruction's throughput from registers.
struct Peak {
  const char* name;
  bool (*supported)();
  int64_t ops_per_round;  // a multiply and an add are two
  void (*run)(int64_t rounds);
};
absl::Span<const Peak> Int8Peaks();  // best last
absl::Span<const Peak> F32Peaks();   // best last

// The best that this CPU supports; null where there is none.
const Peak* BestPeak(absl::Span<const Peak> peaks);

// Operations per second of all threads together: one measurement of about 2 ms.
double MeasurePeak(const Peak& peak, ThreadPool& pool);

}  // namespace quire

#endif  // QUIRE_TESTS_BENCH_ROOF_H_
