#include "convert/architecture.h"

#include <sys/stat.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "convert/fake_source.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

constexpr int kLayers = 2, kHeads = 4, kKvHeads = 2, kHeadDim = 6, kHidden = 24, kFfn = 40,
              kVocab = 50;

constexpr char kHfConfig[] = R"({"model_type": "llama", "hidden_size": 24, "intermediate_size": 40,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50)";
constexpr char kMetaParams[] = R"({"dim": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
  "norm_eps": 1e-5, "vocab_size": -1})";

std::string HfConfig(absl::string_view more = "") { return absl::StrCat(kHfConfig, more, "}"); }

int64_t Size(Dim dim) {
  switch (dim) {
    case Dim::kVocab:
      return kVocab;
    case Dim::kHidden:
      return kHidden;
    case Dim::kQuery:
      return kHeads * kHeadDim;
    case Dim::kKeyValue:
      return kKvHeads * kHeadDim;
    case Dim::kFfn:
      return kFfn;
    case Dim::kNone:
      break;
  }
  return 0;
}

const char* NameIn(const TensorNames& row, Naming naming) {
  return naming == Naming::kHuggingFace ? row.hugging_face
         : naming == Naming::kMeta      ? row.meta
                                        : row.gguf;
}

// Every tensor of a small model, last first, so that the plan's order is not the checkpoint's.
void AddModel(FakeSource& source, Naming naming, bool biases = false, std::string prefix = "") {
  const auto table = TensorNameTable();
  for (size_t i = table.size(); i-- > 0;) {
    const TensorNames& row = table[i];
    const std::string canonical = row.canonical;
    if (canonical.find(".b") != std::string::npos && !biases) continue;
    std::vector<int64_t> shape = {Size(row.rows)};
    if (row.cols != Dim::kNone) shape.push_back(Size(row.cols));
    const bool per_layer = canonical.find('*') != std::string::npos;
    for (int layer = 0; layer < (per_layer ? kLayers : 1); ++layer) {
      source.Add(prefix + absl::StrReplaceAll(NameIn(row, naming), {{"*", absl::StrCat(layer)}}),
                 shape);
    }
  }
}

void AddGgufMetadata(FakeSource& source, const std::string& architecture) {
  source.AddMetadata("general.architecture", absl::StrCat("\"", architecture, "\""));
  for (const auto& [key, value] : {std::pair<const char*, const char*>{"block_count", "2"},
                                   {"context_length", "512"},
                                   {"embedding_length", "24"},
                                   {"feed_forward_length", "40"},
                                   {"attention.head_count", "4"},
                                   {"attention.head_count_kv", "2"},
                                   {"attention.layer_norm_rms_epsilon", "1e-05"}}) {
    source.AddMetadata(absl::StrCat(architecture, ".", key), value);
  }
}

// A folder of this test's own, with a file in it or not.
class Architecture : public testing::Test {
 protected:
  Architecture() {
    folder_ = absl::StrCat(testing::TempDir(), "/arch_",
                           testing::UnitTest::GetInstance()->current_test_info()->name());
    mkdir(folder_.c_str(), 0755);
    std::remove((folder_ + "/config.json").c_str());
    std::remove((folder_ + "/params.json").c_str());
  }
  void Write(const char* name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  absl::StatusOr<ModelPlan> Plan(const TensorSource& source, std::string root = "") {
    return PlanModel(source, {folder_ + "/model.bin", "", std::move(root)});
  }
  void ExpectRefused(const TensorSource& source, absl::StatusCode code,
                     const std::vector<std::string>& words) {
    const absl::Status status = Plan(source).status();
    EXPECT_EQ(status.code(), code) << status;
    for (const std::string& word : words) {
      EXPECT_NE(std::string(status.message()).find(word), std::string::npos)
          << status << "\nlacks: " << word;
    }
  }
  std::string folder_;
};

std::vector<std::string> Names(const ModelPlan& plan) {
  std::vector<std::string> names;
  for (const CanonicalTensor& tensor : plan.tensors) names.push_back(tensor.name);
  return names;
}

const std::vector<std::string> kAllNames = {
    "embedding",       "layers.0.attn_norm", "layers.0.wq",        "layers.0.wk",
    "layers.0.wv",     "layers.0.wo",        "layers.0.ffn_norm",  "layers.0.w_gate",
    "layers.0.w_up",   "layers.0.w_down",    "layers.1.attn_norm", "layers.1.wq",
    "layers.1.wk",     "layers.1.wv",        "layers.1.wo",        "layers.1.ffn_norm",
    "layers.1.w_gate", "layers.1.w_up",      "layers.1.w_down",    "norm",
    "output"};

TEST_F(Architecture, HuggingFace) {
  FakeSource source;
  AddModel(source, Naming::kHuggingFace);
  Write("config.json", HfConfig());
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Names(*plan), kAllNames);
  EXPECT_TRUE(plan->left_out.empty());
  EXPECT_FALSE(plan->config.tied_embeddings());
  for (const CanonicalTensor& tensor : plan->tensors) {
    EXPECT_EQ(tensor.interleaved_heads, 0) << tensor.name;
    EXPECT_EQ(tensor.shape, source.tensors()[static_cast<size_t>(tensor.source)].shape);
  }
  EXPECT_EQ(source.tensors()[static_cast<size_t>(plan->tensors[9].source)].name,
            "model.layers.0.mlp.down_proj.weight");
  EXPECT_EQ(plan->tensors[9].shape, (std::vector<int64_t>{kHidden, kFfn}));
}

TEST_F(Architecture, FolderInsteadOfFile) {
  FakeSource source;
  AddModel(source, Naming::kHuggingFace);
  Write("config.json", HfConfig());
  EXPECT_TRUE(PlanModel(source, {folder_, "", ""}).ok());
  EXPECT_TRUE(PlanModel(source, {folder_ + "/", "", ""}).ok());
}

TEST_F(Architecture, MetaIsInterleavedAndTellsItsOpenSizes) {
  FakeSource source;
  AddModel(source, Naming::kMeta);
  source.Add("rope.freqs", {3});
  Write("params.json", kMetaParams);
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Names(*plan), kAllNames);
  EXPECT_EQ(plan->config.vocab_size(), 50u);
  EXPECT_EQ(plan->config.ffn_dim(), 40u);
  for (const CanonicalTensor& tensor : plan->tensors) {
    const bool q = absl::EndsWith(tensor.name, ".wq"), k = absl::EndsWith(tensor.name, ".wk");
    EXPECT_EQ(tensor.interleaved_heads, q ? kHeads : k ? kKvHeads : 0) << tensor.name;
  }
  ASSERT_EQ(plan->left_out.size(), 1u);
  EXPECT_EQ(plan->left_out[0].first, "rope.freqs");
}

TEST_F(Architecture, Llama2cDictionary) {
  FakeSource source;
  AddModel(source, Naming::kMeta, false, "model.");
  source.SetAlias("model.output.weight", 7);
  source.SetAlias("model.tok_embeddings.weight", 7);
  source.AddMetadata("iter_num", "1000");
  for (const auto& [key, value] : {std::pair<const char*, const char*>{"dim", "24"},
                                   {"n_layers", "2"},
                                   {"n_heads", "4"},
                                   {"n_kv_heads", "2"},
                                   {"max_seq_len", "256"},
                                   {"vocab_size", "50"}}) {
    source.AddMetadata(absl::StrCat("model_args.", key), value);
  }
  source.Add("optimizer.state.0.exp_avg", {4});
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->config.tied_embeddings());
  EXPECT_EQ(plan->config.context_tokens(), 256u);
  EXPECT_EQ(plan->tensors.size(), kAllNames.size() - 1);
  ASSERT_EQ(plan->left_out.size(), 2u);
  EXPECT_EQ(plan->left_out[0].first, "model.output.weight");
  EXPECT_EQ(plan->left_out[1].second, "training state");
}

TEST_F(Architecture, NestedHuggingFaceWithItsConfig) {
  FakeSource source;
  AddModel(source, Naming::kHuggingFace, false, "model.");
  for (const auto& [key, value] : {std::pair<const char*, const char*>{"model_type", "\"llama\""},
                                   {"hidden_size", "24"},
                                   {"intermediate_size", "40"},
                                   {"num_hidden_layers", "2"},
                                   {"num_attention_heads", "4"},
                                   {"num_key_value_heads", "2"},
                                   {"vocab_size", "50"},
                                   {"rope_scaling.type", "\"linear\""},
                                   {"rope_scaling.factor", "2.0"}}) {
    source.AddMetadata(absl::StrCat("config.", key), value);
  }
  Write("config.json", "{}");  // what lies inside comes first
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Names(*plan), kAllNames);
  EXPECT_EQ(plan->config.rope_scaling().factor(), 2.0);
}

TEST_F(Architecture, WrappersAreSeenThrough) {
  for (const char* prefix : {"module.", "_orig_mod.", "state_dict.", "module._orig_mod.",
                             "model._orig_mod.module.", "net.state_dict."}) {
    FakeSource source;
    AddModel(source, Naming::kHuggingFace, false, prefix);
    Write("config.json", HfConfig());
    const auto plan = Plan(source);
    ASSERT_TRUE(plan.ok()) << prefix << ": " << plan.status();
    EXPECT_EQ(Names(*plan), kAllNames);
  }
  FakeSource inside;
  AddModel(inside, Naming::kHuggingFace);
  inside.tensor("model.layers.1.mlp.up_proj.weight").name =
      "model.layers.1._fsdp_wrapped_module.mlp._orig_mod.up_proj.weight";
  EXPECT_TRUE(Plan(inside).ok()) << Plan(inside).status();
}

TEST_F(Architecture, Case57TwoModelsAskForARoot) {
  FakeSource source;
  AddModel(source, Naming::kHuggingFace, false, "model.");
  AddModel(source, Naming::kHuggingFace, false, "state_dict.");
  Write("config.json", HfConfig());
  ExpectRefused(source, absl::StatusCode::kInvalidArgument, {"'model'", "'state_dict'", "--root"});
  const auto plan = Plan(source, "state_dict");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(source.tensors()[static_cast<size_t>(plan->tensors[0].source)].name,
            "state_dict.model.embed_tokens.weight");
  EXPECT_EQ(plan->left_out.size(), kAllNames.size());
  EXPECT_EQ(Plan(source, "ema").status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(Architecture, TwoSpellingsOfOneTensorAreRefused) {
  FakeSource source;
  AddModel(source, Naming::kHuggingFace);
  source.Add("module.model.norm.weight", {kHidden});
  Write("config.json", HfConfig());
  ExpectRefused(source, absl::StatusCode::kInvalidArgument,
                {"two tensors", "module.model.norm.weight"});
}

TEST_F(Architecture, Qwen2HasBiases) {
  const std::string config =
      absl::StrReplaceAll(HfConfig(R"(, "tie_word_embeddings": true)"), {{"llama", "qwen2"}});
  Write("config.json", config);
  FakeSource source;
  AddModel(source, Naming::kHuggingFace, true);
  source.Remove("lm_head.weight");
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->config.tied_embeddings());
  EXPECT_EQ(plan->tensors[5].name, "layers.0.bq");
  EXPECT_EQ(plan->tensors[6].name, "layers.0.bk");
  EXPECT_EQ(plan->tensors[7].name, "layers.0.bv");
  EXPECT_EQ(plan->tensors.back().name, "norm");
  source.Remove("model.layers.1.self_attn.k_proj.bias");
  ExpectRefused(source, absl::StatusCode::kNotFound, {"model.layers.1.self_attn.k_proj.bias"});
}

TEST_F(Architecture, GgufLlamaIsInterleavedBiasesToo) {
  FakeSource source("gguf");
  AddGgufMetadata(source, "llama");
  AddModel(source, Naming::kGguf, true);
  source.Remove("output.weight");
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->config.tied_embeddings());
  EXPECT_EQ(plan->config.vocab_size(), 50u);
  EXPECT_EQ(plan->tensors[2].interleaved_heads, kHeads);    // wq
  EXPECT_EQ(plan->tensors[3].interleaved_heads, kKvHeads);  // wk
  EXPECT_EQ(plan->tensors[4].interleaved_heads, 0);         // wv
  EXPECT_EQ(plan->tensors[5].interleaved_heads, kHeads);    // bq
  EXPECT_EQ(plan->tensors[6].interleaved_heads, kKvHeads);  // bk
  EXPECT_EQ(plan->tensors[7].interleaved_heads, 0);         // bv
}

TEST_F(Architecture, GgufQwen2IsNotInterleaved) {
  FakeSource source("gguf");
  AddGgufMetadata(source, "qwen2");
  AddModel(source, Naming::kGguf, true);
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(plan->config.tied_embeddings());
  for (const CanonicalTensor& tensor : plan->tensors) EXPECT_EQ(tensor.interleaved_heads, 0);
}

TEST_F(Architecture, GgufRopeFactorsBecomeScaling) {
  FakeSource source("gguf");
  AddGgufMetadata(source, "llama");
  AddModel(source, Naming::kGguf);
  // Theta 10000 and three frequencies: wavelengths 6, 135, 2916; the last is interpolated.
  const double turns = 8192 / (2 * 3.14159265358979323846 * std::pow(10000.0, 2.0 / 3));
  const double smooth = (turns - 1) / 3;
  source.AddFloats("rope_freqs.weight", {3},
                   {1, 1, static_cast<float>(1 / ((1 - smooth) / 8 + smooth))});
  // The largest divisor is not the factor here, so that this is not Llama 3.1's.
  EXPECT_EQ(Plan(source).status().code(), absl::StatusCode::kUnimplemented);
  source.Remove("rope_freqs.weight");
  source.AddMetadata("llama.rope.freq_base", "500000.0");
  source.AddFloats("rope_freqs.weight", {3}, {1, 1, 8});
  const auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->config.rope_scaling().kind(), pb::RopeScaling::LLAMA3);
  EXPECT_EQ(plan->config.rope_scaling().factor(), 8.0);
  source.tensor("rope_freqs.weight").shape = {2};
  ExpectRefused(source, absl::StatusCode::kInvalidArgument, {"rope_freqs.weight", "[3]"});
}

TEST_F(Architecture, Case78VocabularyUnlikeTheEmbedding) {
  FakeSource source("gguf");
  AddGgufMetadata(source, "llama");
  source.AddMetadata("tokenizer.ggml.tokens", R"({"type":"string","length":51})");
  AddModel(source, Naming::kGguf);
  ExpectRefused(source, absl::StatusCode::kInvalidArgument,
                {"token_embd.weight", "[50, 24]", "51"});
}

TEST_F(Architecture, AnOutputThatEqualsTheEmbeddingIsStoredOnce) {
  FakeSource source;
  AddModel(source, Naming::kHuggingFace);
  Write("config.json", HfConfig());
  source.Remove("lm_head.weight");
  ExpectRefused(source, absl::StatusCode::kNotFound, {"lm_head.weight", "tied"});
  std::vector<uint8_t> bytes(kVocab * kHidden * 4);
  ASSERT_TRUE(source
                  .Read(source.IndexOf("model.embed_tokens.weight"), 0, kVocab * kHidden,
                        absl::MakeSpan(bytes))
                  .ok());
  source.Add("lm_head.weight", {kVocab, kHidden}, DType::kF32, bytes);
  auto plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->config.tied_embeddings());
  EXPECT_EQ(plan->tensors.size(), kAllNames.size() - 1);

  // Another matrix in the file comes before what the configuration says.
  Write("config.json", HfConfig(R"(, "tie_word_embeddings": true)"));
  source.Remove("lm_head.weight");
  bytes.back() ^= 1;
  source.Add("lm_head.weight", {kVocab, kHidden}, DType::kF32, bytes);
  plan = Plan(source);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_FALSE(plan->config.tied_embeddings());
  EXPECT_EQ(plan->tensors.back().name, "output");
}

TEST_F(Architecture, RefusesTensorsWithoutAPlace) {
  Write("config.json", HfConfig());
  for (const char* name :
       {"model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.o_proj.bias",
        "model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.gate_proj.weight_scale_inv",
        "model.layers.0.mlp.experts.0.up_proj.weight", "model.layers.2.input_layernorm.weight",
        "score.weight"}) {
    FakeSource source;
    AddModel(source, Naming::kHuggingFace);
    source.Add(name, {kHidden});
    ExpectRefused(source, absl::StatusCode::kUnimplemented, {name, "supported: llama"});
  }
  FakeSource old;
  AddModel(old, Naming::kHuggingFace);
  old.Add("model.layers.0.self_attn.rotary_emb.inv_freq", {3});
  ASSERT_TRUE(Plan(old).ok());
  EXPECT_EQ(Plan(old)->left_out.size(), 1u);
}

TEST_F(Architecture, NamesWhatIsMissingOrMisshapen) {
  Write("config.json", HfConfig());
  FakeSource source;
  AddModel(source, Naming::kHuggingFace);
  source.Remove("model.layers.1.self_attn.o_proj.weight");
  source.Remove("model.norm.weight");
  ExpectRefused(source, absl::StatusCode::kNotFound,
                {"model.layers.1.self_attn.o_proj.weight", "model.norm.weight", "config.json"});
  FakeSource shapes;
  AddModel(shapes, Naming::kHuggingFace);
  shapes.tensor("model.layers.1.self_attn.k_proj.weight").shape = {24, 24};
  ExpectRefused(shapes, absl::StatusCode::kInvalidArgument,
                {"model.layers.1.self_attn.k_proj.weight", "[24, 24]", "[12, 24]"});
  FakeSource layers;
  AddModel(layers, Naming::kHuggingFace);
  Write("config.json", absl::StrReplaceAll(HfConfig(), {{"\"num_hidden_layers\": 2",
                                                         "\"num_hidden_layers\": 4000"}}));
  ExpectRefused(layers, absl::StatusCode::kNotFound, {"model.layers.2.", "more"});
}

TEST_F(Architecture, RefusesIntegerWeights) {
  Write("config.json", HfConfig());
  FakeSource source;
  AddModel(source, Naming::kHuggingFace);
  source.tensor("model.layers.0.mlp.up_proj.weight").dtype = DType::kI8;
  ExpectRefused(source, absl::StatusCode::kUnimplemented,
                {"model.layers.0.mlp.up_proj.weight", "int8"});
}

TEST_F(Architecture, WithoutHyperparameters) {
  FakeSource source;
  AddModel(source, Naming::kHuggingFace);
  ExpectRefused(source, absl::StatusCode::kNotFound, {"config.json", "--config"});
  Write("other.json", HfConfig());
  EXPECT_TRUE(PlanModel(source, {"elsewhere/model.bin", folder_ + "/other.json", ""}).ok());
}

TEST_F(Architecture, OtherArchitecturesByName) {
  FakeSource gpt2;
  gpt2.Add("transformer.wte.weight", {kVocab, kHidden});
  gpt2.Add("transformer.h.0.attn.c_attn.weight", {kHidden, kHidden});
  ExpectRefused(gpt2, absl::StatusCode::kUnimplemented,
                {"transformer.wte.weight", "supported: llama"});
  Write("config.json", R"({"model_type": "gpt2", "n_embd": 24})");
  ExpectRefused(gpt2, absl::StatusCode::kUnimplemented, {"\"gpt2\" is not supported"});
  FakeSource empty;
  std::remove((folder_ + "/config.json").c_str());
  ExpectRefused(empty, absl::StatusCode::kUnimplemented, {"no tensors"});
}

// transformers' conversion from Meta's order: w.view(n, d / 2, 2, cols).transpose(1, 2).
TEST(SourceRow, UndoesTheInterleaving) {
  const CanonicalTensor tensor{"layers.0.wq", 0, {12, 5}, 2};
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 12; ++row) rows.push_back(SourceRow(tensor, row));
  EXPECT_EQ(rows, (std::vector<int64_t>{0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11}));
  const CanonicalTensor plain{"layers.0.wv", 0, {12, 5}, 0};
  for (int64_t row = 0; row < 12; ++row) EXPECT_EQ(SourceRow(plain, row), row);
}

TEST(TensorNameTable, IsInFileOrderWithoutDuplicates) {
  const auto table = TensorNameTable();
  EXPECT_STREQ(table.front().canonical, "embedding");
  EXPECT_STREQ(table[table.size() - 2].canonical, "norm");
  EXPECT_STREQ(table.back().canonical, "output");
  for (size_t i = 0; i < table.size(); ++i) {
    for (size_t j = i + 1; j < table.size(); ++j) {
      EXPECT_STRNE(table[i].canonical, table[j].canonical);
      EXPECT_STRNE(table[i].hugging_face, table[j].hugging_face);
      EXPECT_STRNE(table[i].meta, table[j].meta);
      EXPECT_STRNE(table[i].gguf, table[j].gguf);
    }
  }
}

}  // namespace
}  // namespace quire
