#include "convert/hyperparameters.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/fake_source.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using nlohmann::json;
using Biases = Hyperparameters::Biases;

json LlamaConfig() {
  return {{"model_type", "llama"},      {"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 64},          {"intermediate_size", 172},
          {"num_hidden_layers", 5},     {"num_attention_heads", 8},
          {"num_key_value_heads", 4},   {"vocab_size", 512},
          {"rms_norm_eps", 1e-5},       {"max_position_embeddings", 4096},
          {"tie_word_embeddings", true}};
}

json With(json config, const char* key, json value) {
  config[key] = std::move(value);
  return config;
}

absl::StatusOr<Hyperparameters> ParseHf(const json& config) {
  return ParseHuggingFaceConfig(config.dump(), "config.json");
}
absl::StatusOr<Hyperparameters> ParseMeta(const json& params) {
  return ParseMetaParams(params.dump(), "params.json");
}

void ExpectRefused(const absl::StatusOr<Hyperparameters>& result, absl::StatusCode code,
                   absl::string_view words) {
  EXPECT_EQ(result.status().code(), code) << result.status();
  EXPECT_NE(std::string(result.status().message()).find(std::string(words)), std::string::npos)
      << result.status() << "\nlacks: " << words;
}

TEST(HuggingFaceConfig, Llama) {
  const auto result = ParseHf(LlamaConfig());
  ASSERT_TRUE(result.ok()) << result.status();
  const pb::ModelConfig& config = result->config;
  EXPECT_EQ(config.architecture(), "llama");
  EXPECT_EQ(config.n_layers(), 5u);
  EXPECT_EQ(config.n_heads(), 8u);
  EXPECT_EQ(config.n_kv_heads(), 4u);
  EXPECT_EQ(config.head_dim(), 8u);
  EXPECT_EQ(config.hidden_dim(), 64u);
  EXPECT_EQ(config.ffn_dim(), 172u);
  EXPECT_EQ(config.vocab_size(), 512u);
  EXPECT_EQ(config.context_tokens(), 4096u);
  EXPECT_EQ(config.norm_eps(), 1e-5f);
  EXPECT_EQ(config.rope_theta(), 10000.0);
  EXPECT_EQ(config.rope_scaling().kind(), pb::RopeScaling::NONE);
  EXPECT_TRUE(config.tied_embeddings());
  EXPECT_EQ(config.sliding_window(), 0u);
  EXPECT_EQ(result->biases, Biases::kNone);
}

TEST(HuggingFaceConfig, AbsentSettingsHaveTheDefaultsOfTheirClass) {
  json config = LlamaConfig();
  for (const char* key : {"num_key_value_heads", "rms_norm_eps", "max_position_embeddings",
                          "tie_word_embeddings", "architectures", "vocab_size"}) {
    config.erase(key);
  }
  auto llama = ParseHf(config);
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_EQ(llama->config.n_kv_heads(), 8u);
  EXPECT_EQ(llama->config.norm_eps(), 1e-6f);
  EXPECT_EQ(llama->config.context_tokens(), 2048u);
  EXPECT_FALSE(llama->config.tied_embeddings());
  EXPECT_EQ(llama->config.vocab_size(), 0u);  // the embedding tells

  config["model_type"] = "mistral";
  auto mistral = ParseHf(config);
  ASSERT_TRUE(mistral.ok()) << mistral.status();
  EXPECT_EQ(mistral->config.n_kv_heads(), 8u);
  EXPECT_EQ(mistral->config.context_tokens(), 131072u);
  EXPECT_EQ(mistral->config.sliding_window(), 4096u);

  config["model_type"] = "qwen2";
  config["num_attention_heads"] = 32;
  auto qwen2 = ParseHf(config);
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_EQ(qwen2->config.n_kv_heads(), 32u);
  EXPECT_EQ(qwen2->biases, Biases::kRequired);
}

TEST(HuggingFaceConfig, AHeadSizeOfItsOwn) {
  const auto result = ParseHf(With(LlamaConfig(), "head_dim", 32));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->config.head_dim(), 32u);
}

TEST(HuggingFaceConfig, SlidingWindowOfMistral) {
  json config = LlamaConfig();
  config["model_type"] = "mistral";
  config["architectures"] = {"MistralForCausalLM"};
  EXPECT_EQ(ParseHf(With(config, "sliding_window", 1024))->config.sliding_window(), 1024u);
  EXPECT_EQ(ParseHf(With(config, "sliding_window", nullptr))->config.sliding_window(), 0u);
  // Llama's class has no such setting.
  EXPECT_EQ(ParseHf(With(LlamaConfig(), "sliding_window", 1024))->config.sliding_window(), 0u);
  ExpectRefused(ParseHf(With(config, "sliding_window", -1)), absl::StatusCode::kInvalidArgument,
                "sliding window is -1");
}

TEST(HuggingFaceConfig, SlidingWindowOfQwen2) {
  json config = LlamaConfig();
  config["model_type"] = "qwen2";
  config["architectures"] = {"Qwen2ForCausalLM"};
  config["sliding_window"] = 32768;
  config["use_sliding_window"] = false;
  config["max_window_layers"] = 2;
  EXPECT_EQ(ParseHf(config)->config.sliding_window(), 0u);
  config["use_sliding_window"] = true;
  ExpectRefused(ParseHf(config), absl::StatusCode::kUnimplemented, "use_sliding_window");
  config["max_window_layers"] = 5;  // no layer is left for it
  EXPECT_TRUE(ParseHf(config).ok());
  config["layer_types"] = {"full_attention", "sliding_attention"};
  ExpectRefused(ParseHf(config), absl::StatusCode::kUnimplemented, "sliding_attention");
}

TEST(HuggingFaceConfig, RopeScalingBeforeTransformers5) {
  json config = LlamaConfig();
  config["rope_theta"] = 500000.0;
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  auto linear = ParseHf(config);
  ASSERT_TRUE(linear.ok()) << linear.status();
  EXPECT_EQ(linear->config.rope_theta(), 500000.0);
  EXPECT_EQ(linear->config.rope_scaling().kind(), pb::RopeScaling::LINEAR);
  EXPECT_EQ(linear->config.rope_scaling().factor(), 4.0);

  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8192}};
  auto llama3 = ParseHf(config);
  ASSERT_TRUE(llama3.ok()) << llama3.status();
  EXPECT_EQ(llama3->config.rope_scaling().kind(), pb::RopeScaling::LLAMA3);
  EXPECT_EQ(llama3->config.rope_scaling().factor(), 8.0);
  EXPECT_EQ(llama3->config.rope_scaling().low_freq_factor(), 1.0);
  EXPECT_EQ(llama3->config.rope_scaling().high_freq_factor(), 4.0);
  EXPECT_EQ(llama3->config.rope_scaling().original_context_tokens(), 8192u);

  config["rope_scaling"].erase("original_max_position_embeddings");
  ExpectRefused(ParseHf(config), absl::StatusCode::kInvalidArgument,
                "original_max_position_embeddings");
  config["rope_scaling"] = nullptr;
  EXPECT_EQ(ParseHf(config)->config.rope_scaling().kind(), pb::RopeScaling::NONE);
}

TEST(HuggingFaceConfig, RopeParametersOfTransformers5) {
  json config = LlamaConfig();
  config["rope_parameters"] = {{"rope_theta", 20000.0}, {"rope_type", "default"}};
  EXPECT_EQ(ParseHf(config)->config.rope_theta(), 20000.0);
  config["rope_parameters"] = {
      {"rope_theta", 500000.0},  {"rope_type", "llama3"},
      {"factor", 32.0},          {"low_freq_factor", 1.0},
      {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  auto llama3 = ParseHf(config);
  ASSERT_TRUE(llama3.ok()) << llama3.status();
  EXPECT_EQ(llama3->config.rope_theta(), 500000.0);
  EXPECT_EQ(llama3->config.rope_scaling().factor(), 32.0);
  config["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e6}}}};
  ExpectRefused(ParseHf(config), absl::StatusCode::kUnimplemented, "full_attention");
}

TEST(HuggingFaceConfig, OtherArchitecturesAreRefusedByName) {
  for (const char* type : {"gpt2", "gemma2", "qwen3", "mixtral", "phi3", "smollm3", "llama4"}) {
    json config = LlamaConfig();
    config["model_type"] = type;
    config.erase("architectures");
    ExpectRefused(ParseHf(config), absl::StatusCode::kUnimplemented,
                  absl::StrCat("\"", type, "\" is not supported; supported: llama"));
  }
  ExpectRefused(ParseHf(With(LlamaConfig(), "architectures", {"LlamaForSequenceClassification"})),
                absl::StatusCode::kUnimplemented, "LlamaForSequenceClassification");
  json config = LlamaConfig();
  config.erase("model_type");
  EXPECT_TRUE(ParseHf(config).ok());  // the class tells
  config.erase("architectures");
  ExpectRefused(ParseHf(config), absl::StatusCode::kInvalidArgument, "model_type");
}

TEST(HuggingFaceConfig, SettingsThatAreNotComputedAreRefusedByName) {
  const std::pair<const char*, json> settings[] = {
      {"hidden_act", "gelu"},
      {"attention_bias", true},
      {"mlp_bias", true},
      {"partial_rotary_factor", 0.5},
      {"num_local_experts", 8},
      {"no_rope_layers", {1, 1, 1, 0}},
      {"use_qk_norm", true},
      {"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}},
      {"rope_scaling", {{"rope_type", "longrope"}}},
      {"rope_parameters", {{"partial_rotary_factor", 0.25}}},
  };
  for (const auto& [key, value] : settings) {
    const absl::string_view word =
        value.is_object() && value.contains("rope_type") ? "rope type" : key;
    ExpectRefused(ParseHf(With(LlamaConfig(), key, value)), absl::StatusCode::kUnimplemented, word);
  }
  // Packed weights are for PlanModel to refuse, where nobody has unpacked them.
  EXPECT_EQ(
      ParseHf(With(LlamaConfig(), "quantization_config", {{"quant_method", "gptq"}}))->quantization,
      "\"gptq\"");
  // Their neutral values are not.
  for (const char* key : {"attention_bias", "mlp_bias", "use_qk_norm"}) {
    EXPECT_TRUE(ParseHf(With(LlamaConfig(), key, false)).ok()) << key;
  }
  EXPECT_TRUE(ParseHf(With(LlamaConfig(), "partial_rotary_factor", 1.0)).ok());
  EXPECT_TRUE(ParseHf(With(LlamaConfig(), "num_local_experts", 0)).ok());
}

TEST(HuggingFaceConfig, MalformedValuesAreNamed) {
  const std::pair<const char*, json> settings[] = {
      {"hidden_size", "64"},
      {"hidden_size", 64.5},
      {"hidden_size", nullptr},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", 1e9},
      {"num_attention_heads", 0},
      {"num_attention_heads", -8},
      {"num_attention_heads", 7},
      {"num_key_value_heads", 3},
      {"num_key_value_heads", 0},
      {"num_key_value_heads", 16},
      {"head_dim", 7},
      {"head_dim", -2},
      {"head_dim", 9e15},
      {"intermediate_size", -1},
      {"vocab_size", 9e15},
      {"rms_norm_eps", 0},
      {"rms_norm_eps", "small"},
      {"rope_theta", 0},
      {"rope_theta", -1e4},
      {"tie_word_embeddings", "yes"},
      {"architectures", "Llama"},
      {"architectures", {1}},
      {"rope_scaling", "linear"},
      {"rope_scaling", {{"type", "linear"}}},
      {"rope_scaling", {{"type", "linear"}, {"factor", 0}}},
      {"max_position_embeddings", 0},
  };
  for (const auto& [key, value] : settings) {
    const auto result = ParseHf(With(LlamaConfig(), key, value));
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument)
        << key << " = " << value << ": " << result.status();
    EXPECT_EQ(result.status().message().substr(0, 12), "config.json:") << result.status();
    EXPECT_EQ(result.status().message().find('\n'), absl::string_view::npos);
  }
  const std::pair<const char*, const char*> texts[] = {
      {" \n", "x: an empty file"},
      {"[]", "x: not a JSON object"},
      {"null", "x: not a JSON object"},
      {"{", "x: not a JSON object: parse error at line 1, column 2"},
      {"{\"hidden_size\":\n }", "line 2, column 2: syntax error"},
      {"{\"a\": NaN}", "last read: '\"a\": N'"},
      {"<html>", "column 1: syntax error"},
      {"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"}};
  for (const auto& [text, words] : texts)
    ExpectRefused(ParseConfig(text, "x"), absl::StatusCode::kInvalidArgument, words);
}

TEST(HuggingFaceConfig, ProductsAreCheckedAfterTheirFactors) {
  const auto heads = [](double n_heads, double head_dim) {
    const json config =
        With(With(LlamaConfig(), "num_attention_heads", n_heads), "head_dim", head_dim);
    return ParseHf(With(config, "num_key_value_heads", n_heads));
  };
  constexpr auto kCode = absl::StatusCode::kInvalidArgument;
  ExpectRefused(heads(0x1p53, 0x1p53), kCode, "number of heads is 9007199254740992");
  ExpectRefused(heads(8, 0x1p53), kCode, "head size is 9007199254740992");
  ExpectRefused(heads(0x1p24, 0x1p24), kCode,
                "size of all heads is 281474976710656, not 2 to 16777216");
  ExpectRefused(ParseHf(With(LlamaConfig(), "vocab_size", -2)), kCode,
                "vocabulary is -2, not 1 to 16777216");
}

TEST(HuggingFaceConfig, DeepNestingIsHarmless) {
  const std::string deep =
      absl::StrCat("{\"a\":", std::string(100000, '['), std::string(100000, ']'), "}");
  constexpr auto kCode = absl::StatusCode::kResourceExhausted;
  ExpectRefused(ParseConfig(deep, "x"), kCode, "x: JSON nested deeper than 100");
  ExpectRefused(ParseConfig(std::string(100000, '['), "x"), kCode, "nested deeper than 100");
  // In a string they are text.
  ExpectRefused(ParseConfig("{\"a\":\"\\\"" + std::string(100000, '[') + "\"}", "x"),
                absl::StatusCode::kInvalidArgument, "model_type");
}

json LlamaParams() {
  return {{"dim", 4096},      {"n_layers", 32},   {"n_heads", 32},
          {"norm_eps", 1e-5}, {"vocab_size", -1}, {"multiple_of", 256}};
}

TEST(MetaParams, Llama2) {
  const auto result = ParseMeta(LlamaParams());
  ASSERT_TRUE(result.ok()) << result.status();
  const pb::ModelConfig& config = result->config;
  EXPECT_EQ(config.architecture(), "llama");
  EXPECT_EQ(config.n_kv_heads(), 32u);
  EXPECT_EQ(config.head_dim(), 128u);
  EXPECT_EQ(config.vocab_size(), 0u);
  EXPECT_EQ(config.ffn_dim(), 0u);
  EXPECT_EQ(config.rope_theta(), 10000.0);
  EXPECT_EQ(config.context_tokens(), 4096u);
  EXPECT_FALSE(config.tied_embeddings());
}

TEST(MetaParams, ContextFollowsTheGeneration) {
  EXPECT_EQ(ParseMeta(With(LlamaParams(), "norm_eps", 1e-6))->config.context_tokens(), 2048u);
  EXPECT_EQ(ParseMeta(With(LlamaParams(), "rope_theta", 500000.0))->config.context_tokens(), 8192u);
  EXPECT_EQ(ParseMeta(With(LlamaParams(), "rope_theta", 1e6))->config.context_tokens(), 16384u);
  EXPECT_EQ(ParseMeta(With(LlamaParams(), "max_seq_len", 256))->config.context_tokens(), 256u);
}

TEST(MetaParams, ScaledRopeOfLlama31And32) {
  json params = LlamaParams();
  params["rope_theta"] = 500000.0;
  params["use_scaled_rope"] = true;
  params["ffn_dim_multiplier"] = 1.3;
  auto llama31 = ParseMeta(params);
  ASSERT_TRUE(llama31.ok()) << llama31.status();
  const pb::RopeScaling& scaling = llama31->config.rope_scaling();
  EXPECT_EQ(scaling.kind(), pb::RopeScaling::LLAMA3);
  EXPECT_EQ(scaling.factor(), 8.0);
  EXPECT_EQ(scaling.low_freq_factor(), 1.0);
  EXPECT_EQ(scaling.high_freq_factor(), 4.0);
  EXPECT_EQ(scaling.original_context_tokens(), 8192u);
  EXPECT_EQ(llama31->config.context_tokens(), 131072u);
  params["dim"] = 2048;
  EXPECT_EQ(ParseMeta(params)->config.rope_scaling().factor(), 32.0);
}

TEST(MetaParams, RefusesByName) {
  const std::pair<const char*, json> settings[] = {{"moe", {{"num_experts", 8}}},
                                                   {"quantization_args", {{"scheme", "int4"}}},
                                                   {"use_qk_norm", true}};
  for (const auto& [key, value] : settings) {
    ExpectRefused(ParseMeta(With(LlamaParams(), key, value)), absl::StatusCode::kUnimplemented,
                  key);
  }
  ExpectRefused(ParseMeta(With(LlamaParams(), "n_heads", 0)), absl::StatusCode::kInvalidArgument,
                "number of heads is 0");
}

FakeSource GgufSource(const char* architecture) {
  FakeSource source("gguf");
  const std::string prefix = absl::StrCat(architecture, ".");
  source.AddMetadata("general.architecture", absl::StrCat("\"", architecture, "\""));
  for (const auto& [key, value] : {std::pair<const char*, const char*>{"block_count", "5"},
                                   {"context_length", "512"},
                                   {"embedding_length", "64"},
                                   {"feed_forward_length", "172"},
                                   {"attention.head_count", "8"},
                                   {"attention.head_count_kv", "4"},
                                   {"attention.layer_norm_rms_epsilon", "9.999999747378752e-06"},
                                   {"rope.dimension_count", "8"}}) {
    source.AddMetadata(prefix + key, value);
  }
  return source;
}

TEST(FindHyperparameters, LooksAtManySettingsInLinearTime) {
  FakeSource source;
  for (int i = 0; i < 100000; ++i) source.AddMetadata(absl::StrCat(i, ".dim"), "1");
  source.AddMetadata("model_args.dim", "64");
  source.AddMetadata("model_args.n_layers", "0");
  ExpectRefused(FindHyperparameters(source, "x.pt", "", false), absl::StatusCode::kInvalidArgument,
                "'model_args' in x.pt");
}

TEST(GgufMetadata, LlamaAndQwen2) {
  FakeSource llama = GgufSource("llama");
  llama.AddMetadata("llama.rope.freq_base", "100000.0");
  llama.AddMetadata("tokenizer.ggml.tokens", R"({"type":"string","length":512})");
  const auto result = ParseGgufMetadata(llama);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->gguf_interleaved);
  EXPECT_EQ(result->biases, Biases::kWherePresent);
  EXPECT_EQ(result->config.norm_eps(), 1e-5f);
  EXPECT_EQ(result->config.rope_theta(), 100000.0);
  EXPECT_EQ(result->config.vocab_size(), 512u);
  EXPECT_EQ(result->config.head_dim(), 8u);
  EXPECT_TRUE(result->config.tied_embeddings());

  const auto qwen2 = ParseGgufMetadata(GgufSource("qwen2"));
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_FALSE(qwen2->gguf_interleaved);
  EXPECT_EQ(qwen2->biases, Biases::kRequired);
}

TEST(GgufMetadata, LinearScaling) {
  FakeSource source = GgufSource("llama");
  source.AddMetadata("llama.rope.scaling.type", "\"linear\"");
  source.AddMetadata("llama.rope.scaling.factor", "2.0");
  EXPECT_EQ(ParseGgufMetadata(source)->config.rope_scaling().factor(), 2.0);
  FakeSource old = GgufSource("llama");
  old.AddMetadata("llama.rope.scale_linear", "4.0");
  EXPECT_EQ(ParseGgufMetadata(old)->config.rope_scaling().factor(), 4.0);
  FakeSource no_type = GgufSource("llama");
  no_type.AddMetadata("llama.rope.scaling.factor", "8.0");
  EXPECT_EQ(ParseGgufMetadata(no_type)->config.rope_scaling().kind(), pb::RopeScaling::LINEAR);
  EXPECT_EQ(ParseGgufMetadata(no_type)->config.rope_scaling().factor(), 8.0);
}

// As the header's reader gives what JSON has no number for.
TEST(GgufMetadata, NumbersThatAreNoneAreNotAbsent) {
  for (const char* key : {"rope.freq_base", "attention.sliding_window", "attention.key_length",
                          "rope.scaling.factor", "vocab_size"}) {
    FakeSource source = GgufSource("llama");
    source.AddMetadata(absl::StrCat("llama.", key), "\"nan\"");
    ExpectRefused(ParseGgufMetadata(source), absl::StatusCode::kInvalidArgument,
                  absl::StrCat("'", key, "' is \"nan\", not a"));
  }
  FakeSource source = GgufSource("llama");
  source.AddMetadata("llama.expert_count", "\"inf\"");
  ExpectRefused(ParseGgufMetadata(source), absl::StatusCode::kUnimplemented, "expert_count");
}

TEST(GgufMetadata, RefusesByName) {
  const std::pair<const char*, const char*> settings[] = {
      {"llama.expert_count", "8"},           {"llama.rope.scaling.type", "\"yarn\""},
      {"llama.attention.value_length", "4"}, {"llama.attention.causal", "false"},
      {"llama.logit_scale", "0.5"},          {"split.count", "3"}};
  for (const auto& [key, value] : settings) {
    FakeSource source = GgufSource("llama");
    source.AddMetadata(key, value);
    EXPECT_EQ(ParseGgufMetadata(source).status().code(), absl::StatusCode::kUnimplemented)
        << key << ": " << ParseGgufMetadata(source).status();
  }
  ExpectRefused(ParseGgufMetadata(GgufSource("gemma3")), absl::StatusCode::kUnimplemented,
                "\"gemma3\" is not supported; supported: llama");
  FakeSource none("gguf");
  ExpectRefused(ParseGgufMetadata(none), absl::StatusCode::kInvalidArgument,
                "general.architecture");
}

TEST(GgufMetadata, Case78ZeroHeadsAndAnotherVocabulary) {
  FakeSource heads("gguf");
  heads.AddMetadata("general.architecture", "\"llama\"");
  const FakeSource llama = GgufSource("llama");
  for (const auto& [key, value] : llama.metadata()) {
    if (key == "llama.attention.head_count")
      heads.AddMetadata(key, "0");
    else if (key != "general.architecture")
      heads.AddMetadata(key, value);
  }
  ExpectRefused(ParseGgufMetadata(heads), absl::StatusCode::kInvalidArgument, "heads is 0");
  FakeSource vocabulary = GgufSource("llama");
  vocabulary.AddMetadata("llama.vocab_size", "511");
  vocabulary.AddMetadata("tokenizer.ggml.tokens", R"({"type":"string","length":512})");
  ExpectRefused(ParseGgufMetadata(vocabulary), absl::StatusCode::kInvalidArgument,
                "'vocab_size' is 511, beside 512");
}

// The factors of Llama 3.1 by their definition: divisors of the frequencies.
std::vector<float> Llama3Factors(double theta, int n, double factor) {
  std::vector<float> factors;
  for (int i = 0; i < n; ++i) {
    const double wavelength = 2 * M_PI * std::pow(theta, static_cast<double>(i) / n);
    double divisor = factor;
    if (wavelength < 8192.0 / 4) {
      divisor = 1;
    } else if (wavelength <= 8192.0) {
      const double smooth = (8192 / wavelength - 1) / 3;
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    factors.push_back(static_cast<float>(divisor));
  }
  return factors;
}

TEST(RopeFactors, OfLlama31) {
  const auto scaling = RopeScalingOfFactors(Llama3Factors(500000, 64, 8), 500000);
  ASSERT_TRUE(scaling.ok()) << scaling.status();
  EXPECT_EQ(scaling->kind(), pb::RopeScaling::LLAMA3);
  EXPECT_EQ(scaling->factor(), 8.0);
  EXPECT_EQ(scaling->original_context_tokens(), 8192u);
  EXPECT_EQ(RopeScalingOfFactors(Llama3Factors(500000, 32, 32), 500000)->factor(), 32.0);
  EXPECT_EQ(RopeScalingOfFactors(std::vector<float>(32, 1.0f), 500000)->kind(),
            pb::RopeScaling::NONE);
}

TEST(RopeFactors, OthersAreRefused) {
  std::vector<float> factors = Llama3Factors(500000, 64, 8);
  factors[33] *= 1.1f;
  EXPECT_EQ(RopeScalingOfFactors(factors, 500000).status().code(),
            absl::StatusCode::kUnimplemented);
  for (float last : {0.0f, -1.0f, std::nanf(""), INFINITY}) {
    factors = std::vector<float>(4, 1.0f);
    factors[3] = last;
    EXPECT_EQ(RopeScalingOfFactors(factors, 10000).status().code(),
              absl::StatusCode::kUnimplemented);
  }
  EXPECT_FALSE(RopeScalingOfFactors({}, 10000).ok());
}

}  // namespace
}  // namespace quire
