// Packed layers of hostile checkpoints: every shape, count and value wrong. What good ones mean is
// tested by tests/oracle/test_quantized_checkpoints.py.
#include "convert/quantized_source.h"

#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "convert/fake_source.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

constexpr char kGptq[] =
    R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}})";
constexpr char kAwq[] = R"({"quantization_config": {"quant_method": "awq", "bits": 4}})";
constexpr char kCompressedTensors[] =
    R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"g": {"weights": {"num_bits": 4}}}}})";

template <typename T>
std::vector<uint8_t> BytesOf(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

class QuantizedSource : public testing::Test {
 protected:
  QuantizedSource() {
    folder_ = absl::StrCat(testing::TempDir(), "/quantized_",
                           testing::UnitTest::GetInstance()->current_test_info()->name());
    mkdir(folder_.c_str(), 0755);
  }
  absl::StatusOr<UnpackedSource> Unpack(const std::string& config, FakeSource source,
                                        bool as_blocks = true) {
    std::ofstream(folder_ + "/config.json") << config;
    return UnpackQuantized(std::make_unique<FakeSource>(std::move(source)), folder_, "", as_blocks);
  }
  void ExpectRefused(const std::string& config, FakeSource source, absl::string_view word,
                     absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = Unpack(config, std::move(source)).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_NE(status.message().find(word), absl::string_view::npos) << status;
  }
  std::string folder_;
};

// 16 rows of 64 columns, two groups; codes 1 to 8 in each word, scales of one.
FakeSource Gptq(int32_t zeros = 0x77777777) {
  FakeSource source("safetensors");
  source.Add("up.qweight", {8, 16}, DType::kI32, BytesOf(std::vector<uint32_t>(128, 0x87654321)));
  source.Add("up.qzeros", {2, 2}, DType::kI32, BytesOf(std::vector<int32_t>(4, zeros)));
  source.Add("up.scales", {2, 16}, DType::kF16, BytesOf(std::vector<uint16_t>(32, 0x3c00)));
  std::vector<int32_t> order(64);
  for (int c = 0; c < 64; ++c) order[static_cast<size_t>(c)] = c / 32;
  source.Add("up.g_idx", {64}, DType::kI32, BytesOf(order));
  source.Add("norm.weight", {4});
  return source;
}

FakeSource Compressed(std::vector<int64_t> shape = {16, 64}) {
  FakeSource source("safetensors");
  source.Add("up.weight_packed", {16, 8}, DType::kI32,
             BytesOf(std::vector<uint32_t>(128, 0x87654321)));
  source.Add("up.weight_scale", {16, 2}, DType::kF16, BytesOf(std::vector<uint16_t>(32, 0x3c00)));
  source.Add("up.weight_shape", {2}, DType::kI64, BytesOf(shape));
  return source;
}

TEST_F(QuantizedSource, PlainCheckpointsPassThrough) {
  auto plain = Unpack("{}", Gptq());
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->unpacked);
  EXPECT_EQ(plain->source->tensors().size(), 5u);
}

TEST_F(QuantizedSource, BlocksOfAnyRange) {
  auto unpacked = Unpack(kGptq, Gptq());
  ASSERT_TRUE(unpacked.ok()) << unpacked.status();
  EXPECT_EQ(unpacked->obstacle, "");
  const TensorSource& source = *unpacked->source;
  ASSERT_EQ(source.tensors().size(), 2u);
  EXPECT_EQ(source.tensors()[0].name, "up.weight");
  EXPECT_EQ(source.tensors()[0].dtype, DType::kGgmlQ4_0);
  EXPECT_EQ(source.tensors()[0].shape, (std::vector<int64_t>{16, 64}));
  EXPECT_EQ(source.tensors()[1].name, "norm.weight");
  std::vector<uint8_t> all(16 * 2 * 18);
  ASSERT_TRUE(source.Read(0, 0, 16 * 64, absl::MakeSpan(all)).ok());
  // f16 1.0, then columns 0 and 16 in the first byte, 1 and 17 in the next, ...
  const std::vector<uint8_t> block = {0x00, 0x3c, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                      0x88, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};
  for (size_t i = 0; i < all.size(); i += 18)
    EXPECT_EQ(std::vector<uint8_t>(all.begin() + i, all.begin() + i + 18), block);
  // From the middle of a row to the middle of another.
  std::vector<uint8_t> part(5 * 18);
  ASSERT_TRUE(source.Read(0, 3 * 32, 5 * 32, absl::MakeSpan(part)).ok());
  EXPECT_EQ(part, std::vector<uint8_t>(all.begin() + 3 * 18, all.begin() + 8 * 18));
}

TEST_F(QuantizedSource, AsymmetricLayersHaveMinimums) {
  auto unpacked = Unpack(kGptq, Gptq(0x11111111));  // zero points of 2
  ASSERT_TRUE(unpacked.ok()) << unpacked.status();
  EXPECT_EQ(unpacked->obstacle, "");
  EXPECT_EQ(unpacked->source->tensors()[0].dtype, DType::kGgmlQ4_1);
  std::vector<uint8_t> block(20);
  ASSERT_TRUE(unpacked->source->Read(0, 32, 32, absl::MakeSpan(block)).ok());
  EXPECT_EQ(block,
            (std::vector<uint8_t>{0x00, 0x3c, 0x00, 0xc0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
                                  0x77, 0x88, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}));
}

TEST_F(QuantizedSource, DequantizedNumbersOfAnyRange) {
  auto unpacked = Unpack(kGptq, Gptq(0x11111111), /*as_blocks=*/false);
  ASSERT_TRUE(unpacked.ok()) << unpacked.status();
  EXPECT_EQ(unpacked->source->tensors()[0].dtype, DType::kF32);
  float some[3];
  ASSERT_TRUE(unpacked->source
                  ->Read(0, 70, 3, absl::MakeSpan(reinterpret_cast<uint8_t*>(some), sizeof some))
                  .ok());
  EXPECT_EQ(some[0], 5);  // row 1, columns 6 to 8: codes 7, 8 and 1
  EXPECT_EQ(some[1], 6);
  EXPECT_EQ(some[2], -1);
}

TEST_F(QuantizedSource, MinimumsBeyondF16AreRefusedWhenRead) {
  FakeSource source = Gptq(0x11111111);
  source.Remove("up.scales");
  source.Add("up.scales", {2, 16}, DType::kF16, BytesOf(std::vector<uint16_t>(32, 0x7bff)));
  auto unpacked = Unpack(kGptq, std::move(source));
  ASSERT_TRUE(unpacked.ok()) << unpacked.status();
  std::vector<uint8_t> all(16 * 2 * 20);
  EXPECT_EQ(unpacked->source->Read(0, 0, 16 * 64, absl::MakeSpan(all)).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(QuantizedSource, ShapesThatDoNotFitAreNamed) {
  for (const char* part : {"up.qweight", "up.qzeros", "up.scales", "up.g_idx"}) {
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{},
                                              {0},
                                              {3},
                                              {1, 16},
                                              {7, 15},
                                              {int64_t{1} << 61, 16},
                                              {8, int64_t{1} << 61},
                                              {0, 16},
                                              {8, 0},
                                              {2, 2, 1}}) {
      FakeSource source = Gptq();
      source.tensor(part).shape = shape;
      ExpectRefused(kGptq, std::move(source), "up");
    }
    FakeSource source = Gptq();
    source.tensor(part).dtype = DType::kI16;
    ExpectRefused(kGptq, std::move(source), part);
  }
  for (const char* part : {"up.qweight", "up.qzeros", "up.scales"}) {
    FakeSource source = Gptq();
    source.Remove(part);
    ExpectRefused(kGptq, std::move(source), part);
  }
  ExpectRefused(kAwq, Gptq(), "up");
}

TEST_F(QuantizedSource, StoredShapesThatLieAreRefused) {
  EXPECT_TRUE(Unpack(kCompressedTensors, Compressed()).ok());
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{-16, 64},
                                            {16, -64},
                                            {0, 0},
                                            {INT64_MAX, INT64_MAX},
                                            {16, 72},
                                            {17, 64},
                                            {16, int64_t{1} << 40}}) {
    ExpectRefused(kCompressedTensors, Compressed(shape), "up");
  }
}

TEST_F(QuantizedSource, OrdersBeyondTheGroupsAreRefused) {
  for (const int32_t group : {-1, 2, INT32_MAX, INT32_MIN}) {
    FakeSource source = Gptq();
    source.Remove("up.g_idx");
    source.Add("up.g_idx", {64}, DType::kI32, BytesOf(std::vector<int32_t>(64, group)));
    ExpectRefused(kGptq, std::move(source), "up.g_idx");
  }
}

TEST_F(QuantizedSource, ScalesThatAreNotFiniteAreRefusedWhenRead) {
  FakeSource source = Gptq();
  source.Remove("up.scales");
  source.Add("up.scales", {2, 16}, DType::kF16, BytesOf(std::vector<uint16_t>(32, 0x7c00)));
  auto unpacked = Unpack(kGptq, std::move(source));
  ASSERT_TRUE(unpacked.ok()) << unpacked.status();
  std::vector<uint8_t> all(16 * 2 * 18);
  EXPECT_EQ(unpacked->source->Read(0, 0, 16 * 64, absl::MakeSpan(all)).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(QuantizedSource, ConfigurationsOfTheWrongKind) {
  for (
      const char* config :
      {R"({"quantization_config": 5})", R"({"quantization_config": {"quant_method": []}})",
       R"({"quantization_config": {"bits": "4"}})", R"({"quantization_config": {"bits": 1e300}})",
       R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}})",
       R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"g": {"weights": null}}}})",
       R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"g": []}}})",
       R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
            "sparsity_config": {"format": 3}, "config_groups": {"g": {"weights": {}}}}})",
       R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"\n": []}}})"}) {
    const absl::Status status = Unpack(config, Gptq()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << config;
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos) << config;
  }
  for (
      const char* config :
      {R"({"quantization_config": {"quant_method": "hqq"}})",
       R"({"quantization_config": {"bits": 3}})",
       R"({"quantization_config": {"quant_method": "awq", "version": "gemv"}})",
       R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}})",
       R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"g": {"weights": {"num_bits": 4}, "input_activations": {"num_bits": 8}}}}})"}) {
    EXPECT_EQ(Unpack(config, Gptq()).status().code(), absl::StatusCode::kUnimplemented) << config;
  }
}

}  // namespace
}  // namespace quire
