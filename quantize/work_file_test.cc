#include "quantize/work_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "format/file.h"

namespace quire {
namespace {

constexpr WorkFile::Shape kShape{42, 3, 1000, 50000};

class WorkFileTest : public testing::Test {
 protected:
  void SetUp() override { unlink(path_.c_str()); }

  // The values that stand for layer l's results.
  static float State(int64_t layer, int64_t i) { return static_cast<float>(100 * layer + i % 7); }
  static uint8_t Byte(int64_t i) { return static_cast<uint8_t>(i * 31 + 5); }

  static void DoLayer(WorkFile& work) {
    const int64_t l = work.layers_done();
    for (int64_t i = 0; i < kShape.state_floats; ++i) work.next_states()[i] = State(l, i);
    for (int64_t i = l * 10000; i < (l + 1) * 10000; ++i) work.encoded()[i] = Byte(i);
    EncodingError errors[kLayerMatrices.size()];
    for (size_t m = 0; m < kLayerMatrices.size(); ++m) errors[m] = {l + 0.5, m + 1.0};
    ASSERT_TRUE(work.FinishLayer(l * 10000, 10000, errors).ok());
  }
  int64_t LayersDone(const WorkFile::Shape& shape, bool discard_other = false) {
    return (*WorkFile::Open(path_, shape, discard_other))->layers_done();
  }
  void WriteTwoLayers() {
    unlink(path_.c_str());
    auto work = *WorkFile::Open(path_, kShape);
    DoLayer(*work);
    DoLayer(*work);
  }

  const std::string path_ = testing::TempDir() + "/work_file_test.unfinished";
};

TEST_F(WorkFileTest, GoesOnWhereItStopped) {
  {
    auto work = *WorkFile::Open(path_, kShape);
    EXPECT_EQ(work->layers_done(), 0);
    DoLayer(*work);
    work->next_states()[3] = -1;  // of a layer that is never finished
    work->encoded()[10000] = 99;
  }
  auto work = *WorkFile::Open(path_, kShape);
  ASSERT_EQ(work->layers_done(), 1);
  for (int64_t i = 0; i < kShape.state_floats; ++i) EXPECT_EQ(work->states()[i], State(0, i));
  for (int64_t i = 0; i < 10000; ++i) EXPECT_EQ(work->encoded()[i], Byte(i));
  EXPECT_EQ(work->errors(0)[2].squared_error, 0.5);
  EXPECT_EQ(work->errors(0)[2].squared_norm, 3);
  DoLayer(*work);
  DoLayer(*work);
  EXPECT_EQ(work->layers_done(), 3);
  ASSERT_TRUE(work->Remove().ok());
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(WorkFileTest, OtherWorkIsDiscardedOnlyWhenAskedTo) {
  const auto changed = [](auto change) {
    WorkFile::Shape shape = kShape;
    change(shape);
    return shape;
  };
  const WorkFile::Shape others[] = {changed([](auto& s) { s.fingerprint = 43; }),
                                    changed([](auto& s) { s.layers = 4; }),
                                    changed([](auto& s) { s.state_floats = 1001; }),
                                    changed([](auto& s) { s.encoded_bytes = 50001; })};
  for (const WorkFile::Shape& other : others) {
    WriteTwoLayers();
    EXPECT_EQ(LayersDone(kShape), 2);
    const absl::Status refused = WorkFile::Open(path_, other).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(refused.message().find("holds 2 of 3 layers"), std::string::npos) << refused;
    EXPECT_NE(refused.message().find("--force"), std::string::npos);
    EXPECT_EQ(LayersDone(kShape), 2);
    EXPECT_EQ(LayersDone(other, /*discard_other=*/true), 0);
    EXPECT_EQ(LayersDone(kShape), 0);  // nor does it come back
  }
}

TEST_F(WorkFileTest, DamageIsNoticedWhereverItIs) {
  WriteTwoLayers();
  const std::string whole = *ReadWholeFile(path_, 1 << 20);
  // Header and records byte by byte; of states and encoded bytes some. Layer 2's states and bytes
  // are not there yet.
  std::vector<int64_t> places;
  for (int64_t i = 8; i < 56; ++i) places.push_back(i);
  for (int64_t i = 0; i < 2 * 144; ++i) places.push_back(64 + i);
  const int64_t states = 16384, encoded = 32768;
  for (const int64_t i : {0, 1, 1999, 3999}) places.push_back(states + i);
  for (const int64_t i : {0, 9999, 10000, 19999}) places.push_back(encoded + i);
  const auto layers_done_of = [&](const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return LayersDone(kShape);
  };
  EXPECT_EQ(layers_done_of(whole), 2);
  for (const int64_t place : places) {
    std::string damaged = whole;
    damaged[place] ^= 0x10;
    EXPECT_EQ(layers_done_of(damaged), 0) << place;
  }
  EXPECT_EQ(layers_done_of(whole.substr(0, whole.size() - 1)), 0);
  EXPECT_EQ(layers_done_of(whole.substr(0, 100)), 0);
}

// Its sums are no secret: what a record says is checked although they agree.
TEST_F(WorkFileTest, RecordsThatReachBeyondTheFileAreNotFollowed) {
  WriteTwoLayers();
  const std::string whole = *ReadWholeFile(path_, 1 << 20);
  const int64_t values[] = {-1, 40001, int64_t{1} << 40, INT64_MAX, INT64_MIN};
  for (const int64_t place : {64, 72, 64 + 144, 72 + 144}) {  // first and bytes of both
    for (const int64_t value : values) {
      std::string damaged = whole;
      std::memcpy(&damaged[place], &value, sizeof value);
      const uint64_t sum =
          XXH3_64bits_withSeed(&damaged[64], 2 * 144, XXH3_64bits(&damaged[0], 48));
      std::memcpy(&damaged[48], &sum, sizeof sum);
      std::ofstream(path_, std::ios::binary) << damaged;
      EXPECT_EQ(LayersDone(kShape), 0) << place << " " << value;
    }
  }
  // The same recomputation without damage is accepted: the places above are the right ones.
  std::string again = whole;
  const uint64_t sum = XXH3_64bits_withSeed(&again[64], 2 * 144, XXH3_64bits(&again[0], 48));
  std::memcpy(&again[48], &sum, sizeof sum);
  EXPECT_EQ(again, whole);
}

TEST_F(WorkFileTest, AFileOfAnythingElseIsLeftAlone) {
  for (const std::string text : {"notes", "a longer file of notes"}) {
    std::ofstream(path_, std::ios::binary) << text;
    EXPECT_EQ(WorkFile::Open(path_, kShape).status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(*ReadWholeFile(path_, 1 << 20), text);
  }
}

// What a process leaves that is killed before it writes the header.
TEST_F(WorkFileTest, AFileWithoutAHeaderIsBegunAnew) {
  for (const size_t bytes : {0, 64, 100000}) {
    std::ofstream(path_, std::ios::binary) << std::string(bytes, '\0');
    EXPECT_EQ(LayersDone(kShape), 0) << bytes;
  }
}

TEST_F(WorkFileTest, OneProcessAtATime) {
  auto work = *WorkFile::Open(path_, kShape);
  const absl::Status status = WorkFile::Open(path_, kShape).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), path_ + ": another quantization to the same output is at work");
}

TEST_F(WorkFileTest, WhatIsNoFileIsRefused) {
  ASSERT_EQ(mkdir(path_.c_str(), 0700), 0);
  EXPECT_FALSE(WorkFile::Open(path_, kShape).ok());
  ASSERT_EQ(rmdir(path_.c_str()), 0);
  ASSERT_EQ(symlink("/dev/null", path_.c_str()), 0);
  EXPECT_FALSE(WorkFile::Open(path_, kShape).ok());
  ASSERT_EQ(unlink(path_.c_str()), 0);
}

}  // namespace
}  // namespace quire
