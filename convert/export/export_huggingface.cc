#include "convert/export/export_huggingface.h"

#include <map>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "convert/export/huggingface_config_export.h"
#include "convert/export/huggingface_tokenizer_export.h"
#include "convert/export/new_folder.h"
#include "convert/export/output_tensor.h"
#include "convert/export/pack_quantized.h"
#include "convert/export/safetensors_layout.h"
#include "format/new_file.h"

namespace quire {
namespace {

// Where transformers begins another file.
constexpr int64_t kMaxFileBytes = 5'000'000'000;

struct FloatType {
  Encoding encoding;
  const char* safetensors;
  const char* torch;
};
constexpr FloatType kFloatTypes[] = {{Encoding::kF16, "F16", "float16"},
                                     {Encoding::kBF16, "BF16", "bfloat16"},
                                     {Encoding::kF32, "F32", "float32"}};

// The type of a tensor's floats: its own, else f16, whose 11 bits lose least.
const FloatType& FloatTypeOf(Encoding encoding) {
  for (const FloatType& type : kFloatTypes) {
    if (type.encoding == encoding) return type;
  }
  return kFloatTypes[0];
}

// The layers that vLLM joins to one matrix: they have to be coded alike there.
constexpr const char* kFused[][3] = {{"wq", "wk", "wv"}, {"w_gate", "w_up", "w_up"}};

struct Plan {
  std::vector<OutputTensor> tensors;
  std::vector<std::string> ignored;  // linear layers that are not packed
  int packed = 0;
  bool has_biases = false;
  const char* dtype = "float16";
};

Plan PlanTensors(const std::vector<ModelTensor>& tensors, bool pack, bool tied,
                 std::vector<std::string>* notes) {
  Plan plan;
  std::map<const char*, int64_t> bytes_of_type;
  std::map<std::string, bool> is_packed;  // by canonical name
  for (const ModelTensor& tensor : tensors) {
    const TensorView& view = *tensor.view;
    const StoredRows rows(view);
    const std::string name = OfLayer(tensor.names->hugging_face, tensor.layer);
    const bool matrix = view.shape.size() == 2, linear = matrix && view.name != "embedding";
    plan.has_biases |= absl::EndsWith(name, ".bias");
    const bool packed = pack && linear && view.geometry.encoding == Encoding::kQ4_0 &&
                        view.geometry.cols % kGroupColumns == 0;
    if (linear) is_packed[std::string(view.name)] = packed;
    if (packed) {
      ++plan.packed;
      for (OutputTensor& part :
           AsPackQuantized(std::string(absl::StripSuffix(name, ".weight")), rows)) {
        plan.tensors.push_back(std::move(part));
      }
      continue;
    }
    if (linear) plan.ignored.emplace_back(absl::StripSuffix(name, ".weight"));
    const FloatType& type = FloatTypeOf(view.geometry.encoding);
    plan.tensors.push_back(AsFloats(name, type.encoding, rows));
    plan.tensors.back().type = type.safetensors;
    if (matrix) bytes_of_type[type.torch] += plan.tensors.back().bytes();
  }
  if (tied) plan.ignored.push_back("lm_head");
  int64_t most = -1;
  for (const auto& [torch, bytes] : bytes_of_type) {
    if (bytes > most && plan.packed == 0) plan.dtype = torch, most = bytes;
  }
  bool mixed = false;
  for (const auto& [name, packed] : is_packed) {
    for (const auto& fused : kFused) {
      const size_t dot = name.rfind('.');
      if (dot == std::string::npos || name.substr(dot + 1) != fused[0]) continue;
      for (const char* other : fused) mixed |= is_packed[name.substr(0, dot + 1) + other] != packed;
    }
  }
  if (mixed) {
    notes->push_back(
        "vLLM wants q_proj, k_proj and v_proj, and gate_proj and up_proj, packed alike "
        "in a layer; here they are not");
  }
  return plan;
}

}  // namespace

absl::StatusOr<ExportReport> ExportHuggingFace(
    const ModelFile& model, bool pack, const std::string& path, bool overwrite, ThreadPool& pool,
    absl::FunctionRef<void(int64_t done_bytes)> progress) {
  ExportReport report;
  absl::StatusOr<std::vector<ModelTensor>> listed = ListModelTensors(model);
  if (!listed.ok()) return listed.status();
  Plan plan = PlanTensors(*listed, pack, model.config().tied_embeddings(), &report.notes);
  if (pack && plan.packed == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        model.path(), ": none of its linear layers is q4_0, the encoding that compressed-tensors ",
        "can carry; convert with --type q4_0, or export --format safetensors"));
  }
  pb::Tokenizer tokenizer;
  NamedContents files;
  if (model.has_tokenizer()) {
    absl::StatusOr<pb::Tokenizer> loaded = model.LoadTokenizer();
    if (!loaded.ok()) return loaded.status();
    tokenizer = *std::move(loaded);
    absl::StatusOr<NamedContents> exported = ExportHuggingFaceTokenizer(tokenizer, &report.notes);
    if (!exported.ok()) return exported.status();
    files = *std::move(exported);
  }
  absl::StatusOr<nlohmann::ordered_json> config = ExportHuggingFaceConfig(
      model.config(), model.has_tokenizer() ? &tokenizer : nullptr, plan.dtype, plan.has_biases);
  if (!config.ok()) {
    return absl::Status(config.status().code(),
                        absl::StrCat(model.path(), ": ", config.status().message()));
  }
  if (pack) {
    (*config)["quantization_config"] =
        nlohmann::ordered_json::parse(PackQuantizedConfig(plan.ignored), nullptr, false);
  }
  files.emplace_back("config.json", config->dump(2) + "\n");
  SafetensorsLayout layout = LayOutSafetensors(std::move(plan.tensors), kMaxFileBytes);
  if (!layout.index.empty()) files.emplace_back("model.safetensors.index.json", layout.index);

  absl::StatusOr<std::unique_ptr<NewFolder>> folder = NewFolder::Create(path, overwrite);
  if (!folder.ok()) return folder.status();
  int64_t done = 0;
  for (const SafetensorsFile& shard : layout.files) {
    absl::StatusOr<std::unique_ptr<NewFile>> file =
        NewFile::Create((*folder)->PathOf(shard.name), false);
    if (!file.ok()) return file.status();
    absl::Status status = (*file)->Reserve(shard.bytes);
    if (status.ok()) {
      status = (*file)->WriteAt(0, shard.head.data(), static_cast<int64_t>(shard.head.size()));
    }
    if (status.ok()) {
      status = WriteTensors(
          shard.tensors, **file, pool, [&](int64_t bytes) { progress(done += bytes); }, &report);
    }
    if (status.ok()) status = (*file)->Sync();
    if (status.ok()) status = (*file)->GiveName();
    if (!status.ok()) return status;
    report.bytes += shard.bytes;
  }
  for (const auto& [name, content] : files) {
    absl::Status status = (*folder)->Write(name, content);
    if (!status.ok()) return status;
    report.bytes += static_cast<int64_t>(content.size());
  }
  absl::Status status = (*folder)->GiveName();
  if (!status.ok()) return status;
  return report;
}

}  // namespace quire
