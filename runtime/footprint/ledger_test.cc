#include "runtime/footprint/ledger.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "format/kernel_text.h"

namespace quire {
namespace {

constexpr int64_t kKiB = 1024;

// Two parts of one model's mapping, a program, a heap with a KV cache and scratch in it.
constexpr char kSmaps[] =
    "560263f69000-560263f6e000 r-xp 00002000 fe:00 260131                     /usr/bin/quire\n"
    "Rss:                 400 kB\nPss:                 100 kB\nShared_Clean:         400 kB\n"
    "56027d6e4000-56027d705000 rw-p 00000000 00:00 0                          [heap]\n"
    "Rss:                1000 kB\nPss:                1000 kB\nPrivate_Dirty:       1000 kB\n"
    "Anonymous:           1000 kB\n"
    "7f1c00000000-7f1c00100000 r--s 00000000 fe:00 18                         /m.quire\n"
    "Rss:                1024 kB\nPss:                 512 kB\nShared_Clean:        1024 kB\n"
    "7f1c00100000-7f1c00200000 r--s 00100000 fe:00 18                         /m.quire\n"
    "Rss:                 600 kB\nPss:                 300 kB\nShared_Clean:         600 kB\n"
    "7f1c00200000-7f1c00300000 r--s 00000000 fe:00 19                         /other.quire\n"
    "Rss:                  64 kB\nPss:                  64 kB\nPrivate_Clean:         64 kB\n";

ProcessMemory Status() {
  ProcessMemory status;
  status.page_tables = 96 * kKiB;
  status.address_space = 9000 * kKiB;
  return status;
}

TEST(Reconcile, AddsUp) {
  const RuntimeMemory own{2000 * kKiB, 300 * kKiB, 800 * kKiB, 200 * kKiB, 150 * kKiB, 90 * kKiB};
  const Ledger l = Reconcile(ParseSmaps(kSmaps), Status(), 0x7f1c00000000, 0x200000, own);
  EXPECT_EQ(l.rss, 3088 * kKiB);
  EXPECT_EQ(l.anonymous, 1000 * kKiB);
  EXPECT_EQ(l.weights, 1624 * kKiB);
  EXPECT_EQ(l.other_files, 464 * kKiB);  // the program, and another mapped file
  EXPECT_EQ(l.rss, l.anonymous + l.weights + l.other_files);
  EXPECT_EQ(l.anonymous, l.kv_cache + l.scratch + l.stream + l.other_anonymous);
  EXPECT_EQ(l.stream, 90 * kKiB);
  EXPECT_EQ(l.other_anonymous, 410 * kKiB);
  EXPECT_EQ(l.pss, 1976 * kKiB);
  EXPECT_EQ(l.weights_pss, 812 * kKiB);
  EXPECT_EQ(l.weights_anonymous, 0);
  EXPECT_EQ(l.weights_private_dirty, 0);
  EXPECT_EQ(l.page_tables, 96 * kKiB);
}

TEST(Reconcile, ShowsWeightsThatWereCopiedOrWritten) {
  const std::string copied =
      std::string(kSmaps) +
      "7f1c00300000-7f1c00400000 rw-p 00000000 fe:00 18                         /m.quire\n"
      "Rss:                 128 kB\nPrivate_Dirty:         96 kB\nAnonymous:             96 kB\n";
  const Ledger l = Reconcile(ParseSmaps(copied), Status(), 0x7f1c00300000, 0x100000, {});
  EXPECT_EQ(l.weights_anonymous, 96 * kKiB);
  EXPECT_EQ(l.weights_private_dirty, 96 * kKiB);
  EXPECT_EQ(l.weights, 32 * kKiB);
  EXPECT_EQ(l.anonymous, 1096 * kKiB);
  EXPECT_EQ(l.rss, l.anonymous + l.weights + l.other_files);
}

TEST(ToolFigures, EachFollowsFromTheLedger) {
  const Ledger l = Reconcile(ParseSmaps(kSmaps), Status(), 0x7f1c00000000, 0x200000, {});
  MemInfo machine;
  machine.total = 10000;
  machine.available = 7000;
  machine.cached = 500;
  machine.buffers = 20;
  machine.reclaimable = 3;
  CgroupMemory cgroup;
  cgroup.usage = 4000;
  cgroup.inactive_file = 1500;
  const auto figure = [](const std::vector<ToolFigure>& figures, const std::string& column) {
    for (const ToolFigure& f : figures) {
      if (f.column == column) return f.bytes;
    }
    return int64_t{-1};
  };
  const std::vector<ToolFigure> with = ToolFigures(l, machine, cgroup);
  EXPECT_EQ(figure(with, "RES, RSS"), l.rss);
  EXPECT_EQ(figure(with, "SHR"), 2088 * kKiB);
  EXPECT_EQ(figure(with, "RES - SHR"), 1000 * kKiB);
  EXPECT_EQ(figure(with, "PSS"), l.pss);
  EXPECT_EQ(figure(with, "used"), 3000);
  EXPECT_EQ(figure(with, "buff/cache"), 523);
  EXPECT_EQ(figure(with, "MEM USAGE"), 2500);
  EXPECT_EQ(figure(with, "usage"), 4000);
  EXPECT_EQ(figure(ToolFigures(l, machine, std::nullopt), "MEM USAGE"), -1);
}

// The ledger of this process against the kernel's own sums.
TEST(ReadLedger, AgreesWithSmapsRollup) {
  const std::string path = testing::TempDir() + "/ledger_test_file";
  std::ofstream(path, std::ios::binary) << std::string(24 << 20, 'w');
  const absl::StatusOr<MappedFile> file = MappedFile::Map(path);
  ASSERT_TRUE(file.ok()) << file.status();
  fsync(file->file().fd());  // until then its pages are dirty, whoever maps them
  volatile uint8_t sink = 0;
  for (int64_t i = 0; i < file->size(); i += 4096) sink = sink + file->data()[i];

  // Once before it counts: the memory that reading itself takes (much of it under a sanitizer) is
  // there then.
  ASSERT_TRUE(ReadLedger(*file, {}).ok());
  const absl::StatusOr<Ledger> l = ReadLedger(*file, {});
  const MappingCounts rollup =
      ParseSmapsRollup(ReadKernelText("/proc/self/smaps_rollup").value_or(""));
  const ProcessMemory status = ReadProcessMemory();
  ASSERT_TRUE(l.ok()) << l.status();
  EXPECT_NEAR(l->rss, rollup.rss, 0.01 * rollup.rss);
  EXPECT_NEAR(l->pss, rollup.pss, 0.01 * rollup.pss);
  EXPECT_NEAR(l->anonymous, rollup.anonymous, 0.01 * rollup.rss);
  EXPECT_NEAR(l->rss, status.rss, 0.01 * status.rss);
  EXPECT_EQ(l->weights, file->size());
  EXPECT_EQ(l->weights_private_dirty, 0);
  EXPECT_EQ(l->weights_anonymous, 0);
}

}  // namespace
}  // namespace quire
