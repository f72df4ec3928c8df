// How fast this machine's memory can be read: what generation, which reads every weight for every
// token, is measured against.
#ifndef QUIRE_RUNTIME_MEMORY_ROOF_H_
#define QUIRE_RUNTIME_MEMORY_ROOF_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "format/thread_pool.h"

namespace quire {

// Bytes per second at which the pool's threads together read `bytes` of memory of their own, each a
// contiguous share: the best of several passes. Choose many times the size of the caches.
// ResourceExhausted where the system refuses the memory.
absl::StatusOr<double> MeasureMemoryRead(ThreadPool& pool, int64_t bytes);

}  // namespace quire

#endif  // QUIRE_RUNTIME_MEMORY_ROOF_H_
