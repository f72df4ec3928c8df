// Every kernel this CPU can run against the scalar definition: bytes and error sums, bit for bit.
#include "quantize/kernels/kernels.h"

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "format/packed_layout.h"
#include "gtest/gtest.h"
#include "quantize/encode.h"

namespace quire {
namespace {

struct Result {
  std::vector<uint8_t> bytes;
  std::vector<double> error, norm;
};

Result Encode(const EncodeKernels& kernels, Encoding encoding, const std::vector<float>& columns,
              int64_t cols, const float* weights) {
  const Geometry g{encoding, Layout::kPanels, kPanelRows, cols};
  Result result{std::vector<uint8_t>(g.unit_bytes()), std::vector<double>(16, 0.5),
                std::vector<double>(16, 0.25)};
  std::vector<float> scratch(g.groups() * 16, NAN);
  kernels.encode[static_cast<int>(encoding) - 1](
      {columns.data(), cols, g.groups(), CodebookFor(encoding), weights, scratch.data(),
       result.bytes.data(), result.error.data(), result.norm.data()});
  return result;
}

// Kinds of rows, one after another in each panel.
float Sample(int row, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 1);
  const float x = normal(random);
  switch (row % 8) {
    case 0:
      return 0.02f * x;
    case 1:
      return 0;
    case 2:
      return x * x * x * x * x;  // heavy tails: small groups beside large ones
    case 3:
      return 1e-39f * x;
    case 4:
      return 5e37f * std::min(std::max(x, -6.0f), 6.0f);
    case 5:
      return std::nearbyint(3 * x) * 0.125f;  // ties
    case 6:
      return std::ldexp(x, static_cast<int>(random() % 80) - 60);
    default:
      return 1e-6f * x;  // scales that are subnormal 16-bit floats
  }
}

class EncodeKernelsTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Kernels, EncodeKernelsTest,
                         testing::Range(0,
                                        [] {
                                          int n = 0;
                                          while (AllEncodeKernels()[n] != nullptr) ++n;
                                          return n;
                                        }()),
                         [](const auto& info) {
                           return std::string(AllEncodeKernels()[info.param]->name);
                         });

TEST_P(EncodeKernelsTest, EqualsScalarBitForBit) {
  const EncodeKernels& kernels = *AllEncodeKernels()[GetParam()];
  if (!kernels.supported()) GTEST_SKIP() << "this CPU cannot run " << kernels.name;
  std::mt19937 random(1);
  for (const EncodingInfo& info : kEncodings) {
    for (int64_t cols : {1, 15, 31, 32, 33, 127, 128, 172, 576}) {
      for (bool weighted : {false, true}) {
        std::vector<float> columns(RoundUp(cols, kGroupColumns) * kPanelRows, 0.0f), weights(cols);
        for (int64_t i = 0; i < cols * kPanelRows; ++i)
          columns[i] = Sample(static_cast<int>(i % kPanelRows), random);
        for (float& w : weights) w = std::exp(Sample(0, random) * 100);
        const float* given = weighted ? weights.data() : nullptr;
        const Result expected = Encode(ScalarEncodeKernels(), info.encoding, columns, cols, given);
        const Result actual = Encode(kernels, info.encoding, columns, cols, given);
        ASSERT_EQ(actual.bytes, expected.bytes)
            << info.name << " cols " << cols << " weighted " << weighted;
        ASSERT_EQ(actual.error, expected.error)
            << info.name << " cols " << cols << " weighted " << weighted;
        ASSERT_EQ(actual.norm, expected.norm)
            << info.name << " cols " << cols << " weighted " << weighted;
      }
    }
  }
}

}  // namespace
}  // namespace quire
