#include "quantize/scheme.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "format/packed_layout.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

struct Shape {
  const char* name;
  int n_layers;
  int64_t dim, kv_dim, ffn_dim;
  bool tied;
};
const Shape kShapes[] = {{"SmolLM2-135M", 30, 576, 192, 1536, true},
                         {"LLaMA-7B", 32, 4096, 4096, 11008, false},
                         {"Llama-3-8B", 32, 4096, 1024, 14336, false},
                         {"Qwen2.5-0.5B", 24, 896, 128, 4864, true},
                         {"one small layer", 1, 64, 32, 172, true}};

std::vector<SchemeTensor> TensorsOf(const Shape& s) {
  std::vector<SchemeTensor> tensors = {{{TensorRole::kEmbedding, -1}, 1000, s.dim}};
  for (int i = 0; i < s.n_layers; ++i) {
    const SchemeTensor layer[] = {
        {{TensorRole::kVector, i}, 1, s.dim},       {{TensorRole::kWq, i}, s.dim, s.dim},
        {{TensorRole::kWk, i}, s.kv_dim, s.dim},    {{TensorRole::kWv, i}, s.kv_dim, s.dim},
        {{TensorRole::kWo, i}, s.dim, s.dim},       {{TensorRole::kVector, i}, 1, s.dim},
        {{TensorRole::kGate, i}, s.ffn_dim, s.dim}, {{TensorRole::kUp, i}, s.ffn_dim, s.dim},
        {{TensorRole::kDown, i}, s.dim, s.ffn_dim}};
    tensors.insert(tensors.end(), std::begin(layer), std::end(layer));
  }
  tensors.push_back({{TensorRole::kVector, -1}, 1, s.dim});
  if (!s.tied) tensors.push_back({{TensorRole::kOutput, -1}, 1000, s.dim});
  return tensors;
}

double LayerBits(const std::vector<SchemeTensor>& tensors, const std::vector<Encoding>& encodings) {
  double bits = 0, weights = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name.layer < 0 || tensors[i].name.role == TensorRole::kVector) continue;
    bits += 8.0 * Geometry{encodings[i], Layout::kPanels, tensors[i].rows, tensors[i].cols}.bytes();
    weights += static_cast<double>(tensors[i].rows) * tensors[i].cols;
  }
  return bits / weights;
}

const Scheme& SchemeOf(absl::string_view name) { return **FindScheme(name); }

TEST(Schemes, KeepTheirBudgetAndUseIt) {
  for (const Shape& shape : kShapes) {
    const std::vector<SchemeTensor> tensors = TensorsOf(shape);
    for (const Scheme& scheme : Schemes()) {
      const std::vector<Encoding> encodings =
          ChooseEncodings(scheme, tensors, shape.n_layers, shape.tied);
      ASSERT_EQ(encodings.size(), tensors.size());
      const double bits = LayerBits(tensors, encodings);
      if (shape.n_layers > 1) {
        EXPECT_LE(bits, scheme.max_bits + 0.1 * (shape.dim < 500))
            << scheme.name << " " << shape.name;
        // What is left would not hold one more of the smallest matrices.
        EXPECT_GT(bits, scheme.max_bits - 0.05) << scheme.name << " " << shape.name;
      }
    }
  }
}

TEST(Schemes, EmbeddingOutputAndVectors) {
  for (const Shape& shape : kShapes) {
    const std::vector<SchemeTensor> tensors = TensorsOf(shape);
    for (const Scheme& scheme : Schemes()) {
      const std::vector<Encoding> encodings =
          ChooseEncodings(scheme, tensors, shape.n_layers, shape.tied);
      for (size_t i = 0; i < tensors.size(); ++i) {
        switch (tensors[i].name.role) {
          case TensorRole::kVector:
            EXPECT_EQ(encodings[i], Encoding::kF32);
            break;
          case TensorRole::kEmbedding:
            EXPECT_EQ(encodings[i], shape.tied ? scheme.output : scheme.embedding);
            break;
          case TensorRole::kOutput:
            EXPECT_EQ(encodings[i], scheme.output);
            break;
          default:
            EXPECT_TRUE(encodings[i] == scheme.layers || encodings[i] == scheme.kept);
        }
      }
    }
  }
}

// The first of the order are kept, up to the first that does not fit; a larger budget gets further.
TEST(Schemes, KeepsInOrder) {
  for (const Shape& shape : kShapes) {
    const std::vector<SchemeTensor> tensors = TensorsOf(shape);
    const auto kept_first = [&](const char* scheme) {
      const auto encodings = ChooseEncodings(SchemeOf(scheme), tensors, shape.n_layers, shape.tied);
      int n = 0;
      for (const TensorName& name : KeepOrder(shape.n_layers)) {
        for (size_t i = 0; i < tensors.size(); ++i) {
          if (tensors[i].name.role != name.role || tensors[i].name.layer != name.layer) continue;
          if (encodings[i] != Encoding::kQ8) return n;
        }
        ++n;
      }
      return n;
    };
    if (shape.n_layers == 1) continue;
    EXPECT_GT(kept_first("q4"), 3) << shape.name;
    EXPECT_GT(kept_first("q4_hq"), kept_first("q4")) << shape.name;
  }
}

TEST(Schemes, FindsByNameAndNamesThemOtherwise) {
  for (const char* name : {"q4", "q4_hq", "q4_0", "q8", "f16", "bf16", "f32"}) {
    ASSERT_TRUE(FindScheme(name).ok()) << name;
    EXPECT_STREQ((*FindScheme(name))->name, name);
  }
  for (const char* name : {"", "q5", "Q4", "q4 ", "source"}) {
    const auto scheme = FindScheme(name);
    EXPECT_EQ(scheme.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(scheme.status().message().find("q4, q4_hq, q4_0, q8, f16, bf16, f32"),
              std::string::npos);
  }
}

TEST(KeepOrder, HasEveryMatrixOnce) {
  for (int n_layers : {0, 1, 2, 3, 30}) {
    std::set<std::pair<TensorRole, int>> seen;
    for (const TensorName& name : KeepOrder(n_layers)) {
      EXPECT_TRUE(seen.insert({name.role, name.layer}).second);
      EXPECT_GE(name.layer, 0);
      EXPECT_LT(name.layer, n_layers);
    }
    EXPECT_EQ(seen.size(), 7u * n_layers);
  }
}

TEST(ParseTensorName, KnowsCanonicalNamesOnly) {
  const std::pair<const char*, TensorRole> kKnown[] = {
      {"wq", TensorRole::kWq},           {"wk", TensorRole::kWk},
      {"wv", TensorRole::kWv},           {"wo", TensorRole::kWo},
      {"w_gate", TensorRole::kGate},     {"w_up", TensorRole::kUp},
      {"w_down", TensorRole::kDown},     {"attn_norm", TensorRole::kVector},
      {"ffn_norm", TensorRole::kVector}, {"bq", TensorRole::kVector},
      {"bk", TensorRole::kVector},       {"bv", TensorRole::kVector}};
  for (int layer : {0, 9, 10, 126}) {
    for (const auto& [part, role] : kKnown) {
      const auto name = ParseTensorName(absl::StrCat("layers.", layer, ".", part));
      ASSERT_TRUE(name.ok()) << part;
      EXPECT_EQ(name->role, role);
      EXPECT_EQ(name->layer, layer);
    }
  }
  EXPECT_EQ(ParseTensorName("embedding")->role, TensorRole::kEmbedding);
  EXPECT_EQ(ParseTensorName("output")->role, TensorRole::kOutput);
  EXPECT_EQ(ParseTensorName("norm")->role, TensorRole::kVector);
  for (const char* bad :
       {"", "layers", "layers.", "layers.0", "layers.0.", "layers..wq", "layers.-1.wq",
        "layers.+1.wq", "layers.01.wq", "layers. 1.wq", "layers.99999999999.wq",
        "layers.0.wq.weight", "layers.0.wz", "wq", "Embedding", "model.norm"}) {
    EXPECT_EQ(ParseTensorName(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace quire
