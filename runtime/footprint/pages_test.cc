// Residency and TouchMeter on real mappings.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "runtime/footprint/residency.h"
#include "runtime/footprint/touch_meter.h"

namespace quire {
namespace {

constexpr int64_t kPage = 4096, kPart = int64_t{4} << 20;

// A file of 4 parts and some bytes more.
absl::StatusOr<MappedFile> TestFile(const std::string& name) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary | std::ios::trunc) << std::string(4 * kPart + 5000, 'p');
  return MappedFile::Map(path);
}

void Read(const MappedFile& file, int64_t begin, int64_t end) {
  volatile uint8_t sink = 0;
  for (int64_t i = begin; i < end; i += kPage) sink = sink + file.data()[i];
}

class Pages : public testing::Test {
 protected:
  void SetUp() override {
    if (sysconf(_SC_PAGESIZE) != kPage) GTEST_SKIP() << "counts pages of 4 KiB";
  }
};

TEST_F(Pages, ResidencyFollowsThePageCache) {
  const absl::StatusOr<MappedFile> file = TestFile("residency");
  ASSERT_TRUE(file.ok()) << file.status();
  absl::StatusOr<Residency> r = Residency::Read(*file);
  ASSERT_TRUE(r.ok()) << r.status();
  EXPECT_EQ(r->bytes(), file->size());  // just written
  EXPECT_EQ(r->BytesIn(100, 4196), 4096);
  EXPECT_EQ(r->BytesIn(7, 7), 0);

  fsync(file->file().fd());
  posix_fadvise(file->file().fd(), 0, 0, POSIX_FADV_DONTNEED);
  r = Residency::Read(*file);
  if (r->bytes() == file->size()) GTEST_SKIP() << "this file system cannot drop its page cache";
  EXPECT_EQ(r->bytes(), 0);

  madvise(const_cast<uint8_t*>(file->data()), file->size(), MADV_RANDOM);  // no readahead
  madvise(const_cast<uint8_t*>(file->data()), file->size(), MADV_NOHUGEPAGE);
  Read(*file, kPart, kPart + 3 * kPage);
  r = Residency::Read(*file);
  EXPECT_EQ(r->bytes(), 3 * kPage);
  EXPECT_EQ(r->BytesIn(0, kPart), 0);
  EXPECT_EQ(r->BytesIn(kPart, 2 * kPart), 3 * kPage);
  EXPECT_EQ(r->BytesIn(kPart + kPage + 10, kPart + 2 * kPage + 1), kPage - 9);
}

TEST_F(Pages, TouchMeterCountsWhatIsReadAndNothingElse) {
  const absl::StatusOr<MappedFile> file = TestFile("touch");
  ASSERT_TRUE(file.ok()) << file.status();
  Read(*file, 0, file->size());  // all of it has been read before
  absl::StatusOr<TouchMeter> meter =
      TouchMeter::Create(*file, {kPart, 2 * kPart, 3 * kPart, 4 * kPart});
  ASSERT_TRUE(meter.ok()) << meter.status();
  const auto work = [&] {
    Read(*file, kPart, 2 * kPart);                                  // all of the first part
    Read(*file, 2 * kPart + 5 * kPage, 2 * kPart + 6 * kPage);      // a page of the second
    Read(*file, 2 * kPart + 300 * kPage, 2 * kPart + 302 * kPage);  // and two
    Read(*file, 4 * kPart, file->size());
  };
  work();
  for (int repetition = 0; repetition < 2; ++repetition) {
    ASSERT_TRUE(meter->Begin().ok());
    work();
    const absl::StatusOr<std::vector<MappingCounts>> parts = meter->Read();
    ASSERT_TRUE(parts.ok()) << parts.status();
    ASSERT_EQ(parts->size(), 4u);
    EXPECT_EQ((*parts)[0].referenced, kPart);
    EXPECT_EQ((*parts)[1].referenced, 3 * kPage);
    EXPECT_GE((*parts)[1].rss, (*parts)[1].referenced);  // with what faults mapped around them
    EXPECT_EQ((*parts)[2].referenced, 0);
    EXPECT_EQ((*parts)[3].referenced, 2 * kPage);
    EXPECT_EQ((*parts)[3].anonymous, 0);
  }
}

TEST_F(Pages, TouchMeterWantsPartsOnPages) {
  const absl::StatusOr<MappedFile> file = TestFile("unaligned");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(TouchMeter::Create(*file, {0, 100}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace quire
