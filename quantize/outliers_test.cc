#include "quantize/outliers.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace quire {
namespace {

constexpr int kLayers = 6;

// Gate, up and down of each layer; `cols` columns of gate and up.
std::vector<SchemeTensor> Tensors(int64_t cols) {
  std::vector<SchemeTensor> tensors;
  for (int i = 0; i < kLayers; ++i) {
    tensors.push_back({{TensorRole::kGate, i}, 700, cols});
    tensors.push_back({{TensorRole::kUp, i}, 700, cols});
    tensors.push_back({{TensorRole::kDown, i}, cols, 700});
  }
  return tensors;
}

TEST(HiddenOutliers, FindsTheLayerWithALongUnit) {
  for (int64_t cols : {64, 256, 1000}) {
    const std::vector<SchemeTensor> tensors = Tensors(cols);
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    const auto outliers = HiddenOutliers(
        tensors, kLayers,
        [&](size_t index, int64_t first_row, int64_t n_rows, int64_t n_cols, float* out) {
          EXPECT_NE(tensors[index].name.role, TensorRole::kDown);
          EXPECT_EQ(first_row % 16, 0);
          EXPECT_TRUE(n_cols == cols || n_cols % 256 == 0);
          for (int64_t i = 0; i < n_rows * n_cols; ++i) {
            // Unit 301 of layer 3 in both, unit 5 of layer 4 in w_gate alone.
            const int64_t row = first_row + i / n_cols;
            const int layer = tensors[index].name.layer;
            const bool gate = tensors[index].name.role == TensorRole::kGate;
            const bool large = (layer == 3 && row == 301) || (layer == 4 && row == 5 && gate);
            out[i] = normal(random) * (large ? 4.0f : 1.0f);
          }
          return absl::OkStatus();
        });
    ASSERT_TRUE(outliers.ok());
    ASSERT_EQ(outliers->size(), kLayers);
    for (int layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ((*outliers)[layer] > kOutlier, layer == 3) << layer << " " << (*outliers)[layer];
    }
    // w_down of the layer gets more bits.
    const std::vector<double> plain = PriorSensitivities(tensors, kLayers),
                              informed = PriorSensitivities(tensors, kLayers, *outliers);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const bool down = tensors[i].name.role == TensorRole::kDown && tensors[i].name.layer == 3;
      EXPECT_EQ(informed[i] > plain[i], down) << i;
    }
  }
}

TEST(HiddenOutliers, OddContentIsNoOutlier) {
  const std::vector<SchemeTensor> tensors = Tensors(64);
  for (float value : {0.0f, std::nanf(""), INFINITY}) {
    const auto outliers = HiddenOutliers(tensors, kLayers + 1,
                                         [&](size_t, int64_t, int64_t n, int64_t cols, float* out) {
                                           std::fill_n(out, n * cols, value);
                                           return absl::OkStatus();
                                         });
    ASSERT_TRUE(outliers.ok());
    for (const double outlier : *outliers) EXPECT_FALSE(outlier > kOutlier);
  }
  EXPECT_EQ(HiddenOutliers(tensors, kLayers,
                           [](size_t, int64_t, int64_t, int64_t, float*) {
                             return absl::DataLossError("cut");
                           })
                .status()
                .code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace quire
