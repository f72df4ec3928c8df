#include "quantize/row_encoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "quantize/encode.h"

namespace quire {
namespace {

std::vector<float> Gaussian(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

// Calls check(geometry, codebook) for every integer encoding, in both layouts.
template <typename Check>
void ForEachInteger(int64_t cols, Check check) {
  for (const EncodingInfo& info : kEncodings) {
    if (info.scale_bytes == 0) continue;
    for (Layout layout : {Layout::kPanels, Layout::kRows}) {
      SCOPED_TRACE(info.name);
      check(Geometry{info.encoding, layout, layout == Layout::kPanels ? 16 : 1, cols},
            CodebookFor(info.encoding));
    }
  }
}

// Columns in any order make the rows that EncodeUnit makes, and Nearest says what will be decoded.
TEST(RowGrid, StepsInAnyOrderEqualEncodeUnit) {
  for (int64_t cols : {33, 172, 576}) {
    ForEachInteger(cols, [&](const Geometry& g, const int8_t* codebook) {
      const std::vector<float> x = Gaussian(g.unit_rows() * cols, 1);
      EncodingError error;
      std::vector<uint8_t> expected(g.unit_bytes()), actual(g.unit_bytes());
      EncodeUnit(g, codebook, nullptr, x.data(), g.unit_rows(), expected.data(), &error);
      std::vector<int64_t> order(g.padded_cols());
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), std::mt19937(2));
      std::vector<float> values(g.unit_rows() * g.padded_cols()), decoded(values.size());
      for (int64_t r = 0; r < g.unit_rows(); ++r) {
        const float* row = x.data() + r * cols;
        const RowScales scales = ChooseScales(g, {row, 1, codebook, nullptr});
        const RowGrid grid(g.encoding, codebook, scales);
        const RowPlace place(g, static_cast<int>(r), actual.data());
        place.StoreScales(scales);
        for (int64_t c : order) {
          const RowGrid::Point point = grid.Nearest(c, c < cols ? row[c] : 0.0f);
          place.StoreCode(c, point.code);
          values[r * g.padded_cols() + c] = point.value;
        }
      }
      EXPECT_EQ(actual, expected);
      DecodeUnit(g, codebook, actual.data(), 0, decoded.data());
      EXPECT_EQ(decoded, values);
    });
  }
}

// No other code lies nearer, also for values far outside of what the scales were chosen for.
TEST(RowGrid, NearestIsNearest) {
  const int64_t cols = 64;
  ForEachInteger(cols, [&](const Geometry& g, const int8_t* codebook) {
    if (g.layout != Layout::kRows) return;
    const std::vector<float> x = Gaussian(cols, 3), other = Gaussian(cols, 4);
    const RowScales scales = ChooseScales(g, {x.data(), 1, codebook, nullptr});
    const RowGrid grid(g.encoding, codebook, scales);
    const int bits = Info(g.encoding).code_bits;
    for (int64_t c = 0; c < cols; ++c) {
      const float wanted = 3 * other[c];
      const float distance = std::fabs(grid.Nearest(c, wanted).value - wanted);
      for (int i = 0; i < 1 << bits; ++i) {
        // -128 of q8 is a code that no encoder writes.
        const int code = bits == 8 ? std::max(i - 128, -127) : i;
        std::vector<uint8_t> bytes(g.unit_bytes());
        std::vector<float> decoded(g.padded_cols());
        const RowPlace place(g, 0, bytes.data());
        place.StoreScales(scales);
        place.StoreCode(c, code);
        DecodeUnit(g, codebook, bytes.data(), 0, decoded.data());
        ASSERT_LE(distance, std::fabs(decoded[c] - wanted) + 1e-7f) << "column " << c;
      }
    }
  });
}

// Scales are those of the row that was given, and weights move them.
TEST(ChooseScales, WeightsMoveThem) {
  const std::vector<float> x = Gaussian(256, 5);
  std::vector<float> weights(256);
  for (int c = 0; c < 256; ++c) weights[c] = c % 9 == 0 ? 40.0f : 0.5f;
  for (Encoding encoding : {Encoding::kQ4, Encoding::kQ5, Encoding::kQ6}) {
    const Geometry g{encoding, Layout::kPanels, 1, 256};
    const int8_t* codebook = CodebookFor(encoding);
    const auto weighted_error = [&](const float* column_weights) {
      const RowScales scales = ChooseScales(g, {x.data(), 1, codebook, column_weights});
      const RowGrid grid(encoding, codebook, scales);
      double sum = 0;
      for (int c = 0; c < 256; ++c)
        sum += weights[c] * std::pow(grid.Nearest(c, x[c]).value - x[c], 2);
      return sum;
    };
    EXPECT_LT(weighted_error(weights.data()), 0.9 * weighted_error(nullptr)) << Info(encoding).name;
  }
}

}  // namespace
}  // namespace quire
