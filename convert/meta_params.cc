// params.json beside Meta's consolidated.NN.pth, and the 'model_args' of llama2.c's checkpoints.
#include "absl/strings/str_cat.h"
#include "convert/hyperparameters.h"
#include "convert/json_object.h"

namespace quire {
namespace {

// Settings that change what the model computes, which the runtime does not know.
constexpr const char* kRefusedWhereSet[] = {
    "moe",         "moe_args",        "quantization_args",       "quantization",
    "lora_args",   "use_qk_norm",     "nope_layer_interval",     "yarn",
    "q_lora_rank", "llama_4_scaling", "attn_temperature_tuning", "vision_encoder",
};

// params.json does not tell the context. Llama 3.1 and later (scaled rope): 131072; Llama 3: 8192;
// Code Llama (theta 10^6): 16384; Llama 2: 4096; Llama 1, which alone has an eps of 1e-6: 2048.
int64_t DefaultContext(const pb::ModelConfig& config) {
  if (config.rope_scaling().kind() == pb::RopeScaling::LLAMA3) return 131072;
  if (config.rope_theta() == 500000.0) return 8192;
  if (config.rope_theta() == 1000000.0) return 16384;
  return config.norm_eps() == 1e-6f ? 2048 : 4096;
}

}  // namespace

absl::StatusOr<Hyperparameters> ParseMetaParams(absl::string_view text, const std::string& place) {
  const absl::StatusOr<nlohmann::json> root = ParseJsonObject(text, place);
  if (!root.ok()) return root.status();
  JsonObject json(*root, place);
  for (const char* key : kRefusedWhereSet) {
    if (json.IsSet(key)) {
      return absl::UnimplementedError(absl::StrCat(
          place, ": '", key, "' (", JsonObject::Show(*json.Find(key)), ") is not supported"));
    }
  }
  Hyperparameters result;
  result.place = place;
  pb::ModelConfig& config = result.config;
  config.set_architecture("llama");
  config.set_norm_eps(static_cast<float>(json.Number("norm_eps", 1e-5)));
  config.set_rope_theta(json.Number("rope_theta", 10000.0));
  config.set_tied_embeddings(json.Bool("tied_embeddings", false));

  Dimensions dimensions;
  dimensions.n_layers = json.Int("n_layers");
  dimensions.n_heads = json.Int("n_heads");
  dimensions.n_kv_heads = json.Int("n_kv_heads", dimensions.n_heads);
  dimensions.head_dim = json.Int("head_dim", 0);
  dimensions.hidden_dim = json.Int("dim");
  // Derived from multiple_of and ffn_dim_multiplier where absent; the tensors tell.
  dimensions.ffn_dim = json.Int("hidden_dim", 0);
  dimensions.vocab_size = json.Int("vocab_size", -1);
  dimensions.sliding_window = json.Int("sliding_window", 0);
  if (json.Bool("use_scaled_rope", false)) {
    // llama-models' apply_scaling. The files give no factor: it is 8 for Llama 3.1, whose smallest
    // model has 4096 dimensions, and 32 for Llama 3.2 1B and 3B.
    pb::RopeScaling& scaling = *config.mutable_rope_scaling();
    scaling.set_kind(pb::RopeScaling::LLAMA3);
    scaling.set_factor(json.Number("rope_scaling_factor", dimensions.hidden_dim < 4096 ? 32 : 8));
    scaling.set_low_freq_factor(1);
    scaling.set_high_freq_factor(json.Number("high_freq_factor", 4));
    scaling.set_original_context_tokens(8192);
  }
  dimensions.context_tokens = json.Int("max_seq_len", DefaultContext(config));  // llama2.c has it
  if (!json.status().ok()) return json.status();
  absl::Status status = SetDimensions(dimensions, place, config);
  if (!status.ok()) return status;
  return result;
}

}  // namespace quire
