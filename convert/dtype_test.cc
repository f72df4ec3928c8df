#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "convert/tensor_source.h"
#include "format/half.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

template <typename T>
std::vector<float> Decode(DType dtype, const std::vector<T>& values, size_t n) {
  std::vector<float> out(n, std::numeric_limits<float>::quiet_NaN());
  DecodeToFloat(dtype,
                absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(values.data()),
                                    values.size() * sizeof(T)),
                absl::MakeSpan(out));
  return out;
}

template <typename T>
std::vector<float> Decode(DType dtype, const std::vector<T>& values) {
  return Decode(dtype, values, values.size());
}

uint32_t Bits(float f) { return FloatToBits(f); }

TEST(Dtype, EveryHalfDecodesAsTheScalarDefinition) {
  std::vector<uint16_t> all(65536);
  for (int i = 0; i < 65536; ++i) all[static_cast<size_t>(i)] = static_cast<uint16_t>(i);
  const std::vector<float> out = Decode(DType::kF16, all);
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(Bits(out[i]), Bits(HalfToFloat(all[i]))) << "half " << i;
  }
}

TEST(Dtype, EveryLengthAndAlignmentOfHalvesDecodes) {
  std::vector<uint8_t> raw(2 * 70 + 1);
  for (size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<uint8_t>(i * 37 % 120);
  for (DType dtype : {DType::kF16, DType::kBF16}) {
    for (size_t n : {0u, 1u, 3u, 4u, 7u, 8u, 15u, 16u, 17u, 70u}) {
      for (size_t offset : {0u, 1u}) {
        std::vector<float> out(n + 1, -1.0f);
        DecodeToFloat(dtype, absl::MakeConstSpan(raw).subspan(offset, 2 * n),
                      absl::MakeSpan(out).subspan(0, n));
        for (size_t i = 0; i < n; ++i) {
          const auto h = static_cast<uint16_t>(raw[offset + 2 * i] | raw[offset + 2 * i + 1] << 8);
          EXPECT_EQ(Bits(out[i]), Bits(dtype == DType::kF16 ? HalfToFloat(h) : Bfloat16ToFloat(h)));
        }
        EXPECT_EQ(out[n], -1.0f);
      }
    }
  }
}

TEST(Dtype, IntegersAndDoublesDecode) {
  EXPECT_EQ(Decode<int64_t>(DType::kI64, {-3, 1 << 24}), (std::vector<float>{-3, 16777216}));
  EXPECT_EQ(Decode<int32_t>(DType::kI32, {-3, 7}), (std::vector<float>{-3, 7}));
  EXPECT_EQ(Decode<int16_t>(DType::kI16, {-300, 7}), (std::vector<float>{-300, 7}));
  EXPECT_EQ(Decode<int8_t>(DType::kI8, {-128, 7}), (std::vector<float>{-128, 7}));
  EXPECT_EQ(Decode<uint8_t>(DType::kU8, {200, 7}), (std::vector<float>{200, 7}));
  EXPECT_EQ(Decode<uint8_t>(DType::kBool, {0, 1, 2}), (std::vector<float>{0, 1, 1}));
  EXPECT_EQ(Decode<uint16_t>(DType::kU16, {65535}), (std::vector<float>{65535}));
  EXPECT_EQ(Decode<uint32_t>(DType::kU32, {4294967295u}), (std::vector<float>{4294967296.0f}));
  EXPECT_EQ(Decode<uint64_t>(DType::kU64, {1ull << 63}), (std::vector<float>{0x1p63f}));
  EXPECT_EQ(Decode<double>(DType::kF64, {0.1, -2.0}), (std::vector<float>{0.1f, -2.0f}));
  EXPECT_EQ(Decode<float>(DType::kF32, {0.1f}), (std::vector<float>{0.1f}));
}

TEST(Dtype, Float8KeyValues) {
  const std::vector<float> e4m3 =
      Decode<uint8_t>(DType::kF8E4M3FN, {0x00, 0x01, 0x08, 0x38, 0x7e, 0xfe, 0x80, 0x7f, 0xff});
  EXPECT_EQ(e4m3[0], 0.0f);
  EXPECT_EQ(e4m3[1], 0x1p-9f);
  EXPECT_EQ(e4m3[2], 0x1p-6f);
  EXPECT_EQ(e4m3[3], 1.0f);
  EXPECT_EQ(e4m3[4], 448.0f);
  EXPECT_EQ(e4m3[5], -448.0f);
  EXPECT_EQ(Bits(e4m3[6]), 0x80000000u);
  EXPECT_TRUE(std::isnan(e4m3[7]));
  EXPECT_TRUE(std::isnan(e4m3[8]));
  const std::vector<float> e5m2 =
      Decode<uint8_t>(DType::kF8E5M2, {0x01, 0x3c, 0x7b, 0x7c, 0xfc, 0x7d});
  EXPECT_EQ(e5m2[0], 0x1p-16f);
  EXPECT_EQ(e5m2[1], 1.0f);
  EXPECT_EQ(e5m2[2], 57344.0f);
  EXPECT_EQ(e5m2[3], std::numeric_limits<float>::infinity());
  EXPECT_EQ(e5m2[4], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(e5m2[5]));
}

// Blocks whose values follow from their definition: scale 2 (and min 1 or 0.5), codes chosen.
TEST(Dtype, BlocksOf32DecodeByDefinition) {
  std::vector<uint8_t> q4_0(18, 0x9f);  // low nibble 15, high nibble 9
  q4_0[0] = 0x00, q4_0[1] = 0x40;       // 2.0
  std::vector<float> out = Decode(DType::kGgmlQ4_0, q4_0, 32);
  EXPECT_EQ(out[0], 14.0f);
  EXPECT_EQ(out[15], 14.0f);
  EXPECT_EQ(out[16], 2.0f);
  EXPECT_EQ(out[31], 2.0f);

  std::vector<uint8_t> q8_0(34, 0xff);
  q8_0[0] = 0x00, q8_0[1] = 0x40, q8_0[33] = 0x80;
  out = Decode(DType::kGgmlQ8_0, q8_0, 32);
  EXPECT_EQ(out[0], -2.0f);
  EXPECT_EQ(out[31], -256.0f);

  std::vector<uint8_t> q5_1(24, 0);
  q5_1[1] = 0x40, q5_1[3] = 0x3c;  // scale 2, min 1
  q5_1[4] = 0x01, q5_1[7] = 0x80;  // fifth bits of elements 0 and 31
  q5_1[8] = 0x03;
  out = Decode(DType::kGgmlQ5_1, q5_1, 32);
  EXPECT_EQ(out[0], 2.0f * 19 + 1);
  EXPECT_EQ(out[1], 1.0f);
  EXPECT_EQ(out[31], 2.0f * 16 + 1);
}

TEST(Dtype, TwoBlocksDecodeOneAfterTheOther) {
  std::vector<uint8_t> q6(2 * 210, 0);
  q6[1 * 210 + 209] = 0x3c;  // d of the second block: 1.0
  q6[1 * 210 + 192] = 3;     // scale of its first 16
  std::vector<float> out = Decode(DType::kGgmlQ6K, q6, 512);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(out[static_cast<size_t>(i)], 0.0f);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(out[static_cast<size_t>(256 + i)], -96.0f);
  EXPECT_EQ(out[256 + 16], 0.0f);
}

TEST(Dtype, TensorBytesCountBlocks) {
  EXPECT_EQ((SourceTensor{"a", {4, 64}, DType::kGgmlQ4_0}.bytes()), 4 * 2 * 18);
  EXPECT_EQ((SourceTensor{"a", {}, DType::kF64}.bytes()), 8);
  EXPECT_EQ((SourceTensor{"a", {3, 0}, DType::kF32}.bytes()), 0);
}

}  // namespace
}  // namespace quire
