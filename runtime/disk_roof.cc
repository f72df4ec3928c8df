#include "runtime/disk_roof.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"
#include "format/file.h"
#include "format/thread_pool.h"
#include "runtime/anonymous_memory.h"

namespace quire {

absl::StatusOr<double> MeasureDiskRead(const std::string& path, int64_t bytes) {
  constexpr int kInFlight = 4;
  constexpr int64_t kReadBytes = 4 << 20;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": this file system refuses direct reads"));
  }
  const absl::StatusOr<AnonymousMemory> buffers =
      AnonymousMemory::Map("measuring the disk", kInFlight * kReadBytes);
  if (!buffers.ok()) {
    close(fd);
    return buffers.status();
  }
  // The disk takes a read in as many parts as the memory behind it has.
  madvise(buffers->data(), buffers->bytes(), MADV_HUGEPAGE);
  bytes = std::min<int64_t>(bytes, lseek(fd, 0, SEEK_END)) / kReadBytes * kReadBytes;
  std::atomic<int64_t> read{0};
  std::atomic<int> error{0};
  const int64_t start = MonotonicNanoseconds();
  {
    ThreadPool pool(kInFlight);
    pool.ParallelFor(bytes / kReadBytes, [&](int64_t i, int thread) {
      const ssize_t n =
          pread(fd, buffers->data() + thread * kReadBytes, kReadBytes, i * kReadBytes);
      if (n < 0) error = errno;
      read += std::max<ssize_t>(n, 0);
    });
  }
  const double seconds = static_cast<double>(MonotonicNanoseconds() - start) * 1e-9;
  close(fd);
  if (error != 0) return ErrnoStatus(error, absl::StrCat(path, ": measuring the disk"));
  return static_cast<double>(read) / seconds;
}

}  // namespace quire
