#include "runtime/weight_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "format/model_file.h"
#include "runtime/footprint/residency.h"

namespace quire {
namespace {

constexpr int64_t kPage = kStreamAlign;

std::string TestPath() {
  return testing::TempDir() + "/stream_" +
         testing::UnitTest::GetInstance()->current_test_info()->name();
}

// Every 8 bytes say where they are.
void WriteFile(int64_t bytes) {
  std::vector<uint64_t> words(bytes / 8);
  for (size_t i = 0; i < words.size(); ++i) words[i] = i * 0x9e3779b97f4a7c15;
  std::ofstream out(TestPath(), std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(words.data()), bytes);
  out.close();
  const int fd = open(TestPath().c_str(), O_RDONLY);
  fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

testing::AssertionResult Holds(const uint8_t* memory, int64_t offset, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 8) {
    uint64_t word;
    std::memcpy(&word, memory + at, 8);
    if (word != (offset + at) / 8 * 0x9e3779b97f4a7c15) {
      return testing::AssertionFailure() << "differs at byte " << offset + at;
    }
  }
  return testing::AssertionSuccess();
}

// Blocks with two parts, one, none, and one that ends with the file; parts larger and smaller than
// a read, and one that stays in place.
constexpr int64_t kFile = 900 * kPage, kSlot = 600 * kPage;
std::vector<StreamBlock> Blocks() {
  return {{{10 * kPage, 300 * kPage, 0}, {400 * kPage, 3 * kPage, 300 * kPage}},
          {{2 * kPage, kPage, 4 * kPage}, {700 * kPage, 20 * kPage, StreamPart::kInPlace}},
          {},
          {{kFile - 257 * kPage, 257 * kPage, 0}}};
}

TEST(WeightStream, RoundAfterRoundEachBlockIsWhatTheFileHolds) {
  WriteFile(kFile);
  const File file = *File::Open(TestPath());
  const std::vector<StreamBlock> blocks = Blocks();
  const auto stream = *WeightStream::Start(file, blocks, kSlot);
  for (int round = 0; round < 50; ++round) {
    for (const StreamBlock& block : blocks) {
      const absl::StatusOr<const uint8_t*> slot = stream->Acquire();
      ASSERT_TRUE(slot.ok()) << slot.status();
      EXPECT_EQ(*slot == nullptr, block.empty());
      for (const StreamPart& part : block) {
        if (part.slot_offset == StreamPart::kInPlace) continue;
        ASSERT_TRUE(Holds(*slot + part.slot_offset, part.offset, part.bytes)) << round;
      }
      // Whoever is slow with a block keeps it.
      if (round == 7) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      for (const StreamPart& part : block) {
        if (part.slot_offset == StreamPart::kInPlace) continue;
        ASSERT_TRUE(Holds(*slot + part.slot_offset, part.offset, part.bytes)) << round;
      }
      stream->Release();
    }
  }
  EXPECT_GE(stream->read_bytes(), 50 * (300 + 3 + 1 + 257) * kPage);
  EXPECT_LE(stream->read_bytes(), 51 * (300 + 3 + 1 + 257) * kPage);  // no more than is used
}

TEST(WeightStream, OnlyWhatStaysInPlaceEntersThePageCache) {
  WriteFile(kFile);
  const MappedFile mapping = *MappedFile::Map(TestPath());
  if (Residency::Read(mapping)->bytes() > 0) GTEST_SKIP() << "this file system drops no pages";
  const auto stream = *WeightStream::Start(mapping.file(), Blocks(), kSlot);
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(stream->Acquire().ok());
    stream->Release();
  }
  const Residency residency = *Residency::Read(mapping);
  EXPECT_EQ(residency.BytesIn(700 * kPage, 720 * kPage), 20 * kPage);
  EXPECT_EQ(residency.bytes(), 20 * kPage);
}

TEST(WeightStream, AFileInMemoryIsReadAllTheSame) {
  if (access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no /dev/shm";
  const std::string path = "/dev/shm/quire_weight_stream_test";
  WriteFile(kFile);
  {
    std::ifstream in(TestPath(), std::ios::binary);
    std::ofstream(path, std::ios::binary | std::ios::trunc) << in.rdbuf();
  }
  const File file = *File::Open(path);
  unlink(path.c_str());  // the open file is what counts
  const auto stream = *WeightStream::Start(file, Blocks(), kSlot);
  for (int i = 0; i < 8; ++i) {
    const absl::StatusOr<const uint8_t*> slot = stream->Acquire();
    ASSERT_TRUE(slot.ok()) << slot.status();
    if (i % 4 == 3) {
      EXPECT_TRUE(Holds(*slot, kFile - 257 * kPage, 257 * kPage));
    }
    stream->Release();
  }
}

TEST(WeightStream, AFileThatIsCutWhileInUseIsAnErrorThatSaysWhere) {
  for (const int64_t cut : {kFile - kPage, kFile - 100, 200 * kPage + 8, int64_t{0}}) {
    WriteFile(kFile);
    const File file = *File::Open(TestPath());
    const auto stream = *WeightStream::Start(file, Blocks(), kSlot);
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(stream->Acquire().ok());
      stream->Release();
    }
    ASSERT_EQ(truncate(TestPath().c_str(), cut), 0);
    absl::Status status;
    for (int i = 0; i < 12 && status.ok(); ++i) {
      status = stream->Acquire().status();
      if (status.ok()) stream->Release();
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << cut;
    EXPECT_NE(status.message().find(TestPath() + ": the file ends at byte "), std::string::npos)
        << status;
    EXPECT_EQ(stream->Acquire().status(), status);  // for good
  }
}

TEST(WeightStream, EndsWhileItReads) {
  WriteFile(kFile);
  const File file = *File::Open(TestPath());
  for (int i = 0; i < 20; ++i) {
    const auto stream = *WeightStream::Start(file, Blocks(), kSlot);
    if (i % 2 == 0) continue;
    ASSERT_TRUE(stream->Acquire().ok());
  }
}

}  // namespace
}  // namespace quire
