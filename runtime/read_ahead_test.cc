#include "runtime/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "format/model_file.h"
#include "runtime/footprint/residency.h"

namespace quire {
namespace {

constexpr int64_t kBytes = 24 << 20, kPage = 16384;

// A file that the page cache holds nothing of, if the file system can do that.
std::string WriteCold() {
  const std::string path = testing::TempDir() + "/read_ahead";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  const std::vector<uint8_t> bytes(kBytes, 7);
  EXPECT_EQ(write(fd, bytes.data(), kBytes), kBytes);
  EXPECT_EQ(fsync(fd), 0);
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  close(fd);
  return path;
}

// Whether this kernel populates page tables on request (Linux 5.14).
bool Populates() {
  void* page = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool can = madvise(page, kPage, MADV_POPULATE_READ) == 0;
  munmap(page, kPage);
  return can;
}

TEST(ReadAhead, StretchesAreThereWhenWaitedFor) {
  if (!Populates()) GTEST_SKIP() << "MADV_POPULATE_READ is refused";
  const MappedFile file = *MappedFile::Map(WriteCold());
  // Neither in the order of the file, nor on the boundaries of pieces; one is empty.
  const std::vector<std::pair<int64_t, int64_t>> ranges = {
      {13 << 20, 9 << 20}, {kPage, 3 << 20}, {5 << 20, 0}, {6 << 20, 100}};
  std::vector<ReadAhead::Stretch> stretches;
  for (const auto& [offset, bytes] : ranges) {
    stretches.emplace_back(file.data() + offset, static_cast<size_t>(bytes));
  }
  ReadAhead read_ahead(stretches);
  for (size_t i = 0; i < ranges.size(); ++i) {
    read_ahead.WaitFor(static_cast<int64_t>(i));
    const auto [offset, bytes] = ranges[i];
    EXPECT_EQ(Residency::Read(file)->BytesIn(offset, offset + bytes), bytes) << i;
  }
  read_ahead.WaitFor(0);  // again: returns at once
}

TEST(ReadAhead, EndsBeforeItIsWaitedFor) {
  const MappedFile file = *MappedFile::Map(WriteCold());
  for (int i = 0; i < 20; ++i) ReadAhead({{file.data(), static_cast<size_t>(file.size())}});
}

// Whoever reads what is missing meets it then; here nothing is raised, and nobody waits for ever.
TEST(ReadAhead, AFileCutMeanwhileIsLeftToItsReader) {
  const std::string path = WriteCold();
  const MappedFile file = *MappedFile::Map(path);
  ASSERT_EQ(truncate(path.c_str(), 1 << 20), 0);
  ReadAhead read_ahead({{file.data(), static_cast<size_t>(file.size())}});
  read_ahead.WaitFor(0);
}

}  // namespace
}  // namespace quire
