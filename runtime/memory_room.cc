#include "runtime/memory_room.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"

namespace quire {

int64_t RoomInCgroup(const CgroupMemory& cgroup, int64_t cached) {
  const int64_t file = cgroup.inactive_file + cgroup.active_file;
  const int64_t mapped_by_others = std::max<int64_t>(0, cgroup.mapped_file - cached);
  const int64_t charged_elsewhere = std::max<int64_t>(0, cached - file);
  return cgroup.limit - cgroup.usage + std::max<int64_t>(0, file - mapped_by_others) +
         charged_elsewhere;
}

int64_t RoomInMachine(const MemInfo& machine, int64_t cached) {
  return machine.available - std::max<int64_t>(0, machine.mapped - cached);
}

MemoryRoom FindMemoryRoom(const std::string& proc, const ReadText& read, int64_t cached) {
  MemoryRoom room{kNoLimit, ""};
  const auto bound = [&](int64_t bytes, const std::string& limit) {
    if (bytes < room.bytes) room = {std::max<int64_t>(0, bytes), limit};
  };
  for (const CgroupMemory& cgroup : ReadLimitedCgroups(proc, read)) {
    bound(RoomInCgroup(cgroup, cached),
          absl::StrCat("the limit of ", HumanBytes(cgroup.limit), " of the cgroup ", cgroup.path));
  }
  if (const absl::StatusOr<std::string> text = read("/proc/meminfo"); text.ok()) {
    const MemInfo machine = ParseMemInfo(*text);
    if (machine.available > 0) {
      bound(RoomInMachine(machine, cached),
            absl::StrCat("the machine's ", HumanBytes(machine.total)));
    }
  }
  if (room.bytes == kNoLimit) return room;
  const int64_t batches = (int64_t{256} << 10) * std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
  const int64_t margin = room.bytes / 256 + batches + (int64_t{2} << 20);
  room.bytes = std::max<int64_t>(0, room.bytes - margin);
  return room;
}

}  // namespace quire
