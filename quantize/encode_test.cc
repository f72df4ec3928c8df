#include "quantize/encode.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "format/half.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

const int64_t kCols[] = {1, 15, 16, 31, 32, 33, 128, 172, 576};
const int64_t kRowCounts[] = {1, 15, 16};
const Layout kLayouts[] = {Layout::kPanels, Layout::kRows};

std::vector<float> Gaussian(int64_t n, uint32_t seed, float deviation = 0.02f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

struct Encoded {
  Geometry geometry;
  std::vector<uint8_t> bytes;
  std::vector<float> decoded;  // [unit_rows][padded_cols]
  EncodingError error;

  float At(int64_t row, int64_t column) const {
    return decoded[row * geometry.padded_cols() + column];
  }
};

// Encodes into poisoned bytes with a guard behind them, and decodes into poisoned floats.
Encoded RoundTrip(const Geometry& geometry, const std::vector<float>& rows, int64_t n_rows,
                  const float* column_weights = nullptr, uint8_t poison = 0xff) {
  Encoded e{geometry, std::vector<uint8_t>(geometry.unit_bytes() + 64, poison), {}, {}};
  EncodeUnit(geometry, CodebookFor(geometry.encoding), column_weights, rows.data(), n_rows,
             e.bytes.data(), &e.error);
  for (int i = 0; i < 64; ++i)
    EXPECT_EQ(e.bytes[geometry.unit_bytes() + i], poison) << "wrote past the unit";
  e.bytes.resize(geometry.unit_bytes());
  e.decoded.assign(geometry.unit_rows() * geometry.padded_cols(),
                   std::numeric_limits<float>::quiet_NaN());
  DecodeUnit(geometry, CodebookFor(geometry.encoding), e.bytes.data(), 0, e.decoded.data());
  return e;
}

// Calls check(geometry, n_rows) over all layouts and sizes.
template <typename Check>
void ForEachShape(Encoding encoding, Check check) {
  for (Layout layout : kLayouts) {
    for (int64_t cols : kCols) {
      for (int64_t n_rows : kRowCounts) {
        if (layout == Layout::kRows && n_rows != 1) continue;
        SCOPED_TRACE(std::string(Info(encoding).name) +
                     (layout == Layout::kPanels ? " panels " : " rows ") + std::to_string(n_rows) +
                     " x " + std::to_string(cols));
        check(Geometry{encoding, layout, n_rows, cols}, n_rows);
      }
    }
  }
}

float LargestOfGroup(const std::vector<float>& rows, int64_t cols, int64_t row, int64_t column) {
  float largest = 0;
  const int64_t first = column / kGroupColumns * kGroupColumns;
  for (int64_t c = first; c < std::min(cols, first + kGroupColumns); ++c) {
    largest = std::max(largest, std::fabs(rows[row * cols + c]));
  }
  return largest;
}

class EveryEncoding : public testing::TestWithParam<Encoding> {};
INSTANTIATE_TEST_SUITE_P(Encodings, EveryEncoding,
                         testing::Values(Encoding::kF32, Encoding::kF16, Encoding::kBF16,
                                         Encoding::kQ8, Encoding::kQ4, Encoding::kQ4_0,
                                         Encoding::kQ5, Encoding::kQ6, Encoding::kQ4_1),
                         [](const auto& info) { return Info(info.param).name; });

TEST_P(EveryEncoding, StaysWithinItsStep) {
  ForEachShape(GetParam(), [](const Geometry& g, int64_t n_rows) {
    const std::vector<float> rows = Gaussian(n_rows * g.cols, 7);
    const Encoded e = RoundTrip(g, rows, n_rows);
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t c = 0; c < g.cols; ++c) {
        const float x = rows[r * g.cols + c], largest = LargestOfGroup(rows, g.cols, r, c);
        float bound = 0;
        switch (g.encoding) {
          case Encoding::kF32:
            break;
          case Encoding::kF16:
            bound = std::fabs(x) / 2048 + 3e-8f;
            break;
          case Encoding::kBF16:
            bound = std::fabs(x) / 256;
            break;
          case Encoding::kQ8:  // and the coarse scales of tiny groups
            bound = 0.501f * largest / 127 + 6e-8f;
            break;
          case Encoding::kQ4_0:  // a whole step where the extreme's opposite would be +8, which has
                                 // no code
            bound = (std::fabs(x) > 0.93f * largest ? 1.01f : 0.51f) * largest / 8;
            break;
          case Encoding::kQ4:  // the extreme's opposite: -110 of 127 at 0.94 of the scale
            bound = 0.19f * largest;
            break;
          case Encoding::kQ5:  // likewise, -116 of 127
            bound = 0.15f * largest;
            break;
          case Encoding::kQ6:  // likewise, 31 of 32
            bound = 0.1f * largest;
            break;
          case Encoding::kQ4_1:  // half a step of 15 between the extremes
            bound = 0.501f * 2 * largest / 15 + 1e-6f;
            break;
        }
        ASSERT_NEAR(e.At(r, c), x, bound)
            << "row " << r << " column " << c << " largest " << largest;
      }
    }
  });
}

TEST_P(EveryEncoding, PadsWithZeros) {
  ForEachShape(GetParam(), [](const Geometry& g, int64_t n_rows) {
    const Encoded e = RoundTrip(g, Gaussian(n_rows * g.cols, 3), n_rows);
    for (int64_t r = 0; r < g.unit_rows(); ++r) {
      for (int64_t c = 0; c < g.padded_cols(); ++c) {
        // Zero may lie between two values of a group of q4_1.
        if (r >= n_rows || (c >= g.cols && g.encoding != Encoding::kQ4_1)) {
          ASSERT_EQ(e.At(r, c), 0.0f) << "row " << r << " column " << c;
        }
      }
    }
  });
}

TEST_P(EveryEncoding, ReportsTheErrorThatDecodingShows) {
  ForEachShape(GetParam(), [](const Geometry& g, int64_t n_rows) {
    const std::vector<float> rows = Gaussian(n_rows * g.cols, 5);
    const Encoded e = RoundTrip(g, rows, n_rows);
    double error = 0, norm = 0;
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t c = 0; c < g.cols; ++c) {
        const double x = rows[r * g.cols + c], difference = x - e.At(r, c);
        error += difference * difference;
        norm += x * x;
      }
    }
    EXPECT_NEAR(e.error.squared_error, error, 1e-5 * error);
    EXPECT_NEAR(e.error.squared_norm, norm, 1e-5 * norm);
  });
}

TEST_P(EveryEncoding, AddsToTheError) {
  const Geometry g{GetParam(), Layout::kPanels, 16, 64};
  const std::vector<float> rows = Gaussian(16 * 64, 5);
  const Encoded once = RoundTrip(g, rows, 16);
  EncodingError error{1, 2};
  std::vector<uint8_t> bytes(g.unit_bytes());
  EncodeUnit(g, CodebookFor(g.encoding), nullptr, rows.data(), 16, bytes.data(), &error);
  EXPECT_DOUBLE_EQ(error.squared_error, 1 + once.error.squared_error);
  EXPECT_DOUBLE_EQ(error.squared_norm, 2 + once.error.squared_norm);
}

TEST_P(EveryEncoding, DependsOnItsArgumentsAlone) {
  ForEachShape(GetParam(), [](const Geometry& g, int64_t n_rows) {
    const std::vector<float> rows = Gaussian(n_rows * g.cols, 11);
    const Encoded a = RoundTrip(g, rows, n_rows, nullptr, 0xff);
    // A wider unit before, so that reused scratch holds other values.
    RoundTrip({g.encoding, Layout::kPanels, 16, 1024}, Gaussian(16 * 1024, 12, 100.0f), 16);
    const Encoded b = RoundTrip(g, rows, n_rows, nullptr, 0x55);
    EXPECT_EQ(a.bytes, b.bytes);
    EXPECT_EQ(a.error.squared_error, b.error.squared_error);
  });
}

TEST_P(EveryEncoding, LayoutsHoldTheSameValues) {
  const int64_t cols = 172;
  const std::vector<float> rows = Gaussian(16 * cols, 13);
  const Encoded panel = RoundTrip({GetParam(), Layout::kPanels, 16, cols}, rows, 16);
  for (int64_t r = 0; r < 16; ++r) {
    const std::vector<float> row(rows.begin() + r * cols, rows.begin() + (r + 1) * cols);
    const Encoded alone = RoundTrip({GetParam(), Layout::kRows, 1, cols}, row, 1);
    for (int64_t c = 0; c < cols; ++c)
      ASSERT_EQ(panel.At(r, c), alone.At(0, c)) << "row " << r << " column " << c;
  }
}

TEST_P(EveryEncoding, ZerosStayZeros) {
  ForEachShape(GetParam(), [](const Geometry& g, int64_t n_rows) {
    const Encoded e = RoundTrip(g, std::vector<float>(n_rows * g.cols, 0.0f), n_rows);
    for (float v : e.decoded) ASSERT_EQ(v, 0.0f);
    EXPECT_EQ(e.error.squared_error, 0);
    EXPECT_EQ(e.error.squared_norm, 0);
  });
}

// From subnormals to the largest float, alone and mixed in one row: decoded values are finite, and
// never larger than rounding can make them.
TEST_P(EveryEncoding, ExtremeMagnitudesStayFinite) {
  const float kMagnitudes[] = {1.4e-45f, 1e-40f, 1.2e-38f, 1e-30f, 1e-10f, 6e-8f, 1e-6f,
                               1e4f,     7e4f,   8e6f,     1e20f,  1e30f,  1e38f, 3.4028235e38f};
  ForEachShape(GetParam(), [&](const Geometry& g, int64_t n_rows) {
    for (bool mixed : {false, true}) {
      for (float magnitude : kMagnitudes) {
        std::vector<float> rows = Gaussian(n_rows * g.cols, 17, 1.0f);
        for (size_t i = 0; i < rows.size(); ++i) {
          const float unit = std::min(std::max(rows[i] / 4, -1.0f), 1.0f);
          rows[i] = unit * (mixed && i % 3 != 0 ? 0.01f : magnitude);
        }
        rows[0] = -magnitude;
        const Encoded e = RoundTrip(g, rows, n_rows);
        for (int64_t r = 0; r < n_rows; ++r) {
          for (int64_t c = 0; c < g.cols; ++c) {
            const float largest = LargestOfGroup(rows, g.cols, r, c);
            ASSERT_TRUE(std::isfinite(e.At(r, c))) << magnitude << " row " << r << " column " << c;
            ASSERT_LE(std::fabs(e.At(r, c)), 1.2f * largest + 1e-7f)
                << magnitude << " row " << r << " column " << c;
          }
        }
        EXPECT_TRUE(std::isfinite(e.error.squared_error));
      }
    }
  });
}

TEST_P(EveryEncoding, EncodingDecodedValuesAgainLosesLittle) {
  const Geometry g{GetParam(), Layout::kPanels, 16, 576};
  const Encoded once = RoundTrip(g, Gaussian(16 * 576, 19), 16);
  const Encoded twice = RoundTrip(g, once.decoded, 16);
  const double relative = std::sqrt(twice.error.squared_error / twice.error.squared_norm);
  // Where scales are searched, others may be chosen; the rest find theirs again.
  EXPECT_LE(relative, Info(GetParam()).row_scale ? 0.03 : 0.0);
}

TEST(EncodeUnit, HalfAndBfloat16AreExactWhereRepresentable) {
  std::vector<float> halves, bfloats;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7c00) != 0x7c00) halves.push_back(HalfToFloat(static_cast<uint16_t>(bits)));
    if ((bits & 0x7f80) != 0x7f80) bfloats.push_back(Bfloat16ToFloat(static_cast<uint16_t>(bits)));
  }
  const auto expect_exact = [](Encoding encoding, Layout layout, const std::vector<float>& values) {
    const int64_t cols = static_cast<int64_t>(values.size());
    const Encoded e = RoundTrip({encoding, layout, 1, cols}, values, 1);
    EXPECT_EQ(e.error.squared_error, 0);
    for (int64_t c = 0; c < cols; ++c)
      ASSERT_EQ(FloatToBits(e.At(0, c)), FloatToBits(values[c])) << "column " << c;
  };
  for (Layout layout : kLayouts) {
    expect_exact(Encoding::kF16, layout, halves);
    expect_exact(Encoding::kBF16, layout, bfloats);
  }
}

// Every rounding decision of a 16-bit float: the values halfway between neighbours, and one ulp to
// each side.
TEST(EncodeUnit, HalfRoundsToNearestEven) {
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float middle = 0.5f * (HalfToFloat(static_cast<uint16_t>(bits)) +
                                 HalfToFloat(static_cast<uint16_t>(bits + 1)));
    values.insert(values.end(),
                  {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)});
  }
  const int64_t cols = static_cast<int64_t>(values.size());
  const Encoded e = RoundTrip({Encoding::kF16, Layout::kPanels, 1, cols}, values, 1);
  for (int64_t c = 0; c < cols; ++c)
    ASSERT_EQ(e.At(0, c), HalfToFloat(FloatToHalf(values[c]))) << values[c];
}

TEST(EncodeUnit, Q8IsExactForItsOwnGrid) {
  const int64_t cols = 96;
  std::mt19937 random(23);
  std::vector<float> rows(16 * cols);
  for (int64_t i = 0; i < 16 * cols; i += kGroupColumns) {
    const float scale = HalfToFloat(static_cast<uint16_t>(0x1000 + random() % 0x3000));
    for (int k = 0; k < kGroupColumns; ++k)
      rows[i + k] = scale * (static_cast<int>(random() % 255) - 127);
    rows[i + random() % kGroupColumns] = 127 * scale;
  }
  for (Layout layout : kLayouts) {
    const Encoded e =
        RoundTrip({Encoding::kQ8, layout, 16, cols}, rows, layout == Layout::kPanels ? 16 : 1);
    EXPECT_EQ(e.error.squared_error, 0);
  }
}

// q4 against the plainest 4-bit scheme there is: symmetric, the group's largest magnitude
// becomes 7.
TEST(EncodeUnit, Q4IsBetterThanRoundToNearest) {
  const int64_t cols = 576;
  const std::vector<float> rows = Gaussian(16 * cols, 29);
  const Encoded e = RoundTrip({Encoding::kQ4, Layout::kPanels, 16, cols}, rows, 16);
  double nearest = 0;
  for (int64_t r = 0; r < 16; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float step = LargestOfGroup(rows, cols, r, c) / 7, x = rows[r * cols + c];
      nearest += std::pow(x - step * std::nearbyint(x / step), 2);
    }
  }
  EXPECT_LT(e.error.squared_error, 0.66 * nearest);
  EXPECT_LT(std::sqrt(e.error.squared_error / e.error.squared_norm), 0.078);
}

// Each bit more about halves the error, as it should.
TEST(EncodeUnit, MoreBitsLowerTheError) {
  const int64_t cols = 576;
  const std::vector<float> rows = Gaussian(16 * cols, 29);
  const auto relative = [&](Encoding encoding) {
    const Encoded e = RoundTrip({encoding, Layout::kPanels, 16, cols}, rows, 16);
    return std::sqrt(e.error.squared_error / e.error.squared_norm);
  };
  const double q4 = relative(Encoding::kQ4);
  EXPECT_LT(relative(Encoding::kQ4_1), 1.05 * q4);
  EXPECT_LT(relative(Encoding::kQ5), 0.52 * q4);
  EXPECT_LT(relative(Encoding::kQ6), 0.3 * q4);
  EXPECT_LT(relative(Encoding::kQ8), 0.08 * q4);
}

TEST(EncodeUnit, Q4ColumnWeightsLowerTheWeightedError) {
  const int64_t cols = 576;
  const std::vector<float> rows = Gaussian(16 * cols, 31);
  std::vector<float> weights(cols);
  for (int64_t c = 0; c < cols; ++c) weights[c] = c % 7 == 0 ? 50.0f : 0.5f;
  const Geometry g{Encoding::kQ4, Layout::kPanels, 16, cols};
  auto weighted = [&](const Encoded& e) {
    double sum = 0;
    for (int64_t r = 0; r < 16; ++r) {
      for (int64_t c = 0; c < cols; ++c)
        sum += weights[c] * std::pow(rows[r * cols + c] - e.At(r, c), 2);
    }
    return sum;
  };
  EXPECT_LT(weighted(RoundTrip(g, rows, 16, weights.data())),
            0.75 * weighted(RoundTrip(g, rows, 16)));
}

TEST(EncodeUnit, Q4UnusualWeightsStayFinite) {
  const int64_t cols = 64;
  const std::vector<float> rows = Gaussian(16 * cols, 37);
  for (float weight : {0.0f, 1e-38f, 3e38f}) {
    const std::vector<float> weights(cols, weight);
    const Encoded e =
        RoundTrip({Encoding::kQ4, Layout::kPanels, 16, cols}, rows, 16, weights.data());
    EXPECT_LT(std::sqrt(e.error.squared_error / e.error.squared_norm), 0.2) << weight;
  }
}

TEST(AllFinite, FindsEachKindAnywhere) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::signaling_NaN(),
        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (size_t n : {1, 15, 16, 17, 100}) {
      std::vector<float> values(n, std::numeric_limits<float>::max());
      values[0] = -std::numeric_limits<float>::max();
      EXPECT_TRUE(AllFinite(values));
      for (size_t i = 0; i < n; ++i) {
        const float kept = values[i];
        values[i] = bad;
        EXPECT_FALSE(AllFinite(values)) << i << " of " << n;
        values[i] = kept;
      }
    }
  }
  EXPECT_TRUE(AllFinite({}));
}

// Random GGUF blocks (with any 16-bit scale that is finite) decode to what ggml's definition says,
// and come back.
TEST(RepackGgmlUnit, CarriesBlocksBitForBit) {
  for (Encoding encoding : {Encoding::kQ4_0, Encoding::kQ4_1, Encoding::kQ8}) {
    for (Layout layout : kLayouts) {
      for (int64_t cols : {32, 96, 128, 160, 576}) {
        const int64_t n_rows = layout == Layout::kPanels ? 15 : 1, groups = cols / 32;
        const Geometry g{encoding, layout, n_rows, cols};
        const int head_bytes = Info(encoding).scale_bytes;
        const int block_bytes = head_bytes + (encoding == Encoding::kQ8 ? 32 : 16);
        std::mt19937 random(41);
        std::vector<uint8_t> blocks(n_rows * groups * block_bytes);
        for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random());
        for (int64_t b = 0; b < n_rows * groups; ++b) {
          for (int i = 1; i < head_bytes; i += 2) blocks[b * block_bytes + i] &= 0xbf;
        }
        std::vector<uint8_t> unit(g.unit_bytes(), 0xff);
        RepackGgmlUnit(g, blocks.data(), n_rows, unit.data());
        std::vector<float> decoded(g.unit_rows() * cols, std::numeric_limits<float>::quiet_NaN());
        DecodeUnit(g, nullptr, unit.data(), 0, decoded.data());
        for (int64_t r = 0; r < g.unit_rows(); ++r) {
          for (int64_t c = 0; c < cols; ++c) {
            float expected = 0;
            if (r < n_rows) {
              const uint8_t* block = blocks.data() + (r * groups + c / 32) * block_bytes;
              const float scale = HalfToFloat(static_cast<uint16_t>(block[0] | block[1] << 8));
              const int k = c % 32;
              const uint8_t* codes = block + head_bytes;
              const int nibble = k < 16 ? codes[k] & 15 : codes[k - 16] >> 4;
              if (encoding == Encoding::kQ8) {
                expected = scale * static_cast<float>(static_cast<int8_t>(codes[k]));
              } else if (encoding == Encoding::kQ4_0) {
                expected = scale * static_cast<float>(nibble - 8);
              } else {
                const auto minimum = static_cast<uint16_t>(block[2] | block[3] << 8);
                expected = scale * static_cast<float>(nibble) + HalfToFloat(minimum);
              }
            }
            ASSERT_EQ(decoded[r * cols + c], expected)
                << Info(encoding).name << " row " << r << " column " << c;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quire
