#include "quantize/scheme.h"

#include <algorithm>
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
const Shape kShapes[] = {
    {"SmolLM2-135M", 30, 576, 192, 1536, true},     {"LLaMA-7B", 32, 4096, 4096, 11008, false},
    {"Llama-3-8B", 32, 4096, 1024, 14336, false},   {"Qwen2.5-0.5B", 24, 896, 128, 4864, true},
    {"TinyLlama-1.1B", 22, 2048, 256, 5632, false}, {"Llama-3-70B", 80, 8192, 1024, 28672, false},
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

TEST(Schemes, KeepTheirBudgetAndUseIt) {
  for (const Shape& shape : kShapes) {
    const std::vector<SchemeTensor> tensors = TensorsOf(shape);
    for (const Scheme& scheme : Schemes()) {
      const std::vector<Encoding> encodings =
          ChooseEncodings(scheme, tensors, shape.n_layers, shape.tied);
      ASSERT_EQ(encodings.size(), tensors.size());
      const double bits = LayerBits(tensors, encodings);
      if (shape.n_layers > 1) {
        EXPECT_LE(bits, scheme.max_bits) << scheme.name << " " << shape.name;
        // What is left would not hold one step of the smallest matrix.
        EXPECT_GT(bits, scheme.max_bits - 0.01) << scheme.name << " " << shape.name;
      }
    }
  }
}

TEST(Schemes, AnyBudgetIsKeptAndUsed) {
  for (const Shape& shape : kShapes) {
    if (shape.n_layers == 1) continue;
    const std::vector<SchemeTensor> tensors = TensorsOf(shape);
    for (double target = 4.4; target <= 9; target += 0.37) {
      const absl::StatusOr<Scheme> scheme = SchemeFor("q4", target);
      ASSERT_TRUE(scheme.ok());
      const std::vector<Encoding> encodings =
          ChooseEncodings(*scheme, tensors, shape.n_layers, shape.tied);
      EXPECT_EQ(encodings, ChooseEncodings(*scheme, tensors, shape.n_layers, shape.tied));
      const double bits = LayerBits(tensors, encodings);
      EXPECT_LE(bits, target) << shape.name;
      EXPECT_GT(bits, std::min(target, 8.5) - 0.05) << shape.name << " " << target;
    }
  }
}

TEST(Schemes, WhatIsKeptCountsTowardsTheBudget) {
  for (const Shape& shape : kShapes) {
    if (shape.n_layers == 1) continue;
    std::vector<SchemeTensor> tensors = TensorsOf(shape);
    for (SchemeTensor& tensor : tensors) {
      if (tensor.name.role == TensorRole::kGate) tensor.kept = Encoding::kQ6;
    }
    const std::vector<Encoding> encodings =
        ChooseEncodings(*SchemeFor("q4", 5.2), tensors, shape.n_layers, shape.tied);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].kept.has_value()) {
        EXPECT_EQ(encodings[i], Encoding::kQ6);
      }
    }
    EXPECT_LE(LayerBits(tensors, encodings), 5.2) << shape.name;
    EXPECT_GT(LayerBits(tensors, encodings), 5.15) << shape.name;
  }
}

// A measured sensitivity takes the place of the prior.
TEST(Schemes, GivenSensitivitiesDecide) {
  const Shape& shape = kShapes[0];
  const std::vector<SchemeTensor> tensors = TensorsOf(shape);
  std::vector<double> sensitivities(tensors.size(), 1e-6);
  size_t wanted = 0;
  while (tensors[wanted].name.role != TensorRole::kGate || tensors[wanted].name.layer != 17)
    ++wanted;
  const Scheme& q4 = **FindScheme("q4");
  EXPECT_EQ(ChooseEncodings(q4, tensors, shape.n_layers, true)[wanted], Encoding::kQ4);
  sensitivities[wanted] = 1;
  EXPECT_EQ(ChooseEncodings(q4, tensors, shape.n_layers, true, sensitivities)[wanted],
            Encoding::kQ8);
}

TEST(Schemes, TargetBitsAreRefusedWhereTheyMeanNothing) {
  EXPECT_EQ(SchemeFor("q8", 5).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SchemeFor("source", 5).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Schemes, TargetBitsDecideForEmbeddingAndOutput) {
  EXPECT_EQ(SchemeFor("q4_hq", 0)->max_bits, 5.0);
  for (const char* name : {"q4", "q4_hq"}) {
    EXPECT_EQ(SchemeFor(name, 4.99)->max_bits, 4.99);
    EXPECT_EQ(SchemeFor(name, 4.99)->output, Encoding::kQ6);
    EXPECT_EQ(SchemeFor(name, 5)->output, Encoding::kQ8);
    EXPECT_EQ(SchemeFor(name, 8)->embedding, Encoding::kQ8);
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
            EXPECT_TRUE(scheme.mixed || encodings[i] == scheme.layers);
        }
      }
    }
  }
}

// What was found sensitive in every model: values, and the last layer's w_down.
TEST(Schemes, SensitiveMatricesGetMoreBits) {
  for (const Shape& shape : kShapes) {
    if (shape.n_layers == 1) continue;
    const std::vector<SchemeTensor> tensors = TensorsOf(shape);
    const auto encodings = ChooseEncodings(**FindScheme("q4"), tensors, shape.n_layers, shape.tied);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorName& name = tensors[i].name;
      const bool last_down = name.role == TensorRole::kDown && name.layer == shape.n_layers - 1;
      if (name.role == TensorRole::kWv || last_down) {
        EXPECT_NE(encodings[i], Encoding::kQ4) << shape.name << " layer " << name.layer;
      }
    }
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
