#include "quantize/encode_tensor.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace quire {
namespace {

constexpr int64_t kAmple = int64_t{64} << 20;

std::vector<float> Gaussian(int64_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

struct Outcome {
  absl::StatusOr<EncodingError> result = EncodingError();
  std::vector<uint8_t> bytes;
  int64_t largest_read_rows = 0;
};

Outcome Encode(const Geometry& geometry, const std::vector<float>& values, int threads,
               int64_t budget) {
  Outcome run;
  ThreadPool pool(threads);
  std::mutex mutex;
  std::vector<int> reads(geometry.rows);
  auto append = [&](absl::Span<const uint8_t> bytes) {
    run.bytes.insert(run.bytes.end(), bytes.begin(), bytes.end());
    return absl::OkStatus();
  };
  auto read = [&](int64_t first_row, int64_t n_rows, float* out) {
    std::lock_guard<std::mutex> lock(mutex);
    EXPECT_EQ(first_row % geometry.unit_rows(), 0);
    for (int64_t r = first_row; r < first_row + n_rows; ++r) ++reads[r];
    run.largest_read_rows = std::max(run.largest_read_rows, n_rows);
    std::copy_n(values.data() + first_row * geometry.cols, n_rows * geometry.cols, out);
    return absl::OkStatus();
  };
  run.result =
      EncodeTensor(geometry, CodebookFor(geometry.encoding), nullptr, read, {pool, append, budget});
  EXPECT_EQ(reads, std::vector<int>(geometry.rows, 1));
  return run;
}

TEST(EncodeTensor, EqualsEncodeUnitForAnyThreadsAndBudget) {
  const Geometry shapes[] = {
      {Encoding::kQ4, Layout::kPanels, 1000, 172}, {Encoding::kQ4, Layout::kPanels, 17, 4096},
      {Encoding::kQ5, Layout::kPanels, 100, 300},  {Encoding::kQ6, Layout::kRows, 33, 300},
      {Encoding::kQ8, Layout::kRows, 999, 64},     {Encoding::kF32, Layout::kRows, 1, 576},
      {Encoding::kF16, Layout::kPanels, 1, 1}};
  for (const Geometry& g : shapes) {
    const std::vector<float> values = Gaussian(g.rows * g.cols);
    std::vector<uint8_t> expected(g.bytes());
    EncodingError error;
    for (int64_t unit = 0; unit < g.units(); ++unit) {
      const int64_t row = unit * g.unit_rows();
      EncodeUnit(g, CodebookFor(g.encoding), nullptr, values.data() + row * g.cols,
                 std::min(g.unit_rows(), g.rows - row), expected.data() + unit * g.unit_bytes(),
                 &error);
    }
    const int64_t least = g.unit_rows() * g.cols * 4 * 3 + g.unit_bytes() + 4096;
    const Outcome reference = Encode(g, values, 1, kAmple);
    for (int threads : {1, 2, 5}) {
      for (int64_t budget : {least, 4 * least, kAmple}) {
        const Outcome run = Encode(g, values, threads, budget);
        ASSERT_TRUE(run.result.ok()) << run.result.status();
        EXPECT_TRUE(run.bytes == expected) << threads << " threads, budget " << budget;
        EXPECT_NEAR(run.result->squared_error, error.squared_error, 1e-12 * error.squared_norm);
        EXPECT_EQ(reference.result->squared_norm > 0, true);
      }
    }
  }
}

TEST(EncodeTensor, ErrorSumsDoNotDependOnThreads) {
  const Geometry g{Encoding::kQ4, Layout::kPanels, 2000, 576};
  const std::vector<float> values = Gaussian(g.rows * g.cols);
  const Outcome one = Encode(g, values, 1, kAmple);
  for (int threads : {2, 3, 8}) {
    const Outcome many = Encode(g, values, threads, kAmple);
    EXPECT_EQ(many.result->squared_error, one.result->squared_error);
    EXPECT_EQ(many.result->squared_norm, one.result->squared_norm);
  }
}

TEST(EncodeTensor, SmallerBudgetReadsFewerRowsAtOnce) {
  const Geometry g{Encoding::kQ8, Layout::kPanels, 640, 1024};
  const std::vector<float> values = Gaussian(g.rows * g.cols);
  EXPECT_GT(Encode(g, values, 2, kAmple).largest_read_rows, 16);
  EXPECT_EQ(Encode(g, values, 2, 400 << 10).largest_read_rows, 16);
}

TEST(EncodeTensor, RefusesABudgetThatOneUnitExceeds) {
  const Geometry g{Encoding::kQ4, Layout::kPanels, 16, 4096};
  ThreadPool pool(2);
  const auto result = EncodeTensor(g, CodebookFor(g.encoding), nullptr,
                                   [](int64_t, int64_t, float*) {
                                     ADD_FAILURE() << "read";
                                     return absl::OkStatus();
                                   },
                                   {pool,
                                    [](absl::Span<const uint8_t>) {
                                      ADD_FAILURE() << "appended";
                                      return absl::OkStatus();
                                    },
                                    16 * 4096 * 4});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(result.status().message().find("4096 columns"), std::string::npos) << result.status();
}

TEST(EncodeTensor, NamesTheFirstValueThatIsNotFinite) {
  const Geometry g{Encoding::kF32, Layout::kPanels, 100, 33};
  ThreadPool pool(1);
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> values = Gaussian(g.rows * g.cols);
    values[57 * 33 + 32] = bad;
    const auto result =
        EncodeTensor(g, nullptr, nullptr,
                     [&](int64_t first_row, int64_t n_rows, float* out) {
                       std::copy_n(values.data() + first_row * g.cols, n_rows * g.cols, out);
                       return absl::OkStatus();
                     },
                     {pool, [](absl::Span<const uint8_t>) { return absl::OkStatus(); }, kAmple});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(result.status().message().find(std::isnan(bad) ? "row 57, column 32 is NaN"
                                                             : "row 57, column 32 is inf"),
              std::string::npos)
        << result.status();
  }
}

// An error ends the work at once, whichever side it comes from, and with every thread waiting for a
// slot or reading.
TEST(EncodeTensor, FirstErrorEndsIt) {
  const Geometry g{Encoding::kQ8, Layout::kPanels, 16 * 1000, 1024};
  for (int threads : {1, 4}) {
    for (bool reading : {true, false}) {
      for (int at : {0, 3, 20}) {
        ThreadPool pool(threads);
        std::atomic<int> reads{0};
        int appends = 0;
        const auto result = EncodeTensor(
            g, nullptr, nullptr,
            [&](int64_t, int64_t n_rows, float* out) {
              std::fill_n(out, n_rows * g.cols, 1.0f);
              return reads++ == at && reading ? absl::DataLossError("read") : absl::OkStatus();
            },
            {pool,
             [&](absl::Span<const uint8_t>) {
               return appends++ == at && !reading ? absl::ResourceExhaustedError("append")
                                                  : absl::OkStatus();
             },
             kAmple});
        EXPECT_EQ(result.status().message(), reading ? "read" : "append");
        EXPECT_LE(reads, at + 2 * (2 * threads + 2) + threads);
        EXPECT_LE(appends, at + 2 * (2 * threads + 2));
      }
    }
  }
}

TEST(RepackTensor, CarriesBlocksInOrder) {
  for (Encoding encoding : {Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ8}) {
    const Geometry g{encoding, Layout::kPanels, 500, 96};
    const int64_t row_bytes = 3 * (Info(encoding).scale_bytes + 4 * Info(encoding).code_bits);
    std::mt19937 random(2);
    std::vector<uint8_t> blocks(g.rows * row_bytes), expected(g.bytes()), actual;
    for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random());
    const int64_t block_bytes = row_bytes / 3;
    for (size_t i = 0; i < blocks.size(); i += block_bytes) {
      for (int high = 1; high < Info(encoding).scale_bytes; high += 2) blocks[i + high] &= 0xbf;
    }
    for (int64_t unit = 0; unit < g.units(); ++unit) {
      RepackGgmlUnit(g, blocks.data() + unit * 16 * row_bytes,
                     std::min<int64_t>(16, g.rows - unit * 16),
                     expected.data() + unit * g.unit_bytes());
    }
    ThreadPool pool(3);
    const absl::Status status =
        RepackTensor(g,
                     [&](int64_t first_row, int64_t n_rows, uint8_t* out) {
                       std::copy_n(blocks.data() + first_row * row_bytes, n_rows * row_bytes, out);
                       return absl::OkStatus();
                     },
                     {pool,
                      [&](absl::Span<const uint8_t> bytes) {
                        actual.insert(actual.end(), bytes.begin(), bytes.end());
                        return absl::OkStatus();
                      },
                      100000});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(actual == expected);
  }
}

TEST(RepackTensor, ScalesThatAreNotFiniteAreRefused) {
  ThreadPool pool(2);
  for (Encoding encoding : {Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ8}) {
    const Geometry g{encoding, Layout::kPanels, 40, 96};
    const EncodingInfo& info = Info(encoding);
    const int64_t block_bytes = info.scale_bytes + 4 * info.code_bits;
    for (int scale = 0; scale < info.scale_bytes; scale += 2) {
      for (const uint8_t high : {0x7c, 0xfc, 0x7e}) {  // infinite, NaN
        const absl::Status status = RepackTensor(
            g,
            [&](int64_t first_row, int64_t n_rows, uint8_t* out) {
              std::fill_n(out, n_rows * 3 * block_bytes, 0);
              if (first_row <= 37 && 37 < first_row + n_rows)
                out[((37 - first_row) * 3 + 1) * block_bytes + scale + 1] = high;
              return absl::OkStatus();
            },
            {pool, [](absl::Span<const uint8_t>) { return absl::OkStatus(); }, 100000});
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_NE(status.message().find("row 37, column 32"), absl::string_view::npos) << status;
      }
    }
  }
}

}  // namespace
}  // namespace quire
