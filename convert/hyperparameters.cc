#include "convert/hyperparameters.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "convert/json_object.h"
#include "convert/quote.h"
#include "format/file.h"

namespace quire {
namespace {

constexpr int64_t kMaxConfigBytes = 4 << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxDimension = 1 << 24;

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

absl::StatusOr<Hyperparameters> ReadConfigFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  return ParseConfig(*text, path);
}

// Dotted paths of objects in the metadata that look like hyperparameters, each with its final dot.
std::set<std::string> EmbeddedConfigs(const TensorSource& source) {
  absl::flat_hash_set<absl::string_view> keys;
  for (const auto& entry : source.metadata()) keys.insert(entry.first);
  std::set<std::string> prefixes;
  for (const absl::string_view key : keys) {
    for (const auto& [width, depth] :
         {std::pair<const char*, const char*>{"hidden_size", "num_hidden_layers"},
          {"dim", "n_layers"}}) {
      absl::string_view prefix = key;
      if (!absl::ConsumeSuffix(&prefix, width)) continue;
      if (!prefix.empty() && prefix.back() != '.') continue;
      if (keys.contains(absl::StrCat(prefix, depth))) prefixes.insert(std::string(prefix));
    }
  }
  return prefixes;
}

// The metadata under `prefix` as the JSON object that it was.
std::string EmbeddedText(const TensorSource& source, const std::string& prefix) {
  nlohmann::json object = nlohmann::json::object();
  for (const auto& [key, value] : source.metadata()) {
    if (!absl::StartsWith(key, prefix)) continue;
    nlohmann::json* place = &object;
    for (absl::string_view step : absl::StrSplit(key.substr(prefix.size()), '.')) {
      if (!place->is_object()) *place = nlohmann::json::object();
      place = &(*place)[std::string(step)];
    }
    *place = nlohmann::json::parse(value, nullptr, false);
  }
  return object.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace

const char kSupportedArchitectures[] =
    "llama (Llama 1 to 3.3, TinyLlama, SmolLM2 and others of its design), mistral, qwen2";

absl::Status SetDimensions(const Dimensions& d, const std::string& place, pb::ModelConfig& config) {
  const int64_t n_heads = d.n_heads;
  int64_t head_dim = d.head_dim;
  if (head_dim == 0 && n_heads > 0) {
    if (d.hidden_dim % n_heads != 0) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": hidden size ", d.hidden_dim,
                                                     " is no multiple of ", n_heads, " heads"));
    }
    head_dim = d.hidden_dim / n_heads;
  }
  const bool says_vocab = d.vocab_size != 0 && d.vocab_size != -1;
  struct Range {
    const char* name;
    int64_t value, min, max;
  };
  for (const Range& range : {Range{"number of layers", d.n_layers, 1, kMaxLayers},
                             {"number of heads", n_heads, 1, kMaxDimension},
                             {"number of key-value heads", d.n_kv_heads, 1, n_heads},
                             {"hidden size", d.hidden_dim, 1, kMaxDimension},
                             {"head size", head_dim, 2, kMaxDimension},
                             {"FFN size", d.ffn_dim, 0, kMaxDimension},
                             {"vocabulary", says_vocab ? d.vocab_size : 1, 1, kMaxDimension},
                             {"context", d.context_tokens, 1, INT32_MAX},
                             {"sliding window", d.sliding_window, 0, INT32_MAX}}) {
    if (range.value < range.min || range.value > range.max) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": ", range.name, " is ", range.value,
                                                     ", not ", range.min, " to ", range.max));
    }
  }
  if (n_heads * head_dim > kMaxDimension) {  // neither is larger than that
    return absl::InvalidArgumentError(absl::StrCat(
        place, ": size of all heads is ", n_heads * head_dim, ", not 2 to ", kMaxDimension));
  }
  if (n_heads % d.n_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        place, ": ", n_heads, " heads are no multiple of ", d.n_kv_heads, " key-value heads"));
  }
  if (head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": head size ", head_dim, " is odd, which rotary pairs cannot be"));
  }
  config.set_n_layers(static_cast<uint32_t>(d.n_layers));
  config.set_n_heads(static_cast<uint32_t>(n_heads));
  config.set_n_kv_heads(static_cast<uint32_t>(d.n_kv_heads));
  config.set_head_dim(static_cast<uint32_t>(head_dim));
  config.set_hidden_dim(static_cast<uint32_t>(d.hidden_dim));
  config.set_ffn_dim(static_cast<uint32_t>(d.ffn_dim));
  config.set_vocab_size(static_cast<uint32_t>(std::max<int64_t>(d.vocab_size, 0)));
  config.set_context_tokens(static_cast<uint32_t>(d.context_tokens));
  config.set_sliding_window(static_cast<uint32_t>(d.sliding_window));

  if (!(config.norm_eps() > 0 && config.norm_eps() < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": epsilon of the norms is ", config.norm_eps(), ", not in (0, 1)"));
  }
  if (!(config.rope_theta() > 1) || !std::isfinite(config.rope_theta())) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": rotary base is ", config.rope_theta(), ", not above 1"));
  }
  const pb::RopeScaling& scaling = config.rope_scaling();
  const bool llama3 = scaling.kind() == pb::RopeScaling::LLAMA3;
  if (scaling.kind() != pb::RopeScaling::NONE &&
      (!(scaling.factor() > 0) || !std::isfinite(scaling.factor()))) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": rope scaling factor is ", scaling.factor(), ", not above 0"));
  }
  if (llama3 &&
      (!(scaling.low_freq_factor() > 0) ||
       !(scaling.high_freq_factor() > scaling.low_freq_factor()) ||
       !std::isfinite(scaling.high_freq_factor()) || scaling.original_context_tokens() == 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        place, ": rope scaling of low factor ", scaling.low_freq_factor(), ", high factor ",
        scaling.high_freq_factor(), " and original context ", scaling.original_context_tokens(),
        "; 0 < low < high and a context above 0 wanted"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Hyperparameters> ParseConfig(absl::string_view text, const std::string& place) {
  const absl::StatusOr<nlohmann::json> root = ParseJsonObject(text, place);
  if (!root.ok()) return root.status();
  const bool meta = root->contains("dim") && root->contains("n_layers");
  return meta ? ParseMetaParams(text, place) : ParseHuggingFaceConfig(text, place);
}

absl::StatusOr<Hyperparameters> FindHyperparameters(const TensorSource& source,
                                                    const std::string& path,
                                                    const std::string& config_file,
                                                    bool meta_first) {
  if (!config_file.empty()) return ReadConfigFile(config_file);
  const std::set<std::string> embedded = EmbeddedConfigs(source);
  if (embedded.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": hyperparameters under both ", Quote(*embedded.begin()), " and ",
                     Quote(*embedded.rbegin()), "; give the right ones with --config FILE"));
  }
  if (embedded.size() == 1) {
    const std::string& prefix = *embedded.begin();
    return ParseConfig(EmbeddedText(source, prefix),
                       prefix.empty() ? BaseName(path)
                                      : absl::StrCat(Quote(absl::StripSuffix(prefix, ".")), " in ",
                                                     BaseName(path)));
  }
  const std::string folder = FolderOf(path);
  for (bool meta : {meta_first, !meta_first}) {
    const std::string file = absl::StrCat(folder, meta ? "params.json" : "config.json");
    absl::StatusOr<Hyperparameters> result = ReadConfigFile(file);
    if (!absl::IsNotFound(result.status())) return result;
  }
  return absl::NotFoundError(absl::StrCat(
      path, ": no hyperparameters: none inside, and neither config.json nor params.json in ",
      folder, "; give one with --config FILE"));
}

}  // namespace quire
