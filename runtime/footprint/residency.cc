#include "runtime/footprint/residency.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace quire {

absl::StatusOr<Residency> Residency::Read(const MappedFile& file) {
  const std::string& path = file.file().path();
  struct stat st;
  if (fstat(file.file().fd(), &st) != 0) return ErrnoStatus(errno, absl::StrCat(path, ": fstat"));
  const bool told_the_truth =
      geteuid() == 0 || st.st_uid == geteuid() ||
      faccessat(AT_FDCWD, absl::StrCat("/proc/self/fd/", file.file().fd()).c_str(), W_OK,
                AT_EACCESS) == 0;
  if (!told_the_truth) {
    return absl::FailedPreconditionError(absl::StrCat(
        path,
        ": the kernel tells what the page cache holds only to those who own the file or may "
        "write it"));
  }
  Residency r;
  r.file_bytes_ = file.size();
  r.page_bytes_ = sysconf(_SC_PAGESIZE);
  r.pages_.resize((r.file_bytes_ + r.page_bytes_ - 1) / r.page_bytes_);
  if (mincore(const_cast<uint8_t*>(file.data()), file.size(), r.pages_.data()) != 0)
    return ErrnoStatus(errno, absl::StrCat(path, ": mincore"));
  return r;
}

int64_t Residency::BytesIn(int64_t begin, int64_t end) const {
  int64_t bytes = 0;
  for (int64_t page = begin / page_bytes_; page * page_bytes_ < end; ++page) {
    if ((pages_[page] & 1) == 0) continue;
    bytes += std::min(end, (page + 1) * page_bytes_) - std::max(begin, page * page_bytes_);
  }
  return bytes;
}

}  // namespace quire
