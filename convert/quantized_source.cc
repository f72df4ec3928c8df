#include "convert/quantized_source.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "convert/json_object.h"
#include "convert/packed_layer.h"
#include "convert/quote.h"
#include "format/file.h"

namespace quire {
namespace {

constexpr int64_t kMaxConfigBytes = 4 << 20;
constexpr char kSupported[] =
    "supported are 4 bits of compressed-tensors (pack-quantized), gptq and awq (gemm)";

// What a configuration says of all packed layers.
struct Quantization {
  Packing packing;
  int64_t group_size = 0;  // 0: not said, -1: one group
  int zero_offset = 0;
};

absl::Status Unsupported(const JsonObject& json, absl::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat(json.place(), ": ", what, " is not supported; ", kSupported));
}

absl::Status WantBits(JsonObject& json, const char* key) {
  const int64_t bits = json.Int(key, 4);
  if (!json.status().ok()) return json.status();
  if (bits == 4) return absl::OkStatus();
  return Unsupported(json, absl::StrCat("'", key, "' of ", bits));
}

absl::Status ReadGroupSize(JsonObject& json, const char* key, Quantization* out) {
  out->group_size = json.Int(key, 0);
  if (!json.status().ok() || out->group_size >= -1) return json.status();
  return absl::InvalidArgumentError(
      absl::StrCat(json.place(), ": '", key, "' is ", out->group_size));
}

absl::Status ReadGptq(JsonObject& json, Quantization* out) {
  const std::string format =
      json.String("checkpoint_format", json.Bool("is_marlin_format", false) ? "marlin" : "gptq");
  if (absl::Status status = WantBits(json, "bits"); !status.ok()) return status;
  if (format != "gptq" && format != "gptq_v2")
    return Unsupported(json, absl::StrCat("'checkpoint_format' ", JsonObject::Show(format)));
  out->packing = Packing::kGptq;
  out->zero_offset = format == "gptq" ? 1 : 0;
  return ReadGroupSize(json, "group_size", out);
}

absl::Status ReadAwq(JsonObject& json, Quantization* out) {
  const std::string version = json.String("version", "gemm");
  if (absl::Status status = WantBits(json, "bits"); !status.ok()) return status;
  if (!absl::EqualsIgnoreCase(version, "gemm"))
    return Unsupported(json, absl::StrCat("'version' ", JsonObject::Show(version)));
  out->packing = Packing::kAwq;
  return ReadGroupSize(json, "group_size", out);
}

absl::Status ReadCompressedTensors(JsonObject& json, Quantization* out) {
  const std::string format = json.String("format", "");
  if (!json.status().ok()) return json.status();
  if (format != "pack-quantized")
    return Unsupported(json, absl::StrCat("'format' ", JsonObject::Show(format)));
  if (json.IsSet("kv_cache_scheme")) return Unsupported(json, "'kv_cache_scheme'");
  if (const nlohmann::json* sparsity = json.Find("sparsity_config");
      sparsity != nullptr && sparsity->is_object()) {
    JsonObject settings(*sparsity, absl::StrCat(json.place(), ".sparsity_config"));
    const std::string dense = settings.String("format", "dense");
    if (!settings.status().ok()) return settings.status();
    if (dense != "dense") return Unsupported(json, "'sparsity_config'");
  }
  const nlohmann::json* groups = json.Find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(json.place(), ": 'config_groups' is no object of groups"));
  }
  out->packing = Packing::kCompressedTensors;
  for (const auto& item : groups->items()) {
    const std::string place = absl::StrCat(json.place(), ".config_groups.", Quote(item.key()));
    if (!item.value().is_object() || !item.value().contains("weights") ||
        !item.value()["weights"].is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": no object with 'weights'"));
    }
    JsonObject group(item.value(), place);
    if (group.IsSet("input_activations") || group.IsSet("output_activations"))
      return Unsupported(group, "quantization of activations");
    JsonObject weights(item.value()["weights"], absl::StrCat(place, ".weights"));
    if (absl::Status status = WantBits(weights, "num_bits"); !status.ok()) return status;
    const std::string type = weights.String("type", "int");
    const std::string strategy = weights.String("strategy", "group");
    if (!weights.status().ok()) return weights.status();
    if (type != "int") return Unsupported(weights, absl::StrCat("'type' ", JsonObject::Show(type)));
    if (strategy != "group" && strategy != "channel")
      return Unsupported(weights, absl::StrCat("'strategy' ", JsonObject::Show(strategy)));
  }
  return absl::OkStatus();  // groups of different sizes are told by the scales' shapes
}

absl::StatusOr<std::optional<nlohmann::json>> ReadJsonFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  if (!text.ok()) return text.status();
  return ParseJsonObject(*text, path);
}

absl::StatusOr<std::optional<Quantization>> FindQuantization(const std::string& path,
                                                             const std::string& config_file) {
  const std::string folder = FolderOf(path);
  std::string place = config_file.empty() ? folder + "config.json" : config_file;
  absl::StatusOr<std::optional<nlohmann::json>> config = ReadJsonFile(place);
  if (!config.ok()) return config.status();
  nlohmann::json settings;
  if (config->has_value() && (*config)->is_object()) {
    for (const char* key : {"quantization_config", "compression_config"}) {
      if (settings.is_null() && (*config)->contains(key)) settings = (**config)[key];
    }
  }
  if (settings.is_null()) {
    place = folder + "quantize_config.json";
    config = ReadJsonFile(place);
    if (!config.ok()) return config.status();
    if (!config->has_value()) return std::nullopt;
    settings = **config;
  }
  if (!settings.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": what describes the quantization is not an object"));
  }
  JsonObject json(settings, absl::StrCat(place, ": quantization_config"));
  const std::string method = json.String("quant_method", "gptq");
  if (!json.status().ok()) return json.status();
  Quantization quantization;
  absl::Status status;
  if (method == "gptq") {
    status = ReadGptq(json, &quantization);
  } else if (method == "awq") {
    status = ReadAwq(json, &quantization);
  } else if (method == "compressed-tensors") {
    status = ReadCompressedTensors(json, &quantization);
  } else {
    status = Unsupported(json, absl::StrCat("'quant_method' ", JsonObject::Show(method)));
  }
  if (!status.ok()) return status;
  return quantization;
}

// What a part of a layer is called behind the layer's name.
struct Part {
  const char* suffix;
  int PackedLayer::* index;
  bool required;
};
constexpr Part kCompressedTensorsParts[] = {
    {".weight_packed", &PackedLayer::codes, true},
    {".weight_scale", &PackedLayer::scales, true},
    {".weight_shape", &PackedLayer::shape, true},
    {".weight_zero_point", &PackedLayer::zeros, false},
    {".weight_g_idx", &PackedLayer::order, false},
};
constexpr Part kGptqParts[] = {
    {".qweight", &PackedLayer::codes, true},
    {".scales", &PackedLayer::scales, true},
    {".qzeros", &PackedLayer::zeros, true},
    {".g_idx", &PackedLayer::order, false},
};
constexpr Part kAwqParts[] = {
    {".qweight", &PackedLayer::codes, true},
    {".scales", &PackedLayer::scales, true},
    {".qzeros", &PackedLayer::zeros, true},
};

absl::Span<const Part> PartsOf(Packing packing) {
  switch (packing) {
    case Packing::kCompressedTensors:
      return kCompressedTensorsParts;
    case Packing::kGptq:
      return kGptqParts;
    case Packing::kAwq:
      return kAwqParts;
  }
  return {};
}

class PackedSource : public TensorSource {
 public:
  PackedSource(std::unique_ptr<TensorSource> base, std::vector<PackedLayer> layers, bool as_blocks)
      : base_(std::move(base)) {
    std::set<int> parts;
    for (PackedLayer& layer : layers) {
      for (int part : {layer.codes, layer.scales, layer.zeros, layer.shape, layer.order})
        parts.insert(part);
      const DType dtype = !as_blocks || !layer.obstacle.empty() ? DType::kF32
                          : layer.asymmetric                    ? DType::kGgmlQ4_1
                                                                : DType::kGgmlQ4_0;
      tensors_.push_back({layer.name + ".weight", {layer.rows, layer.cols}, dtype});
      layers_.push_back(std::move(layer));
      plain_.push_back(-1);
    }
    for (size_t i = 0; i < base_->tensors().size(); ++i) {
      if (parts.count(static_cast<int>(i)) > 0) continue;
      tensors_.push_back(base_->tensors()[i]);
      plain_.push_back(static_cast<int>(i));
    }
  }

  absl::string_view container() const override { return base_->container(); }
  absl::Span<const SourceTensor> tensors() const override { return tensors_; }
  absl::Span<const std::pair<std::string, std::string>> metadata() const override {
    return base_->metadata();
  }
  std::vector<std::pair<std::string, int64_t>> files() const override { return base_->files(); }

  int Alias(int index) const override {
    const int plain = plain_[static_cast<size_t>(index)];
    return plain < 0 ? -1 : base_->Alias(plain);
  }

  absl::Status Verify(int index) const override {
    const int plain = plain_[static_cast<size_t>(index)];
    if (plain >= 0) return base_->Verify(plain);
    const PackedLayer& layer = layers_[static_cast<size_t>(index)];
    for (int part : {layer.codes, layer.scales, layer.zeros, layer.shape, layer.order}) {
      if (part < 0) continue;
      if (absl::Status status = base_->Verify(part); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Read(int index, int64_t begin, int64_t count,
                    absl::Span<uint8_t> out) const override {
    const int plain = plain_[static_cast<size_t>(index)];
    if (plain >= 0) return base_->Read(plain, begin, count, out);
    const PackedLayer& layer = layers_[static_cast<size_t>(index)];
    const DTypeInfo& info = Info(tensors_[static_cast<size_t>(index)].dtype);
    uint8_t* to = out.data();
    // The end of a row, whole rows, the beginning of a row.
    for (const int64_t end = begin + count; begin < end;) {
      const int64_t row = begin / layer.cols, column = begin % layer.cols;
      int64_t n = 1, columns = std::min(layer.cols - column, end - begin);
      if (column == 0 && columns == layer.cols) n = (end - begin) / layer.cols;
      absl::Status status =
          info.block_elements > 1
              ? ReadBlocks(*base_, layer, row, n, column, columns, to)
              : ReadWeights(*base_, layer, row, n, column, columns, reinterpret_cast<float*>(to));
      if (!status.ok()) return status;
      begin += n * columns;
      to += n * columns / info.block_elements * info.block_bytes;
    }
    return absl::OkStatus();
  }

 private:
  std::unique_ptr<TensorSource> base_;
  std::vector<PackedLayer> layers_;
  std::vector<SourceTensor> tensors_;  // packed layers, then the others
  std::vector<int> plain_;             // index in the base; -1: packed
};

// The packed layers of a checkpoint, by the names of their parts.
absl::StatusOr<std::vector<PackedLayer>> FindLayers(const TensorSource& source,
                                                    const Quantization& quantization,
                                                    bool as_blocks) {
  std::map<std::string, PackedLayer> layers;
  const absl::Span<const Part> parts = PartsOf(quantization.packing);
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    for (const Part& part : parts) {
      absl::string_view name = source.tensors()[i].name;
      if (!absl::ConsumeSuffix(&name, part.suffix) || name.empty()) continue;
      PackedLayer& layer = layers[std::string(name)];
      layer.packing = quantization.packing;
      layer.name = std::string(name);
      layer.*part.index = static_cast<int>(i);
    }
  }
  std::vector<PackedLayer> result;
  for (auto& [name, layer] : layers) {
    for (const Part& part : parts) {
      if (layer.*part.index >= 0 || !part.required) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the packed layer ", Quote(name), " has no ", Quote(name + part.suffix)));
    }
    layer.zero_offset = quantization.zero_offset;
    absl::Status status = CheckPackedLayer(source, quantization.group_size, &layer);
    if (status.ok() && as_blocks) status = FindObstacles(source, &layer);
    if (!status.ok()) return status;
    result.push_back(std::move(layer));
  }
  return result;
}

}  // namespace

absl::StatusOr<UnpackedSource> UnpackQuantized(std::unique_ptr<TensorSource> source,
                                               const std::string& path,
                                               const std::string& config_file, bool as_blocks) {
  UnpackedSource result;
  if (source->container() == "gguf") {
    result.source = std::move(source);
    return result;
  }
  absl::StatusOr<std::optional<Quantization>> quantization = FindQuantization(path, config_file);
  if (!quantization.ok()) return quantization.status();
  if (!quantization->has_value()) {
    result.source = std::move(source);
    return result;
  }
  absl::StatusOr<std::vector<PackedLayer>> layers = FindLayers(*source, **quantization, as_blocks);
  if (!layers.ok()) {
    return absl::Status(layers.status().code(),
                        absl::StrCat(path, ": ", layers.status().message()));
  }
  for (const PackedLayer& layer : *layers) {
    if (!layer.obstacle.empty() && result.obstacle.empty())
      result.obstacle = absl::StrCat("the packed layer ", Quote(layer.name), ": ", layer.obstacle);
  }
  result.unpacked = true;
  result.source = std::make_unique<PackedSource>(std::move(source), *std::move(layers), as_blocks);
  return result;
}

}  // namespace quire
