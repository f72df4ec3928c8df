#include "runtime/footprint/touch_meter.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/kernel_text.h"

namespace quire {
namespace {

absl::Status ClearReferences() {
  const int fd = TEMP_FAILURE_RETRY(open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC));
  if (fd < 0) return ErrnoStatus(errno, "opening /proc/self/clear_refs");
  const ssize_t written = write(fd, "1", 1);
  const int error = errno;
  close(fd);
  if (written != 1) return ErrnoStatus(error, "writing /proc/self/clear_refs");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TouchMeter> TouchMeter::Create(const MappedFile& file, std::vector<int64_t> starts) {
  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  for (int64_t start : starts) {
    if (start % page_bytes != 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "a part begins at byte ", start, ", within a page of ", page_bytes, " bytes"));
    }
  }
  if (absl::Status status = ClearReferences(); !status.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(status.message(), ": this kernel does not tell which pages are read"));
  }
  uint8_t* data = const_cast<uint8_t*>(file.data());
  // Small pages from here on, or one read would count as 2 MiB. Refused by kernels without them.
  madvise(data, file.size(), MADV_NOHUGEPAGE);
  madvise(data, file.size(), MADV_DONTNEED);
  for (size_t i = 0; i < starts.size(); i += 2) {
    const int64_t end = i + 1 < starts.size() ? starts[i + 1] : file.size();
    if (madvise(data + starts[i], end - starts[i], MADV_DONTDUMP) != 0)
      return ErrnoStatus(errno, absl::StrCat("cutting the mapping at ", starts[i]));
  }
  return TouchMeter(file, std::move(starts));
}

absl::Status TouchMeter::Begin() {
  if (absl::Status status = ClearReferences(); !status.ok()) return status;
  // The processor keeps translations it has used, and does not mark their pages again: taking the
  // rights away and giving them back makes it forget them.
  void* data = const_cast<uint8_t*>(file_->data());
  if (mprotect(data, file_->size(), PROT_NONE) != 0 ||
      mprotect(data, file_->size(), PROT_READ) != 0) {
    return ErrnoStatus(errno, "mprotect of the model's mapping");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<MappingCounts>> TouchMeter::Read() const {
  const absl::StatusOr<std::string> text = ReadKernelText("/proc/self/smaps");
  if (!text.ok()) return text.status();
  std::vector<MappingCounts> parts(starts_.size());
  const uint64_t base = reinterpret_cast<uint64_t>(file_->data());
  int64_t covered = 0;
  for (const SmapsEntry& entry : ParseSmaps(*text)) {
    if (entry.begin < base || entry.begin >= base + file_->size()) continue;
    const auto after =
        std::upper_bound(starts_.begin(), starts_.end(), static_cast<int64_t>(entry.begin - base));
    if (after == starts_.begin()) continue;  // before the first part
    const size_t part = after - starts_.begin() - 1;
    if (entry.begin != base + starts_[part])
      return absl::InternalError("smaps: the mapping is cut where no part begins");
    parts[part] = entry.counts;
    covered += static_cast<int64_t>(entry.end - entry.begin);
  }
  if (covered < file_->size() - (starts_.empty() ? 0 : starts_[0])) {
    return absl::FailedPreconditionError("smaps does not show every part of the mapping");
  }
  return parts;
}

}  // namespace quire
