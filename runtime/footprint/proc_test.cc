#include "runtime/footprint/proc.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "format/kernel_text.h"
#include "format/process_memory.h"

namespace quire {
namespace {

// Recorded on Linux 6.18, cut to the lines that differ in kind.
constexpr char kStatus[] =
    "Name:\tquire\nUmask:\t0022\nState:\tR (running)\nTgid:\t28892\nUid:\t1000\t1000\t1000\t1000\n"
    "Groups:\t \nVmPeak:\t 4036108 kB\nVmSize:\t 4036044 kB\nVmLck:\t       0 kB\nVmHWM:\t 3802060 "
    "kB\nVmRSS:\t 3801936 kB\nRssAnon:\t   42116 kB\nRssFile:\t 3759820 kB\nRssShmem:\t       0 "
    "kB\n"
    "VmData:\t  360 kB\nVmPTE:\t    7480 kB\nVmSwap:\t      12 kB\nHugetlbPages:\t       0 kB\n"
    "Threads:\t2\nSigQ:\t0/96365\n";

constexpr char kSmaps[] =
    "560263f69000-560263f6e000 r-xp 00002000 fe:00 260131                     /usr/bin/quire\n"
    "Size:                 20 kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n"
    "Rss:                  20 kB\nPss:                  10 kB\nPss_Dirty:             0 kB\n"
    "Shared_Clean:         20 kB\nShared_Dirty:          0 kB\nPrivate_Clean:         0 kB\n"
    "Private_Dirty:         0 kB\nReferenced:           20 kB\nAnonymous:             0 kB\n"
    "KSM:                   0 kB\nLazyFree:              0 kB\nAnonHugePages:         0 kB\n"
    "FilePmdMapped:         0 kB\nSwap:                  0 kB\nSwapPss:               0 kB\n"
    "THPeligible:           0\nVmFlags: rd ex mr mw me \n"
    "56027d6e4000-56027d705000 rw-p 00000000 00:00 0                          [heap]\n"
    "Size:                132 kB\nRss:                  40 kB\nPss:                  40 kB\n"
    "Private_Dirty:        40 kB\nReferenced:           40 kB\nAnonymous:            40 kB\n"
    "Swap:                  4 kB\nVmFlags: rd wr mr mw me ac \n"
    "7f1c00000000-7f1ce4a00000 r--s 00004000 fe:00 1835022                    /srv/a model.quire\n"
    "Size:            3745792 kB\nRss:             3745000 kB\nPss:             1872500 kB\n"
    "Shared_Clean:    3745000 kB\nReferenced:      3740000 kB\nFilePmdMapped:     2048 kB\n"
    "VmFlags: rd mr me ms \n"
    "7f1d00000000-7f1d00021000 rw-p 00000000 00:00 0 \n"
    "Size:                132 kB\nRss:                   8 kB\nPss:                   8 kB\n"
    "Private_Dirty:         8 kB\nAnonymous:             8 kB\nVmFlags: rd wr mr mw me ac nr \n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    "Size:                  4 kB\nRss:                   0 kB\nVmFlags: ex \n";

constexpr char kRollup[] =
    "55c3d6f52000-7fff9b443000 ---p 00000000 00:00 0                          [rollup]\n"
    "Rss:                1644 kB\nPss:                 245 kB\nPss_Dirty:           116 kB\n"
    "Pss_Anon:            116 kB\nPss_File:            129 kB\nPss_Shmem:             0 kB\n"
    "Shared_Clean:       1488 kB\nShared_Dirty:          0 kB\nPrivate_Clean:        40 kB\n"
    "Private_Dirty:       116 kB\nReferenced:         1640 kB\nAnonymous:           112 kB\n"
    "Swap:                  0 kB\nSwapPss:               0 kB\nLocked:                0 kB\n";

TEST(ParseProcStatus, Recorded) {
  const ProcessMemory m = ParseProcStatus(kStatus);
  EXPECT_EQ(m.rss, 3801936 * 1024LL);
  EXPECT_EQ(m.rss, m.rss_anon + m.rss_file + m.rss_shmem);
  EXPECT_EQ(m.rss_anon, 42116 * 1024LL);
  EXPECT_EQ(m.peak_rss, 3802060 * 1024LL);
  EXPECT_EQ(m.address_space, 4036044 * 1024LL);
  EXPECT_EQ(m.page_tables, 7480 * 1024LL);
  EXPECT_EQ(m.swap, 12 * 1024LL);
}

TEST(ParseSmaps, Recorded) {
  const std::vector<SmapsEntry> entries = ParseSmaps(kSmaps);
  ASSERT_EQ(entries.size(), 5u);
  EXPECT_EQ(entries[0].path, "/usr/bin/quire");
  EXPECT_EQ(entries[0].offset, 0x2000u);
  EXPECT_EQ(entries[0].counts.pss, 10 * 1024);
  EXPECT_EQ(entries[1].path, "[heap]");
  EXPECT_EQ(entries[1].counts.swap, 4 * 1024);
  const SmapsEntry& weights = entries[2];
  EXPECT_EQ(weights.begin, 0x7f1c00000000u);
  EXPECT_EQ(weights.end, 0x7f1ce4a00000u);
  EXPECT_EQ(weights.permissions, "r--s");
  EXPECT_EQ(weights.offset, 0x4000u);
  EXPECT_EQ(weights.device, "fe:00");
  EXPECT_EQ(weights.inode, 1835022u);
  EXPECT_EQ(weights.path, "/srv/a model.quire");  // spaces are the name's
  EXPECT_EQ(weights.counts.rss, 3745000 * 1024LL);
  EXPECT_EQ(weights.counts.shared_clean, 3745000 * 1024LL);
  EXPECT_EQ(weights.counts.referenced, 3740000 * 1024LL);
  EXPECT_EQ(weights.counts.huge_file_pages, 2048 * 1024);
  EXPECT_EQ(weights.counts.anonymous, 0);
  EXPECT_EQ(entries[3].path, "");
  EXPECT_EQ(entries[3].counts.anonymous, 8 * 1024);
  EXPECT_EQ(entries[4].end, 0xffffffffff601000u);
  const MappingCounts sum = Sum(entries);
  EXPECT_EQ(sum.rss, (20 + 40 + 3745000 + 8) * 1024LL);
  EXPECT_EQ(sum.private_dirty, 48 * 1024);
  EXPECT_EQ(sum.pss, (10 + 40 + 1872500 + 8) * 1024LL);
}

TEST(ParseSmaps, CutShortOrForeign) {
  EXPECT_TRUE(ParseSmaps("").empty());
  EXPECT_TRUE(ParseSmaps("Rss: 4 kB\nnonsense\n7f00-7f10 r--s\n").empty());
  const std::string text(kSmaps);
  for (size_t n = 0; n < text.size(); n += 7) {
    EXPECT_LE(Sum(ParseSmaps(text.substr(0, n))).rss, Sum(ParseSmaps(text)).rss);
  }
  // A number beyond int64 is as good as none.
  EXPECT_EQ(ParseSmapsRollup("Rss: 9223372036854775807 kB\n").rss, 0);
  EXPECT_EQ(ParseSmapsRollup("Rss: -4 kB\n").rss, 0);
}

TEST(ParseSmapsRollup, Recorded) {
  const MappingCounts c = ParseSmapsRollup(kRollup);
  EXPECT_EQ(c.rss, 1644 * 1024);
  EXPECT_EQ(c.pss, 245 * 1024);
  EXPECT_EQ(c.rss, c.shared_clean + c.shared_dirty + c.private_clean + c.private_dirty);
  EXPECT_EQ(c.referenced, 1640 * 1024);
  EXPECT_EQ(c.anonymous, 112 * 1024);
}

TEST(ParseProcIo, Recorded) {
  const ProcIo io = ParseProcIo(
      "rchar: 7674\nwchar: 698\nsyscr: 12\nsyscw: 1\nread_bytes: 8192\nwrite_bytes: 4096\n"
      "cancelled_write_bytes: 0\n");
  EXPECT_EQ(io.rchar, 7674);
  EXPECT_EQ(io.read_bytes, 8192);
  EXPECT_EQ(io.write_bytes, 4096);
}

TEST(ParseProcStat, Recorded) {
  const absl::StatusOr<ProcStat> stat = ParseProcStat(
      "28897 (a) b (c) R 28890 28890 26693 0 -1 4194304 103 5 7 6 31 12 0 0 20 0 1 0 258937 "
      "3133440 366 18446744073709551615 94299613380608 94299613400489 140735798318352 0 0 0 0 0\n");
  ASSERT_TRUE(stat.ok()) << stat.status();
  EXPECT_EQ(stat->pid, 28897);
  EXPECT_EQ(stat->command, "a) b (c");
  EXPECT_EQ(stat->state, 'R');
  EXPECT_EQ(stat->minor_faults, 103);
  EXPECT_EQ(stat->major_faults, 7);
  EXPECT_EQ(stat->user_ticks, 31);
  EXPECT_EQ(stat->system_ticks, 12);
  EXPECT_EQ(stat->start_ticks, 258937);
  EXPECT_EQ(stat->rss_pages, 366);
  for (const char* bad : {"", "1 (", "1 ) (", "1 (quire) R 1 2", "x (quire) R"}) {
    EXPECT_EQ(ParseProcStat(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(ParseMemInfo, Recorded) {
  const MemInfo m = ParseMemInfo(
      "MemTotal:       24684084 kB\nMemFree:        11116256 kB\nMemAvailable:   17108384 kB\n"
      "Buffers:            7276 kB\nCached:          6048700 kB\nSwapCached:            0 kB\n"
      "Active(anon):       1592 kB\nAnonPages:       6982784 kB\nMapped:           145432 kB\n"
      "SReclaimable:     285540 kB\nPageTables:        19640 kB\nHugePages_Total:       0\n");
  EXPECT_EQ(m.total, 24684084 * 1024LL);
  EXPECT_EQ(m.free, 11116256 * 1024LL);
  EXPECT_EQ(m.available, 17108384 * 1024LL);
  EXPECT_EQ(m.buffers, 7276 * 1024LL);
  EXPECT_EQ(m.cached, 6048700 * 1024LL);  // and not SwapCached
  EXPECT_EQ(m.anonymous, 6982784 * 1024LL);
  EXPECT_EQ(m.mapped, 145432 * 1024LL);
  EXPECT_EQ(m.reclaimable, 285540 * 1024LL);
  EXPECT_EQ(m.page_tables, 19640 * 1024LL);
}

TEST(ParsePressure, Recorded) {
  const absl::StatusOr<Pressure> p = ParsePressure(
      "some avg10=61.25 avg60=34.01 avg300=10.00 total=35140562\n"
      "full avg10=58.11 avg60=31.50 avg300=9.28 total=32001833\n");
  ASSERT_TRUE(p.ok());
  EXPECT_DOUBLE_EQ(p->some_avg10, 61.25);
  EXPECT_DOUBLE_EQ(p->some_avg60, 34.01);
  EXPECT_DOUBLE_EQ(p->full_avg10, 58.11);
  EXPECT_DOUBLE_EQ(p->full_avg60, 31.50);
  EXPECT_EQ(p->some_total_us, 35140562);
  EXPECT_EQ(p->full_total_us, 32001833);
  EXPECT_FALSE(ParsePressure("").ok());
}

// What the parsers make of this very process agrees with what it did.
TEST(Proc, ThisProcess) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer keeps several bytes for each of this process's";
#endif
  constexpr int64_t kBytes = 8 << 20;
  const auto anonymous = [] {
    return Sum(ParseSmaps(ReadKernelText("/proc/self/smaps").value_or(""))).anonymous;
  };
  const int64_t before = anonymous();
  void* p = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(p, MAP_FAILED);
  std::memset(p, 1, kBytes);
  EXPECT_NEAR(anonymous() - before, kBytes, 1 << 20);
  munmap(p, kBytes);
  const absl::StatusOr<ProcStat> stat =
      ParseProcStat(ReadKernelText("/proc/self/stat").value_or(""));
  ASSERT_TRUE(stat.ok()) << stat.status();
  EXPECT_EQ(stat->pid, getpid());
  EXPECT_GT(stat->minor_faults, kBytes / 65536 / 16);
  EXPECT_EQ(ReadKernelText("/proc/self/no_such_file").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire
