#include "runtime/memory_limit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/kernel_text.h"
#include "runtime/footprint/cgroup.h"

namespace quire {
namespace {

absl::Status Refused(const std::string& what, int error) {
  return absl::FailedPreconditionError(
      absl::StrCat("--memory-limit: ", what, ": ", std::strerror(error),
                   "; it takes the right to make memory cgroups (root, or: systemd-run --user "
                   "--scope -p MemoryMax=SIZE quire bench ... without --memory-limit)"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryLimit>> MemoryLimit::Create(int64_t bytes) {
  const absl::StatusOr<std::string> cgroup = ReadKernelText("/proc/self/cgroup");
  if (!cgroup.ok()) return cgroup.status();
  const absl::StatusOr<std::string> mounts = ReadKernelText("/proc/self/mountinfo");
  if (!mounts.ok()) return mounts.status();
  const absl::StatusOr<CgroupFolder> own = FindMemoryCgroup(*cgroup, *mounts);
  if (!own.ok()) return own.status();

  const std::string folder = absl::StrCat(own->path, "/quire-bench-", getpid());
  if (mkdir(folder.c_str(), 0755) != 0) return Refused(absl::StrCat("making ", folder), errno);
  std::unique_ptr<MemoryLimit> self(new MemoryLimit(folder));
  const std::string limit =
      absl::StrCat(folder, own->version == 2 ? "/memory.max" : "/memory.limit_in_bytes");
  const std::string text = absl::StrCat(bytes);
  const int fd = open(limit.c_str(), O_WRONLY | O_CLOEXEC);
  const bool written =
      fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!written) return Refused(absl::StrCat("writing ", text, " to ", limit), error);
  return self;
}

MemoryLimit::~MemoryLimit() { rmdir(folder_.c_str()); }

}  // namespace quire
