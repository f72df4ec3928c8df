#include "convert/gguf.h"

#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/gguf_header.h"
#include "convert/tensor_source.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

template <typename T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
std::string Text(const std::string& text) { return Bytes<uint64_t>(text.size()) + text; }

std::string Value(const std::string& key, GgufType type, const std::string& payload) {
  return Text(key) + Bytes(static_cast<uint32_t>(type)) + payload;
}
std::string Array(const std::string& key, GgufType type, uint64_t count,
                  const std::string& payload) {
  return Value(key, GgufType::kArray, Bytes(static_cast<uint32_t>(type)) + Bytes(count) + payload);
}
std::string Strings(const std::vector<std::string>& strings) {
  std::string payload;
  for (const std::string& s : strings) payload += Text(s);
  return payload;
}

struct Tensor {
  std::string name;
  std::vector<uint64_t> dims;  // fastest first, as in the file
  uint32_t type;
  uint64_t offset;
};

// A GGUF file as its parts say, well-formed or not.
struct Gguf {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> values;
  std::vector<Tensor> tensors;
  std::string data;
  uint64_t alignment = 32;
  int64_t more_tensors = 0, more_values = 0;  // added to the counts

  std::string Build() const {
    std::string file =
        magic + Bytes(version) +
        Bytes(static_cast<uint64_t>(static_cast<int64_t>(tensors.size()) + more_tensors)) +
        Bytes(static_cast<uint64_t>(static_cast<int64_t>(values.size()) + more_values));
    for (const std::string& value : values) file += value;
    for (const Tensor& t : tensors) {
      file += Text(t.name) + Bytes(static_cast<uint32_t>(t.dims.size()));
      for (uint64_t d : t.dims) file += Bytes(d);
      file += Bytes(t.type) + Bytes(t.offset);
    }
    if (alignment > 0) file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data;
  }
};

constexpr uint32_t kF32 = 0, kQ4_0 = 2, kQ8_0 = 8, kIq4Xs = 23;

// Two tensors: f32 [2 rows, 3 columns], and q8_0 [1, 32] behind it.
Gguf Valid() {
  Gguf gguf;
  gguf.values = {Value("general.architecture", GgufType::kString, Text("llama")),
                 Value("llama.block_count", GgufType::kU32, Bytes<uint32_t>(7))};
  gguf.tensors = {{"a", {3, 2}, kF32, 0}, {"b", {32, 1}, kQ8_0, 32}};
  for (int i = 0; i < 6; ++i) gguf.data += Bytes(static_cast<float>(i));
  gguf.data.resize(32);
  gguf.data += std::string(34, 'x');
  return gguf;
}

class GgufTest : public testing::Test {
 protected:
  std::string Write(const std::string& bytes) {
    const std::string path =
        absl::StrCat(testing::TempDir(), "/gguf_",
                     testing::UnitTest::GetInstance()->current_test_info()->name());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  absl::StatusOr<std::unique_ptr<TensorSource>> Open(const Gguf& gguf) {
    return OpenGguf(Write(gguf.Build()));
  }
  void ExpectRefused(const std::string& bytes, absl::StatusCode code,
                     const std::vector<std::string>& words) {
    const std::string path = Write(bytes);
    const absl::Status status = OpenGguf(path).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(status.message().substr(0, path.size()), path) << status;
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos) << status;
    for (const std::string& word : words) {
      EXPECT_NE(std::string(status.message()).find(word), std::string::npos)
          << status << "\nlacks: " << word;
    }
  }
  void ExpectRefused(const Gguf& gguf, absl::StatusCode code,
                     const std::vector<std::string>& words) {
    ExpectRefused(gguf.Build(), code, words);
  }
  // Valid() with one value more.
  void ExpectValueRefused(const std::string& value, absl::StatusCode code,
                          const std::vector<std::string>& words) {
    Gguf gguf = Valid();
    gguf.values.push_back(value);
    ExpectRefused(gguf, code, words);
  }
  // Valid() with its first tensor replaced.
  void ExpectTensorRefused(const Tensor& tensor, absl::StatusCode code,
                           const std::vector<std::string>& words) {
    Gguf gguf = Valid();
    gguf.tensors[0] = tensor;
    ExpectRefused(gguf, code, words);
  }
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnsupported = absl::StatusCode::kUnimplemented;
constexpr absl::StatusCode kLimit = absl::StatusCode::kResourceExhausted;
constexpr absl::StatusCode kLost = absl::StatusCode::kDataLoss;

TEST_F(GgufTest, ListsAndReads) {
  for (uint32_t version : {2u, 3u}) {
    Gguf gguf = Valid();
    gguf.version = version;
    auto source = Open(gguf);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->container(), "gguf");
    ASSERT_EQ((*source)->tensors().size(), 2u);
    const SourceTensor& a = (*source)->tensors()[0];
    EXPECT_EQ(a.name, "a");
    EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(a.dtype, DType::kF32);
    EXPECT_EQ((*source)->tensors()[1].dtype, DType::kGgmlQ8_0);
    float values[4];
    ASSERT_TRUE(
        (*source)->Read(0, 2, 4, absl::MakeSpan(reinterpret_cast<uint8_t*>(values), 16)).ok());
    EXPECT_EQ(values[0], 2.0f);
    EXPECT_EQ(values[3], 5.0f);
    std::vector<uint8_t> block(34);
    ASSERT_TRUE((*source)->Read(1, 0, 32, absl::MakeSpan(block)).ok());
    EXPECT_EQ(block, std::vector<uint8_t>(34, 'x'));
  }
}

TEST_F(GgufTest, MetadataIsJsonText) {
  Gguf gguf = Valid();
  gguf.values = {
      Value("u8", GgufType::kU8, Bytes<uint8_t>(200)),
      Value("i8", GgufType::kI8, Bytes<int8_t>(-3)),
      Value("u16", GgufType::kU16, Bytes<uint16_t>(65535)),
      Value("i16", GgufType::kI16, Bytes<int16_t>(-300)),
      Value("u32", GgufType::kU32, Bytes<uint32_t>(4294967295u)),
      Value("i32", GgufType::kI32, Bytes<int32_t>(-70000)),
      Value("f32", GgufType::kF32, Bytes(0.5f)),
      Value("yes", GgufType::kBool, Bytes<uint8_t>(1)),
      Value("no", GgufType::kBool, Bytes<uint8_t>(0)),
      Value("text", GgufType::kString, Text("a \"quoted\"\nline \xff")),
      Value("u64", GgufType::kU64, Bytes<uint64_t>(18446744073709551615u)),
      Value("i64", GgufType::kI64, Bytes<int64_t>(-5)),
      Value("f64", GgufType::kF64, Bytes(0.1)),
      Array("list", GgufType::kF32, 2, Bytes(1.0f) + Bytes(2.0f)),
      Array("words", GgufType::kString, 2, Strings({"x", ""})),
      Array("none", GgufType::kU8, 0, ""),
  };
  auto source = Open(gguf);
  ASSERT_TRUE(source.ok()) << source.status();
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"u8", "200"},
      {"i8", "-3"},
      {"u16", "65535"},
      {"i16", "-300"},
      {"u32", "4294967295"},
      {"i32", "-70000"},
      {"f32", "0.5"},
      {"yes", "true"},
      {"no", "false"},
      {"text", "\"a \\\"quoted\\\"\\nline \xef\xbf\xbd\""},
      {"u64", "18446744073709551615"},
      {"i64", "-5"},
      {"f64", "0.1"},
      {"list", R"({"type":"float32","length":2})"},
      {"words", R"({"type":"string","length":2})"},
      {"none", R"({"type":"uint8","length":0})"},
  };
  const auto metadata = (*source)->metadata();
  EXPECT_EQ((std::vector<std::pair<std::string, std::string>>(metadata.begin(), metadata.end())),
            expected);
}

TEST_F(GgufTest, Tokenizer) {
  Gguf gguf = Valid();
  for (const std::string& value :
       {Value("tokenizer.ggml.model", GgufType::kString, Text("gpt2")),
        Value("tokenizer.ggml.pre", GgufType::kString, Text("smollm")),
        Array("tokenizer.ggml.tokens", GgufType::kString, 3, Strings({"<s>", "a", "ab"})),
        Array("tokenizer.ggml.scores", GgufType::kF32, 3, Bytes(0.f) + Bytes(-1.f) + Bytes(2.f)),
        Array("tokenizer.ggml.token_type", GgufType::kI32, 3,
              Bytes<int32_t>(3) + Bytes<int32_t>(1) + Bytes<int32_t>(1)),
        Array("tokenizer.ggml.merges", GgufType::kString, 1, Strings({"a b"})),
        Value("tokenizer.ggml.bos_token_id", GgufType::kU32, Bytes<uint32_t>(0)),
        Value("tokenizer.ggml.eos_token_id", GgufType::kU32, Bytes<uint32_t>(2)),
        Value("tokenizer.ggml.eot_token_id", GgufType::kU32, Bytes<uint32_t>(0xffffffff)),
        Value("tokenizer.ggml.add_bos_token", GgufType::kBool, Bytes<uint8_t>(0)),
        Value("tokenizer.chat_template", GgufType::kString, Text("{{ x }}"))}) {
    gguf.values.push_back(value);
  }
  const auto fields = ReadGgufTokenizer(Write(gguf.Build()));
  ASSERT_TRUE(fields.ok()) << fields.status();
  EXPECT_EQ(fields->model, "gpt2");
  EXPECT_EQ(fields->pre, "smollm");
  EXPECT_EQ(fields->tokens, (std::vector<std::string>{"<s>", "a", "ab"}));
  EXPECT_EQ(fields->scores, (std::vector<float>{0, -1, 2}));
  EXPECT_EQ(fields->token_types, (std::vector<int32_t>{3, 1, 1}));
  EXPECT_EQ(fields->merges, (std::vector<std::string>{"a b"}));
  EXPECT_EQ(fields->bos_id, 0u);
  EXPECT_EQ(fields->eos_id, 2u);
  EXPECT_EQ(fields->eot_id, std::nullopt);
  EXPECT_EQ(fields->unknown_id, std::nullopt);
  EXPECT_EQ(fields->add_bos, false);
  EXPECT_EQ(fields->add_eos, std::nullopt);
  EXPECT_EQ(fields->chat_template, "{{ x }}");
  EXPECT_EQ(ReadGgufTokenizer(Write(Valid().Build())).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(GgufTest, UndecodableTypesAreListedAndNotRead) {
  Gguf gguf = Valid();
  gguf.tensors = {{"a", {256}, kIq4Xs, 0}};
  gguf.data.assign(136, 'x');
  auto source = Open(gguf);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->tensors()[0].dtype, DType::kGgmlOther);
  EXPECT_EQ((*source)->Read(0, 0, 256, {}).code(), kUnsupported);
  gguf.data.resize(135);
  ExpectRefused(gguf, kLost, {"'a'"});
}

TEST_F(GgufTest, Case70CountsAndLengthsBeyondTheFile) {
  for (int64_t more : {int64_t{1} << 40, int64_t{INT64_MAX} - 8, int64_t{-5}}) {
    Gguf tensors = Valid();
    tensors.more_tensors = more;
    ExpectRefused(tensors, kInvalid, {"number of tensors", "too few"});
    Gguf values = Valid();
    values.more_values = more;
    ExpectRefused(values, kInvalid, {"number of metadata keys", "too few"});
  }
  for (uint64_t length : {uint64_t{100000}, uint64_t{1} << 40, ~uint64_t{0}}) {
    ExpectValueRefused(Bytes(length) + "key", kInvalid, {"metadata key", absl::StrCat(length)});
    ExpectValueRefused(Value("k", GgufType::kString, Bytes(length) + "text"), kInvalid,
                       {"metadata string", absl::StrCat(length)});
    ExpectValueRefused(Array("k", GgufType::kF64, length, ""), kInvalid, {"'k'", "too few"});
    ExpectValueRefused(Array("k", GgufType::kString, length, ""), kInvalid, {"'k'", "too few"});
    ExpectValueRefused(Array("k", GgufType::kString, 1, Bytes(length)), kInvalid, {"a string of"});
  }
  // The counts fit and the entries do not.
  Gguf one_more = Valid();
  one_more.more_tensors = 1;
  EXPECT_FALSE(Open(one_more).ok());
}

TEST_F(GgufTest, CutAtEveryByteIsRefused) {
  Gguf gguf = Valid();
  gguf.values.push_back(Array("words", GgufType::kString, 2, Strings({"x", "yz"})));
  const std::string whole = gguf.Build();
  ASSERT_TRUE(Open(gguf).ok());
  const std::string path = Write(whole);
  for (size_t size = whole.size() - 1; size > 0; --size) {
    ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(size)), 0);
    const absl::Status status = OpenGguf(path).status();
    EXPECT_TRUE(status.code() == kInvalid || status.code() == kLost) << size << ": " << status;
  }
}

TEST_F(GgufTest, EveryByteChangedNeverCrashes) {
  Gguf gguf = Valid();
  gguf.values.push_back(Array("tokenizer.ggml.tokens", GgufType::kString, 2, Strings({"x", "yz"})));
  gguf.values.push_back(Value("tokenizer.ggml.model", GgufType::kString, Text("llama")));
  const std::string whole = gguf.Build();
  const std::string path = Write(whole);
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char value : {'\x00', '\x01', '\x7f', '\xff'}) {
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(static_cast<std::streamoff>(i));
      file.put(value);
      file.close();
      auto source = OpenGguf(path);
      if (source.ok()) {
        for (size_t t = 0; t < (*source)->tensors().size(); ++t) {
          const SourceTensor& tensor = (*source)->tensors()[t];
          if (tensor.dtype == DType::kGgmlOther) continue;
          std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes()));
          EXPECT_TRUE((*source)
                          ->Read(static_cast<int>(t), 0, tensor.elements(), absl::MakeSpan(bytes))
                          .ok());
        }
      } else {
        EXPECT_FALSE(source.status().message().empty());
      }
      ReadGgufTokenizer(path).IgnoreError();
      file.open(path, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(static_cast<std::streamoff>(i));
      file.put(whole[i]);
    }
  }
}

TEST_F(GgufTest, Case71ProductsThatWrap) {
  const uint64_t big = uint64_t{1} << 32;
  ExpectTensorRefused({"t", {big, big}, kF32, 0}, kInvalid, {"'t'", "2^63 elements"});
  ExpectTensorRefused({"t", {big, big, big, big}, kF32, 0}, kInvalid, {"'t'", "2^63 elements"});
  ExpectTensorRefused({"t", {uint64_t{1} << 63}, kF32, 0}, kInvalid, {"'t'", "2^63 elements"});
  ExpectTensorRefused({"t", {~uint64_t{0}}, kF32, 0}, kInvalid, {"'t'"});
  ExpectTensorRefused({"t", {uint64_t{1} << 62}, kF32, 0}, kInvalid, {"'t'", "2^63 bytes"});
  ExpectTensorRefused({"t", {3, 2}, kF32, ~uint64_t{31}}, kInvalid, {"'t'", "offset"});
  ExpectTensorRefused({"t", {3, 2}, kF32, (uint64_t{1} << 63) - 32}, kInvalid, {"'t'", "offset"});
  ExpectTensorRefused({"t", {(uint64_t{1} << 63) / 4 - 1}, kF32, 32}, kLost, {"'t'"});
  // Nothing beside something huge is nothing.
  Gguf empty = Valid();
  empty.tensors[0].dims = {0, uint64_t{1} << 62};
  EXPECT_TRUE(Open(empty).ok()) << Open(empty).status();
}

TEST_F(GgufTest, Case72TensorTypes) {
  for (uint32_t type : {4u, 5u, 31u, 36u, 38u, 1000u, 0x80000000u, 0xffffffffu}) {
    ExpectTensorRefused({"t", {256}, type, 0}, kInvalid, {"'t'", "unknown type"});
  }
  ExpectTensorRefused({"t", {256}, 0xffffffffu, 0}, kInvalid, {"type -1"});
  ExpectTensorRefused({"t", {33, 1}, kQ4_0, 0}, kInvalid, {"'t'", "33", "32"});
  for (uint32_t type : {13u, 0xffffffffu}) {
    ExpectValueRefused(Text("k") + Bytes(type) + Bytes<uint64_t>(0), kInvalid,
                       {"'k'", "unknown type"});
  }
}

TEST_F(GgufTest, Case73Alignment) {
  for (uint32_t alignment : {0u, 3u, 24u, 1u << 31, 0xffffffffu}) {
    ExpectValueRefused(Value("general.alignment", GgufType::kU32, Bytes(alignment)), kInvalid,
                       {"general.alignment", absl::StrCat(alignment)});
  }
  ExpectValueRefused(Value("general.alignment", GgufType::kU64, Bytes<uint64_t>(32)), kInvalid,
                     {"general.alignment", "uint64"});
  ExpectValueRefused(Value("general.alignment", GgufType::kString, Text("32")), kInvalid,
                     {"general.alignment", "string"});
  ExpectValueRefused(Array("general.alignment", GgufType::kU32, 1, Bytes<uint32_t>(32)), kInvalid,
                     {"general.alignment", "array"});
  Gguf wide = Valid();
  wide.alignment = 128;
  wide.values.push_back(Value("general.alignment", GgufType::kU32, Bytes<uint32_t>(128)));
  ExpectRefused(wide, kInvalid, {"'b'", "128"});
  wide.tensors[1].offset = 128;
  wide.data.insert(32, 96, '\0');
  auto source = Open(wide);
  ASSERT_TRUE(source.ok()) << source.status();
  std::vector<uint8_t> block(34);
  ASSERT_TRUE((*source)->Read(1, 0, 32, absl::MakeSpan(block)).ok());
  EXPECT_EQ(block[0], 'x');
}

TEST_F(GgufTest, Case74KeysAndArrays) {
  ExpectValueRefused(Value("llama.block_count", GgufType::kU32, Bytes<uint32_t>(8)), kInvalid,
                     {"second key", "llama.block_count"});
  ExpectValueRefused(Value("", GgufType::kU8, "x"), kInvalid, {"metadata key"});
  ExpectValueRefused(Value(std::string("a\0b", 3), GgufType::kU8, "x"), kInvalid, {"metadata key"});
  ExpectValueRefused(Value("\xff", GgufType::kU8, "x"), kInvalid, {"metadata key"});
  ExpectValueRefused(Value(std::string(1025, 'k'), GgufType::kU8, "x"), kLimit, {"1025", "1024"});
  ExpectValueRefused(Array("nested", GgufType::kArray, 1, Bytes<uint32_t>(0) + Bytes<uint64_t>(0)),
                     kInvalid, {"'nested'", "array of arrays"});
  ExpectValueRefused(Value("flag", GgufType::kBool, "\2"), kInvalid, {"bool"});
  Gguf twice = Valid();
  twice.tensors[1].name = "a";
  ExpectRefused(twice, kInvalid, {"second tensor", "'a'"});
  ExpectTensorRefused({"", {3, 2}, kF32, 0}, kInvalid, {"tensor's name"});
  ExpectTensorRefused({"t", {}, kF32, 0}, kInvalid, {"'t'", "0 dimensions"});
  ExpectTensorRefused({"t", {1, 1, 1, 1, 6}, kF32, 0}, kInvalid, {"'t'", "5 dimensions"});
}

TEST_F(GgufTest, Case75PlacesOfTensors) {
  Gguf gguf = Valid();
  gguf.tensors[1].offset = 33;
  ExpectRefused(gguf, kInvalid, {"'b'", "33", "alignment"});
  gguf.tensors[1].offset = 0;
  ExpectRefused(gguf, kInvalid, {"'a'", "'b'", "overlap"});
  gguf.tensors[1].offset = 64;
  ExpectRefused(gguf, kLost, {"'b'", "the file ends at"});
  gguf = Valid();
  gguf.data.pop_back();
  ExpectRefused(gguf, kLost, {"'b'"});
  gguf = Valid();
  gguf.tensors[0].dims = {3, 3};  // 36 bytes, to behind the next one's start
  ExpectRefused(gguf, kInvalid, {"'a'", "'b'", "overlap"});
}

TEST_F(GgufTest, Case76TokenizerArraysOfAnotherType) {
  ExpectValueRefused(Array("tokenizer.ggml.scores", GgufType::kI8, 2, "xx"), kInvalid,
                     {"tokenizer.ggml.scores", "int8", "float32"});
  ExpectValueRefused(Array("tokenizer.ggml.tokens", GgufType::kU8, 2, "xx"), kInvalid,
                     {"tokenizer.ggml.tokens", "uint8", "string"});
  ExpectValueRefused(Array("tokenizer.ggml.token_type", GgufType::kU8, 2, "xx"), kInvalid,
                     {"tokenizer.ggml.token_type"});
  ExpectValueRefused(Value("tokenizer.ggml.merges", GgufType::kString, Text("a b")), kInvalid,
                     {"tokenizer.ggml.merges", "string", "array"});
}

TEST_F(GgufTest, Case77VersionsAndByteOrder) {
  Gguf gguf = Valid();
  gguf.version = 1;
  ExpectRefused(gguf, kUnsupported, {"version 1"});
  gguf.version = 4;
  ExpectRefused(gguf, kUnsupported, {"version 4"});
  gguf.version = 3u << 24;
  ExpectRefused(gguf, kUnsupported, {"big-endian"});
  gguf = Valid();
  gguf.magic = "FUGG";
  ExpectRefused(gguf, kUnsupported, {"big-endian"});
  gguf.magic = "GGML";
  ExpectRefused(gguf, kInvalid, {"not a GGUF file"});
  ExpectRefused(std::string(), kLost, {"ends"});
  ExpectRefused("GGUF", kLost, {"ends"});
}

// Each at its limit and one past it, as far as a small file can show it.
TEST_F(GgufTest, Limits) {
  Gguf name = Valid();
  name.tensors[0].name = std::string(1024, 't');
  EXPECT_TRUE(Open(name).ok());
  name.tensors[0].name += 't';
  ExpectRefused(name, kLimit, {"1025"});
  Gguf key = Valid();
  key.values.push_back(Value(std::string(1024, 'k'), GgufType::kU8, "x"));
  EXPECT_TRUE(Open(key).ok());
  Gguf alignment = Valid();
  alignment.tensors.clear();
  alignment.values = {Value("general.alignment", GgufType::kU32, Bytes<uint32_t>(1 << 20))};
  EXPECT_TRUE(Open(alignment).ok());
  alignment.values = {Value("general.alignment", GgufType::kU32, Bytes<uint32_t>(1 << 21))};
  ExpectRefused(alignment, kInvalid, {"2097152"});
}

// The file is sparse: counts that its length allows, and the limits do not.
TEST_F(GgufTest, LimitsOfCounts) {
  auto sparse = [this](const std::string& head, int64_t size) {
    const std::string path = Write(head);
    EXPECT_EQ(truncate(path.c_str(), size), 0);
    return OpenGguf(path).status();
  };
  const std::string start = "GGUF" + Bytes<uint32_t>(3);
  const int64_t size = int64_t{1} << 33;
  EXPECT_EQ(sparse(start + Bytes<uint64_t>((1 << 17) + 1) + Bytes<uint64_t>(0), size).code(),
            kLimit);
  EXPECT_EQ(sparse(start + Bytes<uint64_t>(0) + Bytes<uint64_t>((1 << 16) + 1), size).code(),
            kLimit);
  const std::string one_key = start + Bytes<uint64_t>(0) + Bytes<uint64_t>(1);
  EXPECT_EQ(sparse(one_key + Array("k", GgufType::kString, (1 << 22) + 1, ""), size).code(),
            kLimit);
  EXPECT_EQ(
      sparse(one_key + Value("k", GgufType::kString, Bytes<uint64_t>((16 << 20) + 1)), size).code(),
      kLimit);
  const std::string two_keys = start + Bytes<uint64_t>(0) + Bytes<uint64_t>(2);
  EXPECT_EQ(sparse(two_keys + Array("k", GgufType::kU8, uint64_t{1} << 32, ""), size).code(),
            kLimit);
}

}  // namespace
}  // namespace quire
