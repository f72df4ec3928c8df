// The memory limits and counters of the cgroup a process is in, version 1 or 2.
#ifndef QUIRE_RUNTIME_FOOTPRINT_CGROUP_H_
#define QUIRE_RUNTIME_FOOTPRINT_CGROUP_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

inline constexpr int64_t kNoLimit = INT64_MAX;

// Bytes.
struct CgroupMemory {
  int version = 0;           // 1 or 2
  std::string path;          // the folder under /sys/fs/cgroup
  int64_t limit = kNoLimit;  // the smallest of this cgroup and those above it
  int64_t usage = 0;         // anonymous memory, page cache and kernel memory charged to it
  int64_t anonymous = 0;
  int64_t file = 0;           // page cache that processes of this cgroup were first to read
  int64_t inactive_file = 0;  // of that, what is reclaimed first: `docker stats` leaves it out
  int64_t active_file = 0;
  int64_t mapped_file = 0;  // of `file`, what some process maps
};

// memory.max or memory.limit_in_bytes: a number of bytes, "max", or a number so large that it means
// none. InvalidArgument for anything else.
absl::StatusOr<int64_t> ParseCgroupLimit(absl::string_view text);
// memory.stat of either version.
void ParseCgroupStat(int version, absl::string_view text, CgroupMemory* memory);

// The folder of the memory controller, from /proc/PID/cgroup and /proc/PID/mountinfo, and its
// version. NotFound where no memory controller is mounted, or its mount does not reach this cgroup.
struct CgroupFolder {
  int version = 0;
  std::string mount_point;  // "/sys/fs/cgroup/memory"
  std::string path;         // "/sys/fs/cgroup/memory/a/b": under mount_point, or it
};
absl::StatusOr<CgroupFolder> FindMemoryCgroup(absl::string_view cgroup_text,
                                              absl::string_view mountinfo_text);

// Reads a file, or says why not: ReadKernelText, or a test's stand-in.
using ReadText = std::function<absl::StatusOr<std::string>(const std::string& path)>;

// Of the process whose folder is `proc` ("/proc/self"). NotFound where it is in no memory cgroup
// with counters: the root of version 2 has none.
absl::StatusOr<CgroupMemory> ReadCgroupMemory(const std::string& proc, const ReadText& read);

// Each cgroup from that of `proc` upwards that has a limit of its own (`limit`), with its own
// counters: what is used in a group above counts there as well. Empty where nothing is limited.
std::vector<CgroupMemory> ReadLimitedCgroups(const std::string& proc, const ReadText& read);

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_CGROUP_H_
