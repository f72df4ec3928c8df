#include "runtime/footprint/cgroup.h"

#include <gtest/gtest.h>

#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quire {
namespace {

// A machine's files.
class Files {
 public:
  explicit Files(std::map<std::string, std::string> files) : files_(std::move(files)) {}
  absl::StatusOr<std::string> operator()(const std::string& path) const {
    const auto it = files_.find(path);
    if (it == files_.end()) return absl::NotFoundError(path);
    return it->second;
  }

 private:
  std::map<std::string, std::string> files_;
};

constexpr char kV1Cgroup[] =
    "9:name=systemd:/\n8:pids:/\n4:memory:/docker/b7337b9d\n2:cpuacct,cpu:/\n0::/\n";
// Inside a container: the mount shows the container's cgroup as its root.
constexpr char kV1Container[] =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "34 31 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "35 31 0:32 /docker/b7337b9d /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup "
    "rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
constexpr char kV1Host[] =
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
constexpr char kV2Mounts[] =
    "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

constexpr char kV1Stat[] =
    "cache 100\nrss 200\ninactive_file 10\nactive_file 20\nhierarchical_memory_limit "
    "9223372036854771712\ntotal_cache 1757184\ntotal_rss 1765376\ntotal_rss_huge 0\n"
    "total_inactive_file 1163264\ntotal_active_file 593920\n";
constexpr char kV2Stat[] =
    "anon 46137344\nfile 3850371072\nkernel 9437184\nkernel_stack 65536\npagetables 8212480\n"
    "file_mapped 3850108928\nfile_dirty 0\ninactive_anon 46133248\nactive_anon 4096\n"
    "inactive_file 3001024512\nactive_file 849346560\nworkingset_refault_file 12\n";

TEST(ParseCgroupLimit, NumbersMaxAndNone) {
  EXPECT_EQ(*ParseCgroupLimit("2684354560\n"), 2684354560);
  EXPECT_EQ(*ParseCgroupLimit("max\n"), kNoLimit);
  EXPECT_EQ(*ParseCgroupLimit("9223372036854771712\n"), kNoLimit);
  EXPECT_EQ(*ParseCgroupLimit("18446744073709551615\n"), kNoLimit);
  for (const char* bad : {"", "-1\n", "12 kB\n", "maximum"}) {
    EXPECT_EQ(ParseCgroupLimit(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(FindMemoryCgroup, Version1) {
  const absl::StatusOr<CgroupFolder> inside = FindMemoryCgroup(kV1Cgroup, kV1Container);
  ASSERT_TRUE(inside.ok()) << inside.status();
  EXPECT_EQ(inside->version, 1);
  EXPECT_EQ(inside->path, "/sys/fs/cgroup/memory");
  const absl::StatusOr<CgroupFolder> outside = FindMemoryCgroup(kV1Cgroup, kV1Host);
  ASSERT_TRUE(outside.ok()) << outside.status();
  EXPECT_EQ(outside->path, "/sys/fs/cgroup/memory/docker/b7337b9d");
}

TEST(FindMemoryCgroup, Version2) {
  const absl::StatusOr<CgroupFolder> folder =
      FindMemoryCgroup("0::/user.slice/run-7.scope\n", kV2Mounts);
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(folder->version, 2);
  EXPECT_EQ(folder->path, "/sys/fs/cgroup/user.slice/run-7.scope");
  EXPECT_EQ(FindMemoryCgroup("0::/\n", kV2Mounts)->path, "/sys/fs/cgroup");
}

TEST(FindMemoryCgroup, NotFound) {
  EXPECT_EQ(FindMemoryCgroup("", kV2Mounts).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FindMemoryCgroup("0::/a\n", "").status().code(), absl::StatusCode::kNotFound);
  // The mount begins in another cgroup, whose name merely begins alike.
  EXPECT_EQ(FindMemoryCgroup("4:memory:/docker/b7337b9d-2\n", kV1Container).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ReadCgroupMemory, Version1) {
  const std::string folder = "/sys/fs/cgroup/memory/docker/b7337b9d";
  const Files files({{"/proc/7/cgroup", kV1Cgroup},
                     {"/proc/7/mountinfo", kV1Host},
                     {folder + "/memory.stat", kV1Stat},
                     {folder + "/memory.usage_in_bytes", "5160960\n"},
                     {folder + "/memory.limit_in_bytes", "9223372036854771712\n"},
                     {"/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "2684354560\n"},
                     {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"}});
  const absl::StatusOr<CgroupMemory> m = ReadCgroupMemory("/proc/7", files);
  ASSERT_TRUE(m.ok()) << m.status();
  EXPECT_EQ(m->version, 1);
  EXPECT_EQ(m->limit, 2684354560);  // the folder above binds
  EXPECT_EQ(m->usage, 5160960);
  EXPECT_EQ(m->anonymous, 1765376);
  EXPECT_EQ(m->file, 1757184);
  EXPECT_EQ(m->inactive_file, 1163264);
  EXPECT_EQ(m->active_file, 593920);
}

TEST(ReadCgroupMemory, Version2) {
  const std::string top = "/sys/fs/cgroup", folder = top + "/user.slice/run-7.scope";
  std::map<std::string, std::string> files = {{"/proc/7/cgroup", "0::/user.slice/run-7.scope\n"},
                                              {"/proc/7/mountinfo", kV2Mounts},
                                              {folder + "/memory.stat", kV2Stat},
                                              {folder + "/memory.current", "3905945600\n"},
                                              {folder + "/memory.max", "4294967296\n"},
                                              {top + "/user.slice/memory.max", "max\n"}};
  const absl::StatusOr<CgroupMemory> m = ReadCgroupMemory("/proc/7", Files(files));
  ASSERT_TRUE(m.ok()) << m.status();
  EXPECT_EQ(m->version, 2);
  EXPECT_EQ(m->limit, 4294967296);
  EXPECT_EQ(m->usage, 3905945600);
  EXPECT_EQ(m->anonymous, 46137344);
  EXPECT_EQ(m->file, 3850371072);
  EXPECT_EQ(m->inactive_file, 3001024512);
  EXPECT_EQ(m->active_file, 849346560);

  files[folder + "/memory.max"] = "lots\n";
  EXPECT_EQ(ReadCgroupMemory("/proc/7", Files(files)).status().code(),
            absl::StatusCode::kInvalidArgument);
  files.erase(folder + "/memory.current");  // as in the root cgroup
  EXPECT_EQ(ReadCgroupMemory("/proc/7", Files(files)).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire
