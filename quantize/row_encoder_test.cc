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

const int8_t* CodebookOf(Encoding encoding) {
  return Info(encoding).codebook ? kQ4Codebook : nullptr;
}

// Calls check(geometry, codebook) for every integer encoding, in both layouts.
template <typename Check>
void ForEachInteger(int64_t cols, Check check) {
  for (const EncodingInfo& info : kEncodings) {
    if (info.scale_bytes == 0) continue;
    for (Layout layout : {Layout::kPanels, Layout::kRows}) {
      SCOPED_TRACE(info.name);
      check(Geometry{info.encoding, layout, 1, cols}, CodebookOf(info.encoding));
    }
  }
}

// Columns in any order make the row that EncodeUnit makes, and Nearest says what will be decoded.
TEST(RowGrid, StepsInAnyOrderEqualEncodeUnit) {
  for (int64_t cols : {33, 172, 576}) {
    ForEachInteger(cols, [&](const Geometry& g, const int8_t* codebook) {
      const std::vector<float> x = Gaussian(cols, 1);
      EncodingError error;
      std::vector<uint8_t> expected(g.unit_bytes()), actual(g.unit_bytes());
      EncodeUnit(g, codebook, nullptr, x.data(), 1, expected.data(), &error);
      // The padding, and the rows of a panel that are not there.
      EncodeUnit(g, codebook, nullptr, std::vector<float>(cols).data(), 1, actual.data(), &error);
      const RowPlace place(g, 0, actual.data());
      std::vector<int64_t> order(g.padded_cols());
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), std::mt19937(2));
      for (int64_t c : order) *place.Code(c) = 0;

      const RowScales scales = ChooseScales(g, {x.data(), 1, codebook, nullptr});
      const RowGrid grid(g.encoding, codebook, scales);
      place.StoreScales(scales);
      std::vector<float> values(g.padded_cols()), decoded(g.unit_rows() * g.padded_cols());
      for (int64_t c : order) {
        const RowGrid::Point point = grid.Nearest(c, c < cols ? x[c] : 0.0f);
        place.StoreCode(c, point.code);
        values[c] = point.value;
      }
      EXPECT_EQ(actual, expected);
      DecodeUnit(g, codebook, actual.data(), 0, decoded.data());
      for (int64_t c = 0; c < g.padded_cols(); ++c) ASSERT_EQ(decoded[c], values[c]) << c;
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
  const Geometry g{Encoding::kQ4, Layout::kPanels, 1, 256};
  const std::vector<float> x = Gaussian(256, 5);
  std::vector<float> weights(256);
  for (int c = 0; c < 256; ++c) weights[c] = c % 9 == 0 ? 40.0f : 0.5f;
  const RowScales plain = ChooseScales(g, {x.data(), 1, kQ4Codebook, nullptr});
  const RowScales weighted = ChooseScales(g, {x.data(), 1, kQ4Codebook, weights.data()});
  const auto weighted_error = [&](const RowScales& scales) {
    const RowGrid grid(g.encoding, kQ4Codebook, scales);
    double sum = 0;
    for (int c = 0; c < 256; ++c)
      sum += weights[c] * std::pow(grid.Nearest(c, x[c]).value - x[c], 2);
    return sum;
  };
  EXPECT_LT(weighted_error(weighted), 0.9 * weighted_error(plain));
}

}  // namespace
}  // namespace quire
