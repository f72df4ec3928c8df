#include "convert/export/export_gguf.h"

#include <cmath>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "convert/export/gguf_builder.h"
#include "convert/export/gguf_tokenizer_export.h"
#include "convert/export/output_tensor.h"
#include "format/new_file.h"
#include "format/version.h"

namespace quire {
namespace {

// ggml's types of the encodings, and what llama.cpp calls a file of mostly that
// (general.file_type).
struct GgmlType {
  Encoding encoding;
  const char* name;
  uint32_t type;
  uint32_t file_type;
};
constexpr GgmlType kGgmlTypes[] = {
    {Encoding::kF32, "F32", 0, 0},     {Encoding::kF16, "F16", 1, 1},
    {Encoding::kBF16, "BF16", 30, 32}, {Encoding::kQ4_0, "Q4_0", 2, 2},
    {Encoding::kQ8, "Q8_0", 8, 7},     {Encoding::kQ4_1, "Q4_1", 3, 3},
};
constexpr const GgmlType& kGgmlF16 = kGgmlTypes[1];

// The type that a matrix gets: its own, where ggml has it, else F16.
const GgmlType& TypeOf(const TensorView& view) {
  for (const GgmlType& type : kGgmlTypes) {
    const bool blocks = Info(type.encoding).scale_bytes > 0;
    if (type.encoding == view.geometry.encoding &&
        (!blocks || view.geometry.cols % kGroupColumns == 0)) {
      return type;
    }
  }
  return kGgmlF16;
}

void AddConfig(const pb::ModelConfig& config, const std::string& architecture,
               std::vector<std::string>* notes, GgufBuilder* out) {
  const auto key = [&](const char* name) { return absl::StrCat(architecture, ".", name); };
  out->AddU32(key("context_length"), config.context_tokens());
  out->AddU32(key("embedding_length"), config.hidden_dim());
  out->AddU32(key("block_count"), config.n_layers());
  out->AddU32(key("feed_forward_length"), config.ffn_dim());
  out->AddU32(key("vocab_size"), config.vocab_size());
  out->AddU32(key("attention.head_count"), config.n_heads());
  out->AddU32(key("attention.head_count_kv"), config.n_kv_heads());
  out->AddU32(key("attention.key_length"), config.head_dim());
  out->AddU32(key("attention.value_length"), config.head_dim());
  out->AddF32(key("attention.layer_norm_rms_epsilon"), config.norm_eps());
  out->AddU32(key("rope.dimension_count"), config.head_dim());
  out->AddF32(key("rope.freq_base"), static_cast<float>(config.rope_theta()));
  if (config.rope_scaling().kind() == pb::RopeScaling::LINEAR) {
    out->AddString(key("rope.scaling.type"), "linear");
    out->AddF32(key("rope.scaling.factor"), static_cast<float>(config.rope_scaling().factor()));
  }
  if (config.sliding_window() > 0) {
    out->AddU32(key("attention.sliding_window"), config.sliding_window());
    notes->push_back(absl::StrCat("llama.cpp attends to all tokens in a model of this kind, where ",
                                  "the model looks back at most ", config.sliding_window()));
  }
}

// Llama 3.1's scaling as GGUF has it: what each rotary frequency is divided by.
std::string RopeFactors(const pb::ModelConfig& config) {
  constexpr double kPi = 3.14159265358979323846;
  const pb::RopeScaling& scaling = config.rope_scaling();
  const uint32_t n = config.head_dim() / 2;
  std::string bytes;
  for (uint32_t i = 0; i < n; ++i) {
    const double turns = scaling.original_context_tokens() /
                         (2 * kPi * std::pow(config.rope_theta(), static_cast<double>(i) / n));
    double divisor = scaling.factor();
    if (turns > scaling.high_freq_factor()) {
      divisor = 1;
    } else if (turns >= scaling.low_freq_factor()) {
      const double smooth = (turns - scaling.low_freq_factor()) /
                            (scaling.high_freq_factor() - scaling.low_freq_factor());
      divisor = 1 / ((1 - smooth) / scaling.factor() + smooth);
    }
    const auto value = static_cast<float>(divisor);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

void AddTokenizer(const GgufTokenizerFields& fields, GgufBuilder* out) {
  out->AddString("tokenizer.ggml.model", fields.model);
  if (fields.model == "none") return;
  out->AddString("tokenizer.ggml.pre", fields.pre.empty() ? "default" : fields.pre);
  out->AddStrings("tokenizer.ggml.tokens", fields.tokens);
  if (!fields.scores.empty()) out->AddFloats("tokenizer.ggml.scores", fields.scores);
  out->AddInts("tokenizer.ggml.token_type", fields.token_types);
  if (!fields.merges.empty()) out->AddStrings("tokenizer.ggml.merges", fields.merges);
  const std::pair<const char*, const std::optional<uint32_t>*> ids[] = {
      {"bos", &fields.bos_id}, {"eos", &fields.eos_id},         {"eot", &fields.eot_id},
      {"eom", &fields.eom_id}, {"unknown", &fields.unknown_id},
  };
  for (const auto& [name, id] : ids) {
    if (id->has_value()) out->AddU32(absl::StrCat("tokenizer.ggml.", name, "_token_id"), **id);
  }
  out->AddBool("tokenizer.ggml.add_bos_token", fields.add_bos.value_or(false));
  out->AddBool("tokenizer.ggml.add_eos_token", fields.add_eos.value_or(false));
  if (fields.add_space_prefix.has_value())
    out->AddBool("tokenizer.ggml.add_space_prefix", *fields.add_space_prefix);
  if (!fields.chat_template.empty())
    out->AddString("tokenizer.chat_template", fields.chat_template);
}

}  // namespace

absl::StatusOr<ExportReport> ExportGguf(const ModelFile& model, const std::string& path,
                                        bool overwrite, ThreadPool& pool,
                                        absl::FunctionRef<void(int64_t done_bytes)> progress) {
  const pb::ModelConfig& config = model.config();
  // Mistral is a llama there. Llama's rows are interleaved there, qwen2's are not.
  const std::string architecture = config.architecture() == "qwen2" ? "qwen2" : "llama";
  absl::StatusOr<std::vector<ModelTensor>> listed = ListModelTensors(model);
  if (!listed.ok()) return listed.status();
  ExportReport report;
  std::vector<OutputTensor> tensors;
  std::map<uint32_t, int64_t> bytes_of_file_type;
  std::vector<uint32_t> types;
  std::set<std::string> without_type;  // encodings that ggml does not have
  for (const ModelTensor& tensor : *listed) {
    const TensorView& view = *tensor.view;
    const int heads = architecture == "llama" ? RotaryHeads(config, tensor.names->canonical) : 0;
    const StoredRows rows(view, heads);
    const std::string name = OfLayer(tensor.names->gguf, tensor.layer);
    const GgmlType& type = view.shape.size() == 1 ? kGgmlTypes[0] : TypeOf(view);
    tensors.push_back(Info(type.encoding).scale_bytes > 0 ? AsBlocks(name, type.name, rows)
                                                          : AsFloats(name, type.encoding, rows));
    tensors.back().type = type.name;
    types.push_back(type.type);
    if (type.encoding != view.geometry.encoding && view.shape.size() == 2)
      without_type.insert(Info(view.geometry.encoding).name);
    if (view.shape.size() == 2) bytes_of_file_type[type.file_type] += tensors.back().bytes();
  }
  if (!without_type.empty()) {
    report.notes.push_back(absl::StrCat(
        "GGUF has no type for ", absl::StrJoin(without_type, ", "),
        ": decoded to F16; a model converted with --type q4_0 or q8 is carried bit for bit"));
  }
  if (config.rope_scaling().kind() == pb::RopeScaling::LLAMA3) {
    tensors.push_back(
        FromBytes("rope_freqs.weight", "F32", {config.head_dim() / 2}, RopeFactors(config)));
    types.push_back(kGgmlTypes[0].type);
  }

  GgufBuilder builder;
  builder.AddString("general.architecture", architecture);
  builder.AddString("general.type", "model");
  const std::string file = model.path().substr(model.path().rfind('/') + 1);
  builder.AddString("general.name", file.substr(0, file.rfind('.')));
  builder.AddString("general.quantized_by", absl::StrCat("quire ", kVersion));
  builder.AddU32("general.quantization_version", 2);
  uint32_t file_type = 0;
  int64_t most = -1;
  for (const auto& [type, bytes] : bytes_of_file_type) {
    if (bytes > most) file_type = type, most = bytes;
  }
  builder.AddU32("general.file_type", file_type);
  AddConfig(config, architecture, &report.notes, &builder);
  GgufTokenizerFields fields;
  fields.model = "none";
  if (model.has_tokenizer()) {
    absl::StatusOr<pb::Tokenizer> tokenizer = model.LoadTokenizer();
    if (!tokenizer.ok()) return tokenizer.status();
    absl::StatusOr<GgufTokenizerFields> exported =
        ExportGgufTokenizer(*tokenizer, config.vocab_size(), &report.notes);
    if (!exported.ok()) return exported.status();
    fields = *std::move(exported);
  }
  AddTokenizer(fields, &builder);
  int64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].offset = offset;
    builder.AddTensor(tensors[i].name, types[i], tensors[i].shape, offset);
    offset = RoundUp(offset + tensors[i].bytes(), kGgufAlignment);
  }
  const std::string head = builder.Build();
  for (OutputTensor& tensor : tensors) tensor.offset += static_cast<int64_t>(head.size());
  report.bytes = static_cast<int64_t>(head.size()) + offset;

  absl::StatusOr<std::unique_ptr<NewFile>> out = NewFile::Create(path, overwrite);
  if (!out.ok()) return out.status();
  absl::Status status = (*out)->Reserve(report.bytes);
  if (status.ok()) status = (*out)->WriteAt(0, head.data(), static_cast<int64_t>(head.size()));
  if (!status.ok()) return status;
  status = WriteTensors(tensors, **out, pool, progress, &report);
  if (status.ok()) status = (*out)->Sync();
  if (status.ok()) status = (*out)->GiveName();
  if (!status.ok()) return status;
  return report;
}

}  // namespace quire
