// config.json of Hugging Face's transformers.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "convert/hyperparameters.h"
#include "convert/json_object.h"

namespace quire {
namespace {

// A family that transformers calls by one model_type, with the defaults that its configuration
// class gives to settings that are absent.
struct Family {
  const char* model_type;
  const char* causal_lm;  // class named in "architectures"
  int64_t n_kv_heads;     // 0: as many as n_heads
  int64_t context_tokens;
  int64_t sliding_window;
  bool qkv_biases;
};
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", 0, 2048, 0, false},
    {"mistral", "MistralForCausalLM", 8, 131072, 4096, false},
    {"qwen2", "Qwen2ForCausalLM", 32, 32768, 0, true},
};

// Settings that change what the model computes, which the runtime does not know. Set: refused.
constexpr const char* kRefusedWhereSet[] = {
    "attention_bias",
    "mlp_bias",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "use_qk_norm",
    "qk_norm",
    "attn_logit_softcapping",
    "no_rope_layers",
    "q_lora_rank",
    "final_logit_softcapping",
    "kv_lora_rank",
    "clip_qkv",
};

absl::Status Refused(const JsonObject& json, absl::string_view setting) {
  return absl::UnimplementedError(absl::StrCat(json.place(), ": ", setting, " is not supported"));
}

absl::StatusOr<const Family*> FindFamily(JsonObject& json) {
  std::string class_name;
  if (const nlohmann::json* classes = json.Find("architectures")) {
    if (!classes->is_array() || (!classes->empty() && !classes->front().is_string())) {
      return absl::InvalidArgumentError(
          absl::StrCat(json.place(), ": 'architectures' is not a list of names"));
    }
    if (!classes->empty()) class_name = classes->front().get<std::string>();
  }
  if (class_name == "LLaMAForCausalLM") class_name = "LlamaForCausalLM";  // before its release
  const std::string model_type = json.String("model_type", "");
  if (!json.status().ok()) return json.status();
  if (model_type.empty() && class_name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(json.place(), ": neither 'model_type' nor 'architectures' names the model"));
  }
  for (const Family& family : kFamilies) {
    if ((model_type.empty() || model_type == family.model_type) &&
        (class_name.empty() || class_name == family.causal_lm)) {
      return &family;
    }
  }
  return absl::UnimplementedError(
      absl::StrCat(json.place(), ": architecture ",
                   JsonObject::Show(model_type.empty() ? class_name : model_type),
                   class_name.empty() ? "" : absl::StrCat(" (", JsonObject::Show(class_name), ")"),
                   " is not supported; supported: ", kSupportedArchitectures));
}

// rope_parameters of transformers 5, rope_theta and rope_scaling before.
absl::Status ReadRope(JsonObject& json, pb::ModelConfig& config) {
  const nlohmann::json* parameters = json.Find("rope_parameters");
  const char* key = parameters != nullptr ? "rope_parameters" : "rope_scaling";
  const nlohmann::json* value = parameters != nullptr ? parameters : json.Find("rope_scaling");
  config.set_rope_theta(json.Number("rope_theta", 10000.0));
  if (json.Number("partial_rotary_factor", 1.0) != 1.0) {
    return Refused(json, "'partial_rotary_factor' other than 1");
  }
  if (value == nullptr) return json.status();
  if (!value->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(json.place(), ": '", key, "' is ",
                                                   JsonObject::Show(*value), ", not an object"));
  }
  JsonObject rope(*value, absl::StrCat(json.place(), ": ", key));
  for (const auto& item : value->items()) {
    if (item.value().is_object()) {
      return Refused(rope, absl::StrCat("a setting of its own for ", JsonObject::Show(item.key())));
    }
  }
  config.set_rope_theta(rope.Number("rope_theta", config.rope_theta()));
  if (rope.Number("partial_rotary_factor", 1.0) != 1.0) {
    return Refused(rope, "'partial_rotary_factor' other than 1");
  }
  const std::string type = rope.String("rope_type", rope.String("type", "default"));
  if (!rope.status().ok()) return rope.status();
  if (type == "default") return json.status();
  pb::RopeScaling& scaling = *config.mutable_rope_scaling();
  if (type == "linear") {
    scaling.set_kind(pb::RopeScaling::LINEAR);
    scaling.set_factor(rope.Number("factor"));
  } else if (type == "llama3") {
    scaling.set_kind(pb::RopeScaling::LLAMA3);
    scaling.set_factor(rope.Number("factor"));
    scaling.set_low_freq_factor(rope.Number("low_freq_factor"));
    scaling.set_high_freq_factor(rope.Number("high_freq_factor"));
    // Older files have it beside the object.
    const int64_t original = rope.Has("original_max_position_embeddings")
                                 ? rope.Int("original_max_position_embeddings")
                                 : json.Int("original_max_position_embeddings");
    scaling.set_original_context_tokens(
        static_cast<uint32_t>(std::clamp<int64_t>(original, 0, UINT32_MAX)));
  } else {
    return absl::UnimplementedError(absl::StrCat(rope.place(), ": rope type ",
                                                 JsonObject::Show(type),
                                                 " is not supported; supported: linear, llama3"));
  }
  return rope.status().ok() ? json.status() : rope.status();
}

// The window that every layer has, 0: none. Layers that differ are refused.
absl::StatusOr<int64_t> ReadSlidingWindow(JsonObject& json, const Family& family,
                                          int64_t n_layers) {
  const std::string model_type = family.model_type;
  int64_t window = 0;
  if (model_type == "mistral") {
    // An explicit null means no window.
    window =
        json.Int("sliding_window", json.Mentions("sliding_window") ? 0 : family.sliding_window);
  } else if (model_type == "qwen2" && json.Bool("use_sliding_window", false) &&
             json.Int("max_window_layers", 28) < n_layers) {
    return Refused(json, "'use_sliding_window' (a window in some layers only)");
  }
  if (const nlohmann::json* types = json.Find("layer_types")) {
    const char* wanted = window > 0 ? "sliding_attention" : "full_attention";
    if (!types->is_array()) {
      return absl::InvalidArgumentError(absl::StrCat(json.place(), ": 'layer_types' is no list"));
    }
    for (const nlohmann::json& type : *types) {
      if (type != wanted) {
        return Refused(json, absl::StrCat("a layer of type ", JsonObject::Show(type)));
      }
    }
  }
  return window;
}

}  // namespace

absl::StatusOr<Hyperparameters> ParseHuggingFaceConfig(absl::string_view text,
                                                       const std::string& place) {
  const absl::StatusOr<nlohmann::json> root = ParseJsonObject(text, place);
  if (!root.ok()) return root.status();
  JsonObject json(*root, place);
  absl::StatusOr<const Family*> family = FindFamily(json);
  if (!family.ok()) return family.status();
  for (const char* key : kRefusedWhereSet) {
    if (json.IsSet(key)) {
      return Refused(json, absl::StrCat("'", key, "' (", JsonObject::Show(*json.Find(key)), ")"));
    }
  }
  const std::string activation = json.String("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    return absl::UnimplementedError(absl::StrCat(place, ": 'hidden_act' ",
                                                 JsonObject::Show(activation),
                                                 " is not supported; supported: silu"));
  }

  Hyperparameters result;
  result.place = place;
  if (json.IsSet("quantization_config")) {
    const nlohmann::json& value = *json.Find("quantization_config");
    const bool named = value.is_object() && value.contains("quant_method");
    result.quantization = JsonObject::Show(named ? value["quant_method"] : value);
  }
  result.biases =
      (*family)->qkv_biases ? Hyperparameters::Biases::kRequired : Hyperparameters::Biases::kNone;
  pb::ModelConfig& config = result.config;
  config.set_architecture((*family)->model_type);
  config.set_norm_eps(static_cast<float>(json.Number("rms_norm_eps", 1e-6)));
  config.set_tied_embeddings(json.Bool("tie_word_embeddings", false));
  absl::Status status = ReadRope(json, config);
  if (!status.ok()) return status;
  Dimensions dimensions;
  dimensions.n_layers = json.Int("num_hidden_layers");
  dimensions.n_heads = json.Int("num_attention_heads");
  dimensions.n_kv_heads =
      json.Int("num_key_value_heads",
               (*family)->n_kv_heads > 0 ? (*family)->n_kv_heads : dimensions.n_heads);
  dimensions.head_dim = json.Int("head_dim", 0);
  dimensions.hidden_dim = json.Int("hidden_size");
  dimensions.ffn_dim = json.Int("intermediate_size");
  dimensions.vocab_size = json.Int("vocab_size", 0);
  dimensions.context_tokens = json.Int("max_position_embeddings", (*family)->context_tokens);
  absl::StatusOr<int64_t> window = ReadSlidingWindow(json, **family, dimensions.n_layers);
  if (!window.ok()) return window.status();
  dimensions.sliding_window = *window;
  if (!json.status().ok()) return json.status();
  status = SetDimensions(dimensions, place, config);
  if (!status.ok()) return status;
  return result;
}

}  // namespace quire
