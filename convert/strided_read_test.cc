#include "convert/strided_read.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace quire {
namespace {

// Element by element.
std::vector<uint8_t> Gathered(const StridedView& view, const std::vector<uint8_t>& storage) {
  std::vector<uint8_t> out;
  std::vector<int64_t> at(view.shape.size());
  int64_t elements = 1;
  for (int64_t n : view.shape) elements *= n;
  for (int64_t i = 0; i < elements; ++i) {
    int64_t rest = i, offset = view.offset_bytes;
    for (size_t d = view.shape.size(); d-- > 0; rest /= view.shape[d]) {
      offset += rest % view.shape[d] * view.strides[d] * view.element_bytes;
    }
    out.insert(out.end(), storage.begin() + offset, storage.begin() + offset + view.element_bytes);
  }
  return out;
}

struct Reads {
  int64_t calls = 0, bytes = 0;
};

std::vector<uint8_t> ReadAll(const StridedView& view, const std::vector<uint8_t>& storage,
                             int64_t step, Reads* reads) {
  int64_t elements = 1;
  for (int64_t n : view.shape) elements *= n;
  std::vector<uint8_t> out(elements * view.element_bytes, 0xee);
  auto read = [&](int64_t offset, absl::Span<uint8_t> to) {
    EXPECT_GE(offset, 0);
    EXPECT_LE(offset + to.size(), storage.size());
    std::memcpy(to.data(), storage.data() + offset, to.size());
    ++reads->calls;
    reads->bytes += to.size();
    return absl::OkStatus();
  };
  for (int64_t begin = 0; begin < elements; begin += step) {
    const int64_t count = std::min(step, elements - begin);
    const auto part =
        absl::MakeSpan(out).subspan(begin * view.element_bytes, count * view.element_bytes);
    EXPECT_TRUE(ReadStrided(view, begin, count, read, part).ok());
  }
  return out;
}

std::vector<uint8_t> Bytes(int64_t n) {
  std::vector<uint8_t> bytes(n);
  std::mt19937 random(1);
  for (uint8_t& b : bytes) b = random();
  return bytes;
}

TEST(StridedRead, AContiguousViewIsOneRead) {
  StridedView view;
  view.offset_bytes = 6;
  view.element_bytes = 2;
  view.shape = {1, 30, 1, 20};
  view.strides = {7, 20, 0, 1};
  EXPECT_TRUE(view.IsContiguous());
  const auto storage = Bytes(6 + view.SpanBytes());
  Reads reads;
  EXPECT_EQ(ReadAll(view, storage, 600, &reads), Gathered(view, storage));
  EXPECT_EQ(reads.calls, 1);
}

TEST(StridedRead, RandomViewsInPiecesOfAnySize) {
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    StridedView view;
    view.element_bytes = 1 << random() % 5;
    view.offset_bytes = random() % 50;
    const int rank = random() % 5;
    for (int d = 0; d < rank; ++d) {
      view.shape.push_back(random() % 12 == 0 ? 1 : 1 + random() % 9);
      const int64_t strides[] = {0, 1, 2, 3, 9, 81, 700, 5000};
      view.strides.push_back(strides[random() % 8]);
    }
    const auto storage = Bytes(view.offset_bytes + view.SpanBytes());
    const auto expected = Gathered(view, storage);
    int64_t elements = expected.size() / view.element_bytes;
    for (int64_t step : {int64_t{1}, int64_t{7}, int64_t{64}, elements}) {
      Reads reads;
      ASSERT_EQ(ReadAll(view, storage, step, &reads), expected)
          << "view " << i << ", step " << step;
    }
  }
}

TEST(StridedRead, LargeTransposedMatricesAreReadInWindows) {
  StridedView view;  // a row-major [2000, 1500], transposed
  view.element_bytes = 2;
  view.shape = {1500, 2000};
  view.strides = {1, 1500};
  const auto storage = Bytes(view.SpanBytes());
  const auto expected = Gathered(view, storage);
  Reads reads;
  EXPECT_EQ(ReadAll(view, storage, 3000000, &reads), expected);
  EXPECT_LE(reads.calls, 7);  // of a window each
  EXPECT_LE(reads.bytes, view.SpanBytes());
  // A few rows at once: all of the storage's rows lie within a page of one another.
  reads = {};
  EXPECT_EQ(ReadAll(view, storage, 16 * 2000, &reads), expected);
  EXPECT_LE(reads.calls, 94 * 7);
  // Far apart: a read for each piece, and no byte more.
  view.shape = {16, 200};
  view.strides = {1, 15000};
  const auto wide = Bytes(view.SpanBytes());
  reads = {};
  EXPECT_EQ(ReadAll(view, wide, 3200, &reads), Gathered(view, wide));
  EXPECT_EQ(reads.calls, 200);
  EXPECT_EQ(reads.bytes, 2 * 3200);
}

TEST(StridedRead, PassesErrorsOn) {
  StridedView view;
  view.shape = {3, 3};
  view.strides = {1, 3};
  uint8_t out[9];
  auto fail = [](int64_t, absl::Span<uint8_t>) { return absl::DataLossError("gone"); };
  EXPECT_EQ(ReadStrided(view, 0, 9, fail, absl::MakeSpan(out)), absl::DataLossError("gone"));
  EXPECT_TRUE(ReadStrided(view, 0, 0, fail, {}).ok());
}

}  // namespace
}  // namespace quire
