// Hyperparameters in a GGUF file's metadata.
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "convert/hyperparameters.h"
#include "convert/json_object.h"

namespace quire {
namespace {

// Keys under the architecture's name that change what the model computes. Set: refused.
constexpr const char* kRefusedWhereSet[] = {
    "expert_count",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
    "attention.clamp_kqv",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "attention.temperature_length",
};

absl::Status Unsupported(const std::string& place, absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(place, ": ", what, " is not supported"));
}

absl::Status ReadRope(JsonObject& json, pb::ModelConfig& config) {
  config.set_rope_theta(json.Number("rope.freq_base", 10000.0));
  // As llama.cpp's loader: linear where nothing else is said, the old key where there is no new
  // one.
  const double factor = json.Number("rope.scaling.factor", json.Number("rope.scale_linear", 1.0));
  const bool scales = factor != 1.0 && factor != 0.0;
  const std::string type = json.String("rope.scaling.type", scales ? "linear" : "none");
  if (type == "none" || !json.status().ok()) return json.status();
  if (type != "linear") {
    return Unsupported(json.place(), absl::StrCat("rope.scaling.type ", JsonObject::Show(type)));
  }
  config.mutable_rope_scaling()->set_kind(pb::RopeScaling::LINEAR);
  config.mutable_rope_scaling()->set_factor(factor);
  return json.status();
}

}  // namespace

absl::StatusOr<Hyperparameters> ParseGgufMetadata(const TensorSource& source) {
  const auto files = source.files();
  const std::string place =
      absl::StrCat("metadata of ", files.empty() ? "the GGUF file" : files.front().first);
  std::string architecture;
  for (const auto& [key, value] : source.metadata()) {
    if (key != "general.architecture") continue;
    const nlohmann::json name = nlohmann::json::parse(value, nullptr, false);
    if (name.is_string()) architecture = name.get<std::string>();
  }
  if (architecture.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": no 'general.architecture'"));
  }
  if (architecture != "llama" && architecture != "qwen2") {
    return absl::UnimplementedError(
        absl::StrCat(place, ": architecture ", JsonObject::Show(architecture),
                     " is not supported; supported: ", kSupportedArchitectures));
  }

  nlohmann::json settings = nlohmann::json::object();
  int64_t tokens = 0;  // of the tokenizer, if it is there
  const std::string prefix = architecture + ".";
  for (const auto& [key, value] : source.metadata()) {
    if (absl::StartsWith(key, prefix)) {
      settings[key.substr(prefix.size())] = nlohmann::json::parse(value, nullptr, false);
    }
    if (key == "tokenizer.ggml.tokens") {
      tokens = nlohmann::json::parse(value, nullptr, false).value("length", int64_t{0});
    }
    if (key == "split.count" && value != "1" && value != "0") {
      return Unsupported(place, absl::StrCat("a model split into ", value, " files"));
    }
  }
  JsonObject json(settings, absl::StrCat(place, ": ", architecture));
  for (const char* key : kRefusedWhereSet) {
    if (json.IsSet(key)) {
      return Unsupported(json.place(),
                         absl::StrCat("'", key, "' (", JsonObject::Show(*json.Find(key)), ")"));
    }
  }
  if (!json.Bool("attention.causal", true)) return Unsupported(place, "non-causal attention");

  Hyperparameters result;
  result.place = place;
  result.biases = architecture == "qwen2" ? Hyperparameters::Biases::kRequired
                                          : Hyperparameters::Biases::kWherePresent;
  result.gguf_interleaved = architecture == "llama";
  pb::ModelConfig& config = result.config;
  config.set_architecture(architecture);
  config.set_norm_eps(static_cast<float>(json.Number("attention.layer_norm_rms_epsilon")));
  config.set_tied_embeddings(true);  // where there is no output.weight
  absl::Status status = ReadRope(json, config);
  if (!status.ok()) return status;

  Dimensions dimensions;
  dimensions.n_layers = json.Int("block_count");
  dimensions.n_heads = json.Int("attention.head_count");
  dimensions.n_kv_heads = json.Int("attention.head_count_kv", dimensions.n_heads);
  dimensions.hidden_dim = json.Int("embedding_length");
  dimensions.head_dim = json.Int("attention.key_length", 0);
  dimensions.ffn_dim = json.Int("feed_forward_length");
  dimensions.vocab_size = json.Int("vocab_size", tokens);
  if (!json.status().ok()) return json.status();
  if (tokens != 0 && tokens != dimensions.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(json.place(), ": 'vocab_size' is ",
                                                   dimensions.vocab_size, ", beside ", tokens,
                                                   " tokens of the tokenizer"));
  }
  dimensions.context_tokens = json.Int("context_length");
  dimensions.sliding_window = json.Int("attention.sliding_window", 0);
  if (!json.status().ok()) return json.status();
  status = SetDimensions(dimensions, json.place(), config);
  if (!status.ok()) return status;
  const int64_t head_dim = config.head_dim();
  if (json.Int("attention.value_length", head_dim) != head_dim) {
    return Unsupported(json.place(), "'attention.value_length' unlike 'attention.key_length'");
  }
  if (json.Int("rope.dimension_count", head_dim) != head_dim) {
    return Unsupported(json.place(), absl::StrCat("'rope.dimension_count' unlike the heads' ",
                                                  head_dim, " dimensions"));
  }
  if (!json.status().ok()) return json.status();
  return result;
}

absl::StatusOr<pb::RopeScaling> RopeScalingOfFactors(absl::Span<const float> factors,
                                                     double rope_theta) {
  // Llama 3.1 to 3.3: frequencies whose wavelength exceeds the original 8192 tokens are divided by
  // the factor, those with a quarter of it or less are kept, and between the two the divisor is
  // interpolated.
  constexpr double kOriginal = 8192, kLow = 1, kHigh = 4;
  constexpr double kPi = 3.14159265358979323846;
  pb::RopeScaling scaling;
  const double factor = factors.empty() ? 0 : factors.back();
  if (!(factor >= 1) || !std::isfinite(factor)) {
    return absl::UnimplementedError("rope_freqs.weight: not Llama 3.1's factors");
  }
  for (size_t i = 0; i < factors.size(); ++i) {
    const double exponent = static_cast<double>(i) / static_cast<double>(factors.size());
    const double turns = kOriginal / (2 * kPi * std::pow(rope_theta, exponent));
    double expected = factor;
    if (turns > kHigh) {
      expected = 1;
    } else if (turns >= kLow) {
      const double smooth = (turns - kLow) / (kHigh - kLow);
      expected = 1 / ((1 - smooth) / factor + smooth);
    }
    if (!(std::abs(factors[i] - expected) <= 1e-3 * expected)) {
      return absl::UnimplementedError(absl::StrCat("rope_freqs.weight: factor ", i, " is ",
                                                   factors[i], ", where Llama 3.1's is ", expected,
                                                   "; other scalings are not supported"));
    }
  }
  if (factor == 1) return scaling;
  scaling.set_kind(pb::RopeScaling::LLAMA3);
  scaling.set_factor(factor);
  scaling.set_low_freq_factor(kLow);
  scaling.set_high_freq_factor(kHigh);
  scaling.set_original_context_tokens(static_cast<uint32_t>(kOriginal));
  return scaling;
}

}  // namespace quire
