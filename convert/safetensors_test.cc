#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/tensor_source.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"

namespace quire {
namespace {

using absl::StatusCode;

std::string FileOf(const std::string& header, const std::string& data) {
  return Le(header.size(), 8) + header + data;
}

void Refused(const std::string& header, const std::string& data, StatusCode code,
             const std::vector<std::string>& words) {
  ExpectRefused(FileOf(header, data), OpenSafetensors, code, words);
}

std::string Row(const std::string& name, const std::string& dtype, const std::string& shape,
                int64_t begin, int64_t end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":[", begin, ",", end, "]}");
}

std::unique_ptr<TensorSource> OpenBytes(const std::string& bytes) {
  auto source = OpenSafetensors(WriteTestFile(bytes));
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *std::move(source) : nullptr;
}

std::string Read(const TensorSource& source, int index) {
  std::string out(source.tensors()[index].bytes(), '\0');
  const absl::Status s =
      source.Read(index, 0, source.tensors()[index].elements(),
                  absl::MakeSpan(reinterpret_cast<uint8_t*>(&out[0]), out.size()));
  EXPECT_TRUE(s.ok()) << s;
  return out;
}

TEST(Safetensors, ReadsAnOrdinaryFile) {
  const auto source = OpenBytes(
      FileOf("{\"__metadata__\":{\"format\":\"pt\"}," + Row("b", "F32", "[2]", 2, 10) + "," +
                 Row("a", "U8", "[2,1]", 0, 2) + "," + Row("s", "F16", "[]", 10, 12) + "," +
                 Row("e", "I64", "[0,3]", 12, 12) + "}  ",
             "ab01234567cd"));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->container(), "safetensors");
  ASSERT_EQ(source->tensors().size(), 4u);
  EXPECT_EQ(source->tensors()[0].name, "a");
  EXPECT_EQ(source->tensors()[1].shape, (std::vector<int64_t>{2}));
  EXPECT_EQ(Read(*source, 0), "ab");
  EXPECT_EQ(Read(*source, 1), "01234567");
  EXPECT_EQ(Read(*source, 2), "cd");
  EXPECT_EQ(Read(*source, 3), "");
  uint8_t half[4];
  ASSERT_TRUE(source->Read(1, 1, 1, absl::MakeSpan(half)).ok());
  EXPECT_EQ(std::memcmp(half, "4567", 4), 0);
  ASSERT_EQ(source->metadata().size(), 1u);
  EXPECT_EQ(source->metadata()[0], (std::pair<std::string, std::string>("format", "\"pt\"")));
}

TEST(Safetensors, ReadsEveryDtype) {
  const std::pair<const char*, int> dtypes[] = {
      {"F64", 8},  {"F32", 4},     {"F16", 2},     {"BF16", 2}, {"I64", 8}, {"I32", 4},
      {"I16", 2},  {"I8", 1},      {"U64", 8},     {"U32", 4},  {"U16", 2}, {"U8", 1},
      {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"C64", 8}};
  for (const auto& [name, bytes] : dtypes) {
    EXPECT_NE(OpenBytes(FileOf("{" + Row("w", name, "[3]", 0, 3 * bytes) + "}",
                               std::string(3 * bytes, '\0'))),
              nullptr)
        << name;
  }
  for (const char* name : {"F8_E8M0", "F4", "F6_E2M3"}) {
    Refused("{" + Row("w", name, "[4]", 0, 4) + "}", "1234", StatusCode::kUnimplemented,
            {"'w'", name});
  }
}

TEST(Safetensors, Case64_HeaderLength) {
  ExpectRefused(Le(0, 8) + "{}", OpenSafetensors, StatusCode::kInvalidArgument,
                {"header of 0 bytes"});
  ExpectRefused(Le(3, 8) + "{}", OpenSafetensors, StatusCode::kInvalidArgument,
                {"header of 3 bytes", "2 follow"});
  ExpectRefused(Le(~uint64_t{0}, 8) + "{}", OpenSafetensors, StatusCode::kInvalidArgument,
                {"header of 18446744073709551615"});
  ExpectRefused(Le(uint64_t{1} << 63, 8) + "{}", OpenSafetensors, StatusCode::kInvalidArgument,
                {"header"});
  for (size_t size : {0, 1, 7})
    ExpectRefused(std::string(size, '\2'), OpenSafetensors, StatusCode::kInvalidArgument,
                  {"not a safetensors"});
  // A hole in the file stands for the header.
  const std::string path = WriteTestFile(Le(100000001, 8));
  std::ofstream(path, std::ios::binary | std::ios::in).seekp(100000100).write("x", 1);
  ExpectRefusedFile(path, 8, OpenSafetensors, StatusCode::kResourceExhausted,
                    {"100000001", "limit"});
}

TEST(Safetensors, Case65_HolesOverlapsAndTrailingBytes) {
  Refused("{" + Row("a", "U8", "[2]", 0, 2) + "," + Row("b", "U8", "[2]", 3, 5) + "}", "01234",
          StatusCode::kInvalidArgument, {"'b'", "hole"});
  Refused("{" + Row("a", "U8", "[2]", 1, 3) + "}", "012", StatusCode::kInvalidArgument,
          {"'a'", "hole"});
  Refused("{" + Row("a", "U8", "[2]", 0, 2) + "," + Row("b", "U8", "[2]", 1, 3) + "}", "012",
          StatusCode::kInvalidArgument, {"'b'", "overlap"});
  Refused("{" + Row("a", "U8", "[2]", 0, 2) + "," + Row("b", "U8", "[2]", 0, 2) + "}", "01",
          StatusCode::kInvalidArgument, {"overlap"});
  Refused("{" + Row("a", "U8", "[2]", 0, 2) + "}", "012", StatusCode::kInvalidArgument,
          {"1 trailing bytes"});
  Refused("{}", "0", StatusCode::kInvalidArgument, {"1 trailing bytes"});
  Refused("{" + Row("a", "U8", "[2]", 0, 2) + "}", "0", StatusCode::kDataLoss,
          {"'a'", "cut short"});
  EXPECT_NE(OpenBytes(FileOf("{}", "")), nullptr);
}

TEST(Safetensors, Case66_DuplicateNames) {
  Refused("{" + Row("a", "U8", "[1]", 0, 1) + "," + Row("a", "U8", "[1]", 1, 2) + "}", "01",
          StatusCode::kInvalidArgument, {"two entries", "'a'"});
  Refused("{" + Row("a", "U8", "[1]", 0, 1) + "," + Row("\\u0061", "U8", "[1]", 1, 2) + "}", "01",
          StatusCode::kInvalidArgument, {"two entries", "'a'"});
  Refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "0",
          StatusCode::kInvalidArgument, {"two entries", "dtype"});
  Refused("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", "", StatusCode::kInvalidArgument,
          {"two entries", "'k'"});
  Refused("{\"__metadata__\":{},\"__metadata__\":{}}", "", StatusCode::kInvalidArgument,
          {"two entries", "__metadata__"});
}

TEST(Safetensors, Case67_DepthAndNonStringMetadata) {
  const int n = 100000;
  Refused("{\"a\":" + std::string(n, '[') + std::string(n, ']') + "}", "",
          StatusCode::kInvalidArgument, {"array"});
  std::string deep;
  for (int i = 0; i < n; ++i) deep += "{\"a\":";
  Refused(deep + "0" + std::string(n, '}'), "", StatusCode::kInvalidArgument, {});
  Refused("{\"a\":{\"shape\":" + std::string(n, '[') + std::string(n, ']') + "}}", "",
          StatusCode::kInvalidArgument, {"array"});
  for (const char* value : {"1", "null", "true", "[]", "{}", "1.5", "-1"}) {
    Refused(absl::StrCat("{\"__metadata__\":{\"k\":", value, "}}"), "",
            StatusCode::kInvalidArgument, {"safetensors header"});
    Refused(absl::StrCat("{\"a\":", value, "}"), "", StatusCode::kInvalidArgument,
            {"safetensors header"});
  }
  for (const char* header :
       {"{", "{}x", "{\"a\"}", "{\"a\":\"\xff\"}", "{'a':1}", "{\"a\":{}}", "[]"}) {
    Refused(header, "", StatusCode::kInvalidArgument, {"safetensors"});
  }
}

TEST(Safetensors, Case68_DtypeShapeAndSizeDisagree) {
  Refused("{" + Row("a", "F32", "[2]", 0, 7) + "}", "0123456", StatusCode::kInvalidArgument,
          {"'a'", "7 bytes", "8"});
  Refused("{" + Row("a", "F32", "[2]", 4, 0) + "}", "0123", StatusCode::kInvalidArgument,
          {"'a'", "data_offsets"});
  Refused("{" + Row("a", "F31", "[2]", 0, 8) + "}", "01234567", StatusCode::kInvalidArgument,
          {"'a'", "F31"});
  Refused("{" + Row("a", "F32", "[-2]", 0, 8) + "}", "01234567", StatusCode::kInvalidArgument,
          {"'a'", "-2"});
  Refused("{" + Row("a", "F32", "[2.0]", 0, 8) + "}", "01234567", StatusCode::kInvalidArgument,
          {"'a'", "2.0"});
  Refused("{" + Row("a", "F32", "[4611686018427387904,4]", 0, 0) + "}", "",
          StatusCode::kInvalidArgument, {"'a'", "overflow"});
  Refused("{" + Row("a", "U8", "[4611686018427387904,0,4]", 0, 0) + "}", "",
          StatusCode::kInvalidArgument, {"'a'", "overflow"});
  Refused("{" + Row("a", "U8", "[18446744073709551615]", 0, 0) + "}", "",
          StatusCode::kInvalidArgument, {"'a'"});
  Refused("{" + Row("a", "U8", "[18446744073709551616]", 0, 0) + "}", "",
          StatusCode::kInvalidArgument, {"'a'"});
  std::string rank = "[1";
  for (int i = 0; i < 100000; ++i) rank += ",1";
  Refused("{" + Row("a", "U8", rank + "]", 0, 1) + "}", "0", StatusCode::kInvalidArgument,
          {"'a'", "dimensions"});
  Refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", "0", StatusCode::kInvalidArgument,
          {"'a'", "lacks"});
  Refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", "0",
          StatusCode::kInvalidArgument, {"'a'", "data_offsets"});
  Refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", "0",
          StatusCode::kInvalidArgument, {"'a'", "data_offsets"});
  Refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}}", "0",
          StatusCode::kInvalidArgument, {"unknown entry 'x'"});
  Refused("{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}}", "0",
          StatusCode::kInvalidArgument, {"number"});
  Refused("{" + Row("", "U8", "[1]", 0, 1) + "}", "0", StatusCode::kInvalidArgument,
          {"name of 0 bytes"});
  Refused("{" + Row(std::string(5000, 'n'), "U8", "[1]", 0, 1) + "}", "0",
          StatusCode::kInvalidArgument, {"name of 5000 bytes"});
  Refused("{" + Row("a\\u0000", "U8", "[1]", 0, 1) + "}", "0", StatusCode::kInvalidArgument,
          {"control"});
}

TEST(Safetensors, Case69_MisalignedData) {
  const auto source = OpenBytes(FileOf(
      "{" + Row("a", "U8", "[1]", 0, 1) + "," + Row("b", "F64", "[1]", 1, 9) + "} ", "x01234567"));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Read(*source, 1), "01234567");
}

TEST(Safetensors, EveryCutAndEveryFlippedByteIsRefusedOrRead) {
  const std::string bytes =
      FileOf("{\"__metadata__\":{\"k\":\"v\"}," + Row("a", "U8", "[2]", 0, 2) + "," +
                 Row("b", "F32", "[1,1]", 2, 6) + "}",
             "012345");
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_FALSE(OpenSafetensors(WriteTestFile(bytes.substr(0, i))).ok()) << i;
    std::string damaged = bytes;
    damaged[i] ^= 1 << (i % 8);
    auto source = OpenSafetensors(WriteTestFile(damaged));
    for (size_t t = 0; source.ok() && t < (*source)->tensors().size(); ++t) Read(**source, t);
  }
}

}  // namespace
}  // namespace quire
