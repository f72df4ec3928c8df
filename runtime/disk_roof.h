// How fast the disk under a file is.
#ifndef QUIRE_RUNTIME_DISK_ROOF_H_
#define QUIRE_RUNTIME_DISK_ROOF_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

// Reads at most `bytes` of the file from its beginning, past the page cache (O_DIRECT), front to
// back, several reads in flight; bytes per second. FailedPrecondition where the file system refuses
// direct reads.
absl::StatusOr<double> MeasureDiskRead(const std::string& path, int64_t bytes);

}  // namespace quire

#endif  // QUIRE_RUNTIME_DISK_ROOF_H_
