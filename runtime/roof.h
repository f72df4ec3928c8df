// The machine's limits, measured: what speeds are fractions of. Neighbours and frequency move these
// numbers from second to second, so measure them in turns with the thing they bound.
#ifndef QUIRE_RUNTIME_ROOF_H_
#define QUIRE_RUNTIME_ROOF_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/thread_pool.h"
#include "runtime/anonymous_memory.h"

namespace quire {

// Memory to stream through: present, of distinct contents, and in huge pages where the system has
// them, since that is how it is read fastest. ResourceExhausted where the system refuses it.
absl::StatusOr<AnonymousMemory> RoofMemory(int64_t bytes, ThreadPool& pool);

// Bytes per second at which all threads together read a slice, each a contiguous share, with a
// prefetch ahead: one measurement. Choose many times the size of the caches.
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

#endif  // QUIRE_RUNTIME_ROOF_H_
