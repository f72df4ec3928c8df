#include "quantize/quantize_file.h"

#include <xxhash.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/manifest_check.h"
#include "format/packed_layout.h"
#include "format/test_model.h"
#include "format/writer.h"
#include "gtest/gtest.h"
#include "quantize/encode.h"

namespace quire {
namespace {

ModelFile OpenOrDie(const std::string& path) {
  absl::StatusOr<ModelFile> model = ModelFile::Open(path);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    abort();
  }
  return *std::move(model);
}

std::string TempPath(const char* name) { return absl::StrCat(testing::TempDir(), "/", name); }

// Row-major values of a tensor.
std::vector<float> Decode(const TensorView& tensor) {
  const Geometry& g = tensor.geometry;
  std::vector<float> unit(g.unit_rows() * g.padded_cols(), NAN), values;
  for (int64_t u = 0; u < g.units(); ++u) {
    DecodeUnit(g, tensor.codebook, tensor.data, u, unit.data());
    for (int64_t r = 0; r < std::min(g.unit_rows(), g.rows - u * g.unit_rows()); ++r) {
      values.insert(values.end(), unit.begin() + r * g.padded_cols(),
                    unit.begin() + r * g.padded_cols() + g.cols);
    }
  }
  return values;
}

// The tiny test model with every tensor f32 and Gaussian values, but for `spoiled`, whose value
// `at` becomes `value`.
std::string WriteFloatModel(const char* name, int spoiled = -1, int64_t at = 0, float value = 0) {
  const std::string path = TempPath(name);
  pb::Manifest manifest = TestManifest();
  ClearCodebooks(&manifest);
  for (pb::TensorEntry& entry : *manifest.mutable_tensors()) {
    entry.set_encoding(pb::ENCODING_F32);
    entry.clear_codebook();
  }
  absl::StatusOr<std::unique_ptr<FileWriter>> writer = FileWriter::Create(path, manifest, "", true);
  EXPECT_TRUE(writer.ok()) << writer.status();
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.05f);
  for (int i = 0; i < manifest.tensors_size(); ++i) {
    const Geometry g = GeometryOf((*writer)->manifest().tensors(i));
    std::vector<float> values(g.rows * g.cols);
    for (float& v : values) v = normal(random);
    if (i == spoiled) values[at] = value;
    std::vector<uint8_t> bytes(g.bytes());
    EncodingError error;
    for (int64_t u = 0; u < g.units(); ++u) {
      const int64_t row = u * g.unit_rows();
      EncodeUnit(g, nullptr, nullptr, values.data() + row * g.cols,
                 std::min(g.unit_rows(), g.rows - row), bytes.data() + u * g.unit_bytes(), &error);
    }
    EXPECT_TRUE((*writer)->Append(bytes).ok());
  }
  const absl::Status status = (*writer)->Finish();
  EXPECT_TRUE(status.ok()) << status;
  return path;
}

struct Quantized {
  absl::Status status;
  std::vector<QuantizedTensor> tensors;
};
Quantized Quantize(const std::string& from, const std::string& to, const char* type,
                   const std::vector<std::string>& keep = {}, int threads = 2,
                   int64_t memory_budget = 64 << 20) {
  absl::StatusOr<ModelFile> source = ModelFile::Open(from);
  if (!source.ok()) return {source.status(), {}};
  std::vector<KeepRule> rules;
  for (const std::string& text : keep) {
    absl::StatusOr<KeepRule> rule = ParseKeepRule(text);
    if (!rule.ok()) return {rule.status(), {}};
    rules.push_back(*rule);
  }
  absl::StatusOr<pb::Manifest> plan = PlanQuantization(*source, **FindScheme(type), rules);
  if (!plan.ok()) return {plan.status(), {}};
  ThreadPool pool(threads);
  int64_t last = 0;
  absl::StatusOr<std::vector<QuantizedTensor>> tensors =
      QuantizeFile(*source, *plan, to, true, memory_budget, pool, [&](int64_t done) {
        EXPECT_GT(done, last);
        last = done;
      });
  if (!tensors.ok()) return {tensors.status(), {}};
  return {absl::OkStatus(), *std::move(tensors)};
}

TEST(QuantizeFile, EveryTypeKeepsTheValues) {
  const std::string from = WriteFloatModel("source.quire");
  const ModelFile source = OpenOrDie(from);
  for (const auto& [type, bound] : std::vector<std::pair<const char*, double>>{{"q4", 0.11},
                                                                               {"q4_hq", 0.11},
                                                                               {"q4_0", 0.13},
                                                                               {"q8", 0.008},
                                                                               {"f16", 3e-4},
                                                                               {"bf16", 3e-3},
                                                                               {"f32", 0}}) {
    const std::string to = TempPath("to.quire");
    const Quantized q = Quantize(from, to, type);
    ASSERT_TRUE(q.status.ok()) << q.status;
    const ModelFile model = OpenOrDie(to);
    ASSERT_TRUE(model.Verify([](int64_t) {}).ok()) << type;
    EXPECT_EQ(model.manifest().scheme(), type);
    EXPECT_EQ(model.config().SerializeAsString(), source.config().SerializeAsString());
    ASSERT_EQ(model.tensors().size(), source.tensors().size());
    for (size_t i = 0; i < model.tensors().size(); ++i) {
      const TensorView &a = source.tensors()[i], &b = model.tensors()[i];
      EXPECT_EQ(a.name, b.name);
      EXPECT_EQ(a.shape, b.shape);
      const std::vector<float> x = Decode(a), y = Decode(b);
      double error = 0, norm = 0;
      for (size_t k = 0; k < x.size(); ++k) {
        error += std::pow(static_cast<double>(x[k]) - y[k], 2);
        norm += std::pow(static_cast<double>(x[k]), 2);
      }
      EXPECT_LE(std::sqrt(error / norm), bound) << type << " " << a.name;
      EXPECT_NEAR(q.tensors[i].relative_rms_error, std::sqrt(error / norm), 1e-6);
      if (b.shape.size() == 1) {
        EXPECT_EQ(b.geometry.encoding, Encoding::kF32);
      }
    }
  }
}

TEST(QuantizeFile, CarriesTensorsThatHaveTheEncodingAlready) {
  const std::string from = TempPath("test_model.quire"), to = TempPath("carried.quire");
  WriteTestModel(from);
  const Quantized q = Quantize(from, to, "q4", {"layers.0.w_up=f32", "layers.0.wk=q4_0"});
  ASSERT_TRUE(q.status.ok()) << q.status;
  const ModelFile source = OpenOrDie(from), model = OpenOrDie(to);
  int carried = 0;
  for (size_t i = 0; i < model.tensors().size(); ++i) {
    const TensorView &a = source.tensors()[i], &b = model.tensors()[i];
    EXPECT_EQ(q.tensors[i].carried, a.geometry.encoding == b.geometry.encoding) << a.name;
    if (!q.tensors[i].carried) continue;
    ++carried;
    ASSERT_EQ(a.bytes, b.bytes);
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes), 0) << a.name;
    if (a.codebook != nullptr) {
      EXPECT_EQ(std::memcmp(a.codebook, b.codebook, Info(a.geometry.encoding).codebook_size), 0);
    }
  }
  EXPECT_GE(carried, 7);  // vectors, and matrices of the types that stay
  EXPECT_EQ(model.LoadTokenizer()->SerializeAsString(),
            source.LoadTokenizer()->SerializeAsString());
}

TEST(QuantizeFile, BytesDoNotDependOnThreadsOrBudget) {
  const std::string from = WriteFloatModel("source.quire"), to = TempPath("threads.quire");
  ASSERT_TRUE(Quantize(from, to, "q4", {}, 1).status.ok());
  const std::string one = ReadFileOrDie(to);
  ASSERT_TRUE(Quantize(from, to, "q4", {}, 4).status.ok());
  EXPECT_TRUE(ReadFileOrDie(to) == one);
  ASSERT_TRUE(Quantize(from, to, "q4", {}, 2, 20000).status.ok());
  EXPECT_TRUE(ReadFileOrDie(to) == one);
}

TEST(QuantizeFile, LaterRulesHold) {
  const std::string from = WriteFloatModel("source.quire"), to = TempPath("rules.quire");
  ASSERT_TRUE(
      Quantize(from, to, "q4", {"*=bf16", "layers.*.w_*=q4_0", "layers.0.w_up=q8"}).status.ok());
  const ModelFile model = OpenOrDie(to);
  EXPECT_EQ(model.Find("embedding")->geometry.encoding, Encoding::kBF16);
  EXPECT_EQ(model.Find("layers.0.wq")->geometry.encoding, Encoding::kBF16);
  EXPECT_EQ(model.Find("layers.0.w_down")->geometry.encoding, Encoding::kQ4_0);
  EXPECT_EQ(model.Find("layers.0.w_up")->geometry.encoding, Encoding::kQ8);
  EXPECT_EQ(model.Find("layers.0.attn_norm")->geometry.encoding, Encoding::kF32);
}

TEST(QuantizeFile, RefusesRulesThatMeanNothing) {
  const std::string from = WriteFloatModel("source.quire"), to = TempPath("refused.quire");
  for (const char* rule : {"", "=q8", "layers.0.wq", "layers.0.wq=", "layers.0.wq=q7",
                           "layers.0.wq=Q8", "layers.9.wq=q8", "wq=q8", "*norm=f16"}) {
    EXPECT_EQ(Quantize(from, to, "q4", {rule}).status.code(), absl::StatusCode::kInvalidArgument)
        << rule;
  }
  EXPECT_FALSE(ModelFile::Open(to).ok());
}

TEST(QuantizeFile, RefusesValuesThatAreNotFinite) {
  const std::string to = TempPath("nan.quire");
  for (float bad : {NAN, INFINITY}) {
    const std::string from = WriteFloatModel("spoiled.quire", 2, 7, bad);
    const absl::Status status = Quantize(from, to, "q4").status;
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(status.message().find("tensor \"layers.0.wq\": row 0, column 7"), std::string::npos)
        << status;
    EXPECT_FALSE(ModelFile::Open(to).ok());
  }
}

// Found by fuzzing: what was carried over made a file that did not verify.
TEST(QuantizeFile, RefusesCarriedScalesThatAreNotFinite) {
  const std::string from = TempPath("scales.quire"), to = TempPath("carried_scales.quire");
  ASSERT_TRUE(Quantize(WriteFloatModel("source.quire"), from, "q4_0").status.ok());
  std::string bytes = ReadFileOrDie(from);
  pb::Manifest manifest = ManifestOf(bytes);
  for (pb::TensorEntry& entry : *manifest.mutable_tensors()) {
    if (entry.name() != "layers.0.w_up") continue;
    bytes[entry.offset() + 1] = 0x7c;  // infinity
    entry.set_xxh3(XXH3_64bits(&bytes[entry.offset()], entry.bytes()));
  }
  WriteFileOrDie(from, WithManifest(bytes, manifest.SerializeAsString()));
  const absl::Status status = Quantize(from, to, "q4_0").status;
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("tensor \"layers.0.w_up\": a scale near row 0"),
            std::string::npos)
      << status;
  EXPECT_FALSE(ModelFile::Open(to).ok());
}

TEST(QuantizeFile, FindsDamage) {
  const std::string from = WriteFloatModel("damaged.quire"), to = TempPath("undamaged.quire");
  int64_t offset;
  {
    const ModelFile source = OpenOrDie(from);
    offset = source.Find("layers.0.wo")->offset;
  }
  std::string bytes = ReadFileOrDie(from);
  bytes[offset + 5] ^= 1;
  WriteFileOrDie(from, bytes);
  for (const char* type : {"q4", "f32"}) {  // encoded, carried over
    const absl::Status status = Quantize(from, to, type).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_NE(status.message().find("layers.0.wo"), std::string::npos) << status;
    EXPECT_FALSE(ModelFile::Open(to).ok());
  }
}

TEST(QuantizeFile, RefusesABudgetThatIsTooSmall) {
  const std::string from = WriteFloatModel("source.quire"), to = TempPath("budget.quire");
  const absl::Status status = Quantize(from, to, "q4", {}, 2, 1000).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(ModelFile::Open(to).ok());
}

}  // namespace
}  // namespace quire
