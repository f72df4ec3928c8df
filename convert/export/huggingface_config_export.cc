#include "convert/export/huggingface_config_export.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

struct Family {
  const char* model_type;
  const char* causal_lm;
  bool qkv_biases;
};
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", false},
    {"mistral", "MistralForCausalLM", false},
    {"qwen2", "Qwen2ForCausalLM", true},
};

// The number that a person would have written for this float.
double ShortestDecimal(float value) {
  double decimal = value;
  for (int digits = 1; digits <= 9; ++digits) {
    decimal = std::strtod(absl::StrFormat("%.*g", digits, value).c_str(), nullptr);
    if (static_cast<float>(decimal) == value) break;
  }
  return decimal;
}

}  // namespace

absl::StatusOr<Json> ExportHuggingFaceConfig(const pb::ModelConfig& config,
                                             const pb::Tokenizer* tokenizer,
                                             const std::string& dtype, bool has_biases) {
  const Family* family = nullptr;
  for (const Family& row : kFamilies) {
    if (config.architecture() == row.model_type) family = &row;
  }
  if (family == nullptr) {
    return absl::UnimplementedError(absl::StrCat("no config.json is known for the architecture \"",
                                                 config.architecture(), "\""));
  }
  if (has_biases != family->qkv_biases) {
    return absl::UnimplementedError(absl::StrCat(
        family->causal_lm, " of transformers ", has_biases ? "has no biases" : "has biases",
        " of wq, wk and wv, this model ", has_biases ? "has them" : "has none"));
  }
  Json json = {{"architectures", Json::array({family->causal_lm})},
               {"model_type", family->model_type},
               {"vocab_size", config.vocab_size()},
               {"hidden_size", config.hidden_dim()},
               {"intermediate_size", config.ffn_dim()},
               {"num_hidden_layers", config.n_layers()},
               {"num_attention_heads", config.n_heads()},
               {"num_key_value_heads", config.n_kv_heads()},
               {"head_dim", config.head_dim()},
               {"hidden_act", "silu"},
               {"max_position_embeddings", config.context_tokens()},
               {"rms_norm_eps", ShortestDecimal(config.norm_eps())},
               {"rope_theta", config.rope_theta()},
               {"rope_scaling", nullptr},
               {"tie_word_embeddings", config.tied_embeddings()}};
  const pb::RopeScaling& scaling = config.rope_scaling();
  if (scaling.kind() == pb::RopeScaling::LINEAR) {
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", scaling.factor()}};
  } else if (scaling.kind() == pb::RopeScaling::LLAMA3) {
    json["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", scaling.factor()},
        {"low_freq_factor", scaling.low_freq_factor()},
        {"high_freq_factor", scaling.high_freq_factor()},
        {"original_max_position_embeddings", scaling.original_context_tokens()}};
  }
  if (config.sliding_window() > 0) {
    if (config.architecture() != "mistral") {
      return absl::UnimplementedError(absl::StrCat(
          family->causal_lm, " of transformers has no sliding window, this model has one of ",
          config.sliding_window(), " tokens"));
    }
    json["sliding_window"] = config.sliding_window();
  } else if (config.architecture() == "mistral") {
    json["sliding_window"] = nullptr;
  }
  if (config.architecture() == "llama") {
    json["attention_bias"] = false;
    json["mlp_bias"] = false;
  }
  if (tokenizer != nullptr && tokenizer->has_bos_id()) json["bos_token_id"] = tokenizer->bos_id();
  if (tokenizer != nullptr && tokenizer->eos_ids_size() == 1) {
    json["eos_token_id"] = tokenizer->eos_ids(0);
  } else if (tokenizer != nullptr && tokenizer->eos_ids_size() > 1) {
    json["eos_token_id"] = Json(tokenizer->eos_ids());
  }
  json["torch_dtype"] = dtype;
  return json;
}

}  // namespace quire
