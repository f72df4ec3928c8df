#include "runtime/memory_room.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "absl/status/status.h"

namespace quire {
namespace {

constexpr int64_t kMB = 1000000;

// Recorded in a cgroup (version 1) of 2.5 GB in which a 7B model is streamed: 2.10 GB of its file
// are cached, 0.28 GB are anonymous.
CgroupMemory Streaming() {
  CgroupMemory cgroup;
  cgroup.limit = 2500 * kMB;
  cgroup.usage = 2391 * kMB;
  cgroup.active_file = 2090 * kMB;
  cgroup.inactive_file = 15 * kMB;
  cgroup.mapped_file = 2101 * kMB;
  return cgroup;
}

TEST(RoomInCgroup, WhatIsNotAnonymousMayBeTheFile) {
  // 2500 - (2391 - 2105) of other memory.
  EXPECT_EQ(RoomInCgroup(Streaming(), 2105 * kMB), 2214 * kMB);
}

TEST(RoomInCgroup, WhatOthersMapOfOtherFilesIsTheirs) {
  CgroupMemory cgroup = Streaming();
  cgroup.usage += 60 * kMB;
  cgroup.active_file += 60 * kMB;
  EXPECT_EQ(RoomInCgroup(cgroup, 2105 * kMB), 2214 * kMB);  // nobody maps it: a log, a download
  cgroup.mapped_file += 60 * kMB;
  EXPECT_EQ(RoomInCgroup(cgroup, 2105 * kMB), (2214 - 56) * kMB);
}

TEST(RoomInCgroup, WhatAnotherCgroupIsChargedForCostsNothing) {
  // All 3958 MB are cached, and none of it is on this account.
  CgroupMemory cgroup = Streaming();
  cgroup.active_file = cgroup.inactive_file = cgroup.mapped_file = 0;
  cgroup.usage = 30 * kMB;
  EXPECT_EQ(RoomInCgroup(cgroup, 3958 * kMB), (2500 - 30 + 3958) * kMB);
}

TEST(RoomInMachine, AvailableIsAllPageCacheButOthersMapSomeOfIt) {
  MemInfo machine;
  machine.available = 6000 * kMB;
  machine.mapped = 900 * kMB;
  EXPECT_EQ(RoomInMachine(machine, 0), 5100 * kMB);
  EXPECT_EQ(RoomInMachine(machine, 700 * kMB), 5800 * kMB);
  EXPECT_EQ(RoomInMachine(machine, 3958 * kMB), 6000 * kMB);
}

// The files of a process in /a/b, where both may have a limit.
MemoryRoom Find(std::map<std::string, std::string> files, int64_t cached) {
  files.insert({"/proc/7/cgroup", "0::/a/b\n"});
  files.insert({"/proc/7/mountinfo", "29 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n"});
  const ReadText read = [&](const std::string& path) -> absl::StatusOr<std::string> {
    const auto it = files.find(path);
    if (it == files.end()) return absl::NotFoundError(path);
    return it->second;
  };
  return FindMemoryRoom("/proc/7", read, cached);
}

constexpr char kMachine[] = "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\nMapped: 0 kB\n";
constexpr char kStat[] = "anon 1000000\nfile 5000000\ninactive_file 4000000\nactive_file 1000000\n";

TEST(FindMemoryRoom, TheSmallestBinds) {
  std::map<std::string, std::string> files = {{"/proc/meminfo", kMachine},
                                              {"/cg/a/b/memory.max", "4000000000\n"},
                                              {"/cg/a/b/memory.current", "6000000\n"},
                                              {"/cg/a/b/memory.stat", kStat}};
  const auto bytes = [&] { return Find(files, 5000000).bytes; };
  const auto limit = [&] { return Find(files, 5000000).limit; };
  // Less a margin of 1/256, 2 MiB, and 256 KiB a CPU.
  EXPECT_GT(bytes(), 3999 * kMB - 3999 * kMB / 256 - 300 * kMB);
  EXPECT_LT(bytes(), 3999 * kMB - 3999 * kMB / 256 - (2 << 20));
  EXPECT_EQ(limit(), "the limit of 4.00 GB of the cgroup /cg/a/b");

  // A neighbour fills up the group above.
  files["/cg/a/memory.max"] = "6000000000\n";
  files["/cg/a/memory.current"] = "5000000000\n";
  files["/cg/a/memory.stat"] = "anon 4900000000\ninactive_file 5000000\nactive_file 0\n";
  EXPECT_LT(bytes(), 1005 * kMB);
  EXPECT_EQ(limit(), "the limit of 6.00 GB of the cgroup /cg/a");

  files["/cg/a/b/memory.high"] = "900000000\n";  // where the kernel begins to slow it down
  EXPECT_LT(bytes(), 900 * kMB);
  EXPECT_EQ(limit(), "the limit of 900.0 MB of the cgroup /cg/a/b");

  files["/proc/meminfo"] = "MemTotal: 600000 kB\nMemAvailable: 500000 kB\nMapped: 0 kB\n";
  EXPECT_LT(bytes(), 512 * kMB);
  EXPECT_EQ(limit(), "the machine's 614.4 MB");

  files["/cg/a/b/memory.max"] = "1000000\n";  // less than is used: nothing, not less than nothing
  EXPECT_EQ(bytes(), 0);
}

TEST(FindMemoryRoom, WithoutLimitsAndWithoutFiles) {
  EXPECT_EQ(Find({{"/cg/a/b/memory.max", "max\n"}}, 0).bytes, kNoLimit);
  EXPECT_EQ(Find({{"/cg/a/b/memory.max", "max\n"}, {"/proc/meminfo", kMachine}}, 0).limit,
            "the machine's 8.19 GB");
  // A limit whose counters cannot be read says nothing.
  EXPECT_EQ(Find({{"/cg/a/b/memory.max", "1000\n"}}, 0).bytes, kNoLimit);
}

}  // namespace
}  // namespace quire
