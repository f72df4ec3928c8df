#include "runtime/footprint/cgroup.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "format/kernel_text.h"

namespace quire {
namespace {

struct Mount {
  std::string root, point;  // of the hierarchy; where that root is seen
  int version = 0;
};

bool HasWord(absl::string_view list, absl::string_view word) {
  for (absl::string_view w : absl::StrSplit(list, ',')) {
    if (w == word) return true;
  }
  return false;
}

// A line of mountinfo: "31 23 0:28 ROOT POINT OPTIONS [tags...] - TYPE SOURCE SUPER_OPTIONS".
bool ParseMount(absl::string_view line, Mount* mount) {
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(line, absl::MaxSplits(" - ", 1));
  const std::vector<absl::string_view> left = absl::StrSplit(halves.first, ' ');
  const std::vector<absl::string_view> right = absl::StrSplit(halves.second, ' ');
  if (left.size() < 6 || right.size() < 3) return false;
  if (right[0] == "cgroup2") {
    mount->version = 2;
  } else if (right[0] == "cgroup" && HasWord(right[2], "memory")) {
    mount->version = 1;
  } else {
    return false;
  }
  mount->root = std::string(left[3]);
  mount->point = std::string(left[4]);
  return true;
}

// The cgroup's path where `mount` shows it; false where the mount begins elsewhere.
bool PathUnder(const Mount& mount, absl::string_view cgroup, std::string* path) {
  const std::string root = mount.root == "/" ? "" : mount.root;
  if (cgroup != root && !absl::StartsWith(cgroup, absl::StrCat(root, "/"))) return false;
  absl::string_view rest = cgroup.substr(root.size());
  if (rest == "/") rest = "";
  *path = absl::StrCat(mount.point, rest);
  return true;
}

absl::StatusOr<CgroupFolder> CgroupOfProcess(const std::string& proc, const ReadText& read) {
  const absl::StatusOr<std::string> cgroups = read(absl::StrCat(proc, "/cgroup"));
  if (!cgroups.ok()) return cgroups.status();
  const absl::StatusOr<std::string> mounts = read(absl::StrCat(proc, "/mountinfo"));
  if (!mounts.ok()) return mounts.status();
  return FindMemoryCgroup(*cgroups, *mounts);
}

// The counters of one cgroup; `limit` is left alone.
absl::StatusOr<CgroupMemory> ReadCounters(int version, const std::string& path,
                                          const ReadText& read) {
  CgroupMemory memory;
  memory.version = version;
  memory.path = path;
  const absl::StatusOr<std::string> stat = read(absl::StrCat(path, "/memory.stat"));
  if (!stat.ok()) return stat.status();
  ParseCgroupStat(version, *stat, &memory);
  const absl::StatusOr<std::string> usage =
      read(absl::StrCat(path, version == 1 ? "/memory.usage_in_bytes" : "/memory.current"));
  // The root of version 2 has statistics, but no usage: it is the whole machine.
  if (!usage.ok()) return usage.status();
  if (!absl::SimpleAtoi(*usage, &memory.usage)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the usage is no number"));
  }
  return memory;
}

// The limit of one cgroup: of version 2 also the one from which on it is slowed down.
absl::StatusOr<int64_t> ReadLimit(int version, const std::string& path, const ReadText& read) {
  int64_t smallest = kNoLimit;
  const std::vector<const char*> names =
      version == 1 ? std::vector<const char*>{"/memory.limit_in_bytes"}
                   : std::vector<const char*>{"/memory.max", "/memory.high"};
  for (const char* name : names) {
    const absl::StatusOr<std::string> text = read(absl::StrCat(path, name));
    if (!text.ok()) continue;  // a root has none
    const absl::StatusOr<int64_t> limit = ParseCgroupLimit(*text);
    if (!limit.ok()) return limit.status();
    smallest = std::min(smallest, *limit);
  }
  return smallest;
}

}  // namespace

absl::StatusOr<int64_t> ParseCgroupLimit(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (text == "max") return kNoLimit;
  uint64_t limit;
  if (!absl::SimpleAtoi(text, &limit)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a memory limit of \"", text.substr(0, 40), "\", wanted a number or max"));
  }
  // Version 1 writes "none" as the largest whole number of pages.
  return limit >= uint64_t{1} << 60 ? kNoLimit : static_cast<int64_t>(limit);
}

void ParseCgroupStat(int version, absl::string_view text, CgroupMemory* memory) {
  if (version == 1) {
    ParseKernelFields(text, {{"total_rss", &memory->anonymous},
                             {"total_cache", &memory->file},
                             {"total_inactive_file", &memory->inactive_file},
                             {"total_active_file", &memory->active_file},
                             {"total_mapped_file", &memory->mapped_file}});
  } else {
    ParseKernelFields(text, {{"anon", &memory->anonymous},
                             {"file", &memory->file},
                             {"inactive_file", &memory->inactive_file},
                             {"active_file", &memory->active_file},
                             {"file_mapped", &memory->mapped_file}});
  }
}

absl::StatusOr<CgroupFolder> FindMemoryCgroup(absl::string_view cgroup_text,
                                              absl::string_view mountinfo_text) {
  // "9:memory,cpu:/a/b" of version 1, "0::/a/b" of version 2. Where both are mounted, version 1 has
  // the memory controller if it is listed there.
  int version = 0;
  std::string cgroup;
  for (absl::string_view line : absl::StrSplit(cgroup_text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const bool v1 = HasWord(fields[1], "memory");
    if (v1 || (version == 0 && fields[0] == "0" && fields[1].empty())) {
      version = v1 ? 1 : 2;
      cgroup = std::string(fields[2]);
    }
    if (v1) break;
  }
  if (version == 0) return absl::NotFoundError("this process is in no memory cgroup");
  for (absl::string_view line : absl::StrSplit(mountinfo_text, '\n', absl::SkipEmpty())) {
    Mount mount;
    CgroupFolder folder;
    if (ParseMount(line, &mount) && mount.version == version &&
        PathUnder(mount, cgroup, &folder.path)) {
      folder.version = version;
      folder.mount_point = mount.point;
      return folder;
    }
  }
  return absl::NotFoundError(absl::StrCat("no mount shows the memory cgroup ", cgroup));
}

absl::StatusOr<CgroupMemory> ReadCgroupMemory(const std::string& proc, const ReadText& read) {
  const absl::StatusOr<CgroupFolder> folder = CgroupOfProcess(proc, read);
  if (!folder.ok()) return folder.status();
  absl::StatusOr<CgroupMemory> memory = ReadCounters(folder->version, folder->path, read);
  if (!memory.ok()) return memory.status();
  // A limit holds for all below it.
  for (std::string at = folder->path;; at.resize(at.rfind('/'))) {
    const absl::StatusOr<int64_t> limit = ReadLimit(folder->version, at, read);
    if (!limit.ok()) return limit.status();
    memory->limit = std::min(memory->limit, *limit);
    if (at.size() <= folder->mount_point.size()) break;
  }
  return memory;
}

std::vector<CgroupMemory> ReadLimitedCgroups(const std::string& proc, const ReadText& read) {
  std::vector<CgroupMemory> limited;
  const absl::StatusOr<CgroupFolder> folder = CgroupOfProcess(proc, read);
  if (!folder.ok()) return limited;
  for (std::string at = folder->path;; at.resize(at.rfind('/'))) {
    const int64_t limit = ReadLimit(folder->version, at, read).value_or(kNoLimit);
    if (limit != kNoLimit) {
      absl::StatusOr<CgroupMemory> memory = ReadCounters(folder->version, at, read);
      if (memory.ok()) {
        memory->limit = limit;
        limited.push_back(*std::move(memory));
      }
    }
    if (at.size() <= folder->mount_point.size()) break;
  }
  return limited;
}

}  // namespace quire
