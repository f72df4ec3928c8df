#include "format/inspect.h"

#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "format/command_line.h"
#include "format/header.h"
#include "format/model_file.h"

namespace quire {
namespace {

nlohmann::ordered_json ConfigJson(const pb::ModelConfig& config) {
  nlohmann::ordered_json json = {{"n_layers", config.n_layers()},
                                 {"n_heads", config.n_heads()},
                                 {"n_kv_heads", config.n_kv_heads()},
                                 {"head_dim", config.head_dim()},
                                 {"hidden_dim", config.hidden_dim()},
                                 {"ffn_dim", config.ffn_dim()},
                                 {"vocab_size", config.vocab_size()},
                                 {"context_tokens", config.context_tokens()},
                                 {"norm_eps", config.norm_eps()},
                                 {"rope_theta", config.rope_theta()},
                                 {"tied_embeddings", config.tied_embeddings()}};
  if (config.sliding_window() > 0) json["sliding_window"] = config.sliding_window();
  const pb::RopeScaling& scaling = config.rope_scaling();
  if (scaling.kind() != pb::RopeScaling::NONE) {
    json["rope_scaling"] = {
        {"kind", scaling.kind() == pb::RopeScaling::LINEAR ? "linear" : "llama3"},
        {"factor", scaling.factor()}};
    if (scaling.kind() == pb::RopeScaling::LLAMA3) {
      json["rope_scaling"].update({{"low_freq_factor", scaling.low_freq_factor()},
                                   {"high_freq_factor", scaling.high_freq_factor()},
                                   {"original_context_tokens", scaling.original_context_tokens()}});
    }
  }
  return json;
}

}  // namespace

absl::Status InspectModelFile(const std::string& path, bool tensors, bool json, std::ostream& out) {
  absl::StatusOr<ModelFile> model = ModelFile::Open(path);
  if (!model.ok()) return model.status();
  const pb::Manifest& manifest = model->manifest();
  const nlohmann::ordered_json config = ConfigJson(manifest.config());
  if (json) {
    nlohmann::ordered_json object = {{"format_version", kFormatVersion},
                                     {"architecture", manifest.config().architecture()},
                                     {"scheme", manifest.scheme()},
                                     {"config", config},
                                     {"tensors", nlohmann::ordered_json::array()},
                                     {"file_bytes", model->mapping().size()},
                                     {"bits_per_weight", LayerBitsPerWeight(manifest)}};
    for (const TensorView& tensor : model->tensors()) {
      object["tensors"].push_back(
          {{"name", std::string(tensor.name)},
           {"shape", tensor.shape},
           {"type", Info(tensor.geometry.encoding).name},
           {"layout", tensor.geometry.layout == Layout::kPanels ? "panels" : "rows"},
           {"offset", tensor.offset},
           {"bytes", tensor.bytes},
           {"checksum", absl::StrFormat("%016x", tensor.xxh3)}});
    }
    out << object.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
    return absl::OkStatus();
  }
  out << absl::StreamFormat(
      "%s: .quire format %d, %s, type %s, %s, %.2f bits per weight in the layers' matrices\n", path,
      kFormatVersion, manifest.config().architecture(), manifest.scheme(),
      HumanBytes(model->mapping().size()), LayerBitsPerWeight(manifest));
  for (const auto& [key, value] : config.items())
    out << absl::StreamFormat("  %-16s %s\n", key, value.dump());
  for (const pb::SourceFile& file : manifest.source().files()) {
    out << absl::StreamFormat("  %-16s %s, %s\n", "made from", file.name(),
                              HumanBytes(static_cast<int64_t>(file.bytes())));
  }
  if (manifest.has_tokenizer()) {
    out << absl::StreamFormat("  %-16s %s\n", "tokenizer",
                              HumanBytes(static_cast<int64_t>(manifest.tokenizer().bytes())));
  }
  std::map<std::string, std::pair<int, int64_t>> by_type;  // count, bytes
  for (const TensorView& tensor : model->tensors()) {
    auto& [count, bytes] = by_type[Info(tensor.geometry.encoding).name];
    ++count;
    bytes += tensor.bytes;
  }
  for (const auto& [type, sum] : by_type) {
    out << absl::StreamFormat("  %-16s %d tensors, %s\n", type, sum.first, HumanBytes(sum.second));
  }
  if (!tensors) return absl::OkStatus();
  for (const TensorView& tensor : model->tensors()) {
    out << absl::StreamFormat("  %-24s %-14s %-5s %-6s at %-12d %12d bytes  %016x\n", tensor.name,
                              absl::StrJoin(tensor.shape, " x "),
                              Info(tensor.geometry.encoding).name,
                              tensor.geometry.layout == Layout::kPanels ? "panels" : "rows",
                              tensor.offset, tensor.bytes, tensor.xxh3);
  }
  return absl::OkStatus();
}

}  // namespace quire
