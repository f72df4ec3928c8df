#include "format/manifest_check.h"

#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "format/header.h"

namespace quire {
namespace {

absl::Status Invalid(const pb::TensorEntry& tensor, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name(), "\": ", what));
}

// Readers from before q5 take codebooks of 16 values only.
constexpr int kPlainCodebookSize = 16;
constexpr char kCodebooksOf32[] = "codebook32";

bool HasFeature(const pb::Manifest& manifest, absl::string_view feature) {
  const auto& features = manifest.required_features();
  return std::find(features.begin(), features.end(), feature) != features.end();
}

absl::Status CheckTensor(const pb::Manifest& manifest, const pb::TensorEntry& tensor) {
  if (tensor.name().empty()) return Invalid(tensor, "a tensor without a name");
  if (tensor.name().size() > kMaxNameBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("tensor name of ", tensor.name().size(),
                                                     " bytes, the limit is ", kMaxNameBytes));
  }
  for (const char c : tensor.name()) {
    if (c <= ' ' || c > '~') return Invalid(tensor, "a name holds printable ASCII only");
  }
  if (!IsKnownEncoding(tensor.encoding())) {
    return absl::UnimplementedError(
        absl::StrCat("tensor \"", tensor.name(), "\": unknown encoding ", tensor.encoding()));
  }
  if (tensor.layout() != pb::LAYOUT_PANELS && tensor.layout() != pb::LAYOUT_ROWS) {
    return absl::UnimplementedError(
        absl::StrCat("tensor \"", tensor.name(), "\": unknown layout ", tensor.layout()));
  }
  const int rank = tensor.shape_size();
  if (rank < 1 || rank > 2) return Invalid(tensor, absl::StrCat("rank ", rank, ", wanted 1 or 2"));
  if (rank == 1 && tensor.layout() != pb::LAYOUT_ROWS) return Invalid(tensor, "a vector in panels");
  uint64_t elements = 1;
  for (const uint64_t d : tensor.shape()) {
    if (d < 1 || d > static_cast<uint64_t>(kMaxDimension))
      return Invalid(tensor, absl::StrCat("dimension ", d));
    elements *= d;  // at most 2^62
  }
  if (elements > static_cast<uint64_t>(kMaxElements)) {
    return absl::ResourceExhaustedError(absl::StrCat("tensor \"", tensor.name(), "\": ", elements,
                                                     " elements, the limit is ", kMaxElements));
  }
  const int codebook_size = Info(static_cast<Encoding>(tensor.encoding())).codebook_size;
  const bool wants_codebook = codebook_size != 0;
  if (wants_codebook != tensor.has_codebook()) {
    return Invalid(tensor,
                   wants_codebook ? "no codebook" : "a codebook that its encoding has no use for");
  }
  if (wants_codebook && tensor.codebook() >= static_cast<uint32_t>(manifest.codebooks_size())) {
    return Invalid(tensor,
                   absl::StrCat("codebook ", tensor.codebook(), " of ", manifest.codebooks_size()));
  }
  if (wants_codebook) {
    const size_t size = manifest.codebooks(static_cast<int>(tensor.codebook())).values().size();
    if (size != static_cast<size_t>(codebook_size)) {
      return Invalid(tensor, absl::StrCat("a codebook of ", size, " values, its encoding has ",
                                          codebook_size));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckConfig(const pb::ModelConfig& config) {
  const struct {
    const char* name;
    uint32_t value, limit;
  } fields[] = {
      {"n_layers", config.n_layers(), 1 << 12},
      {"n_heads", config.n_heads(), 1 << 12},
      {"n_kv_heads", config.n_kv_heads(), 1 << 12},
      {"head_dim", config.head_dim(), 1 << 14},
      {"hidden_dim", config.hidden_dim(), 1 << 20},
      {"ffn_dim", config.ffn_dim(), 1 << 22},
      {"vocab_size", config.vocab_size(), 1 << 24},
      {"context_tokens", config.context_tokens(), 1 << 30},
  };
  for (const auto& field : fields) {
    if (field.value < 1 || field.value > field.limit) {
      return absl::InvalidArgumentError(
          absl::StrCat("config ", field.name, " is ", field.value, ", wanted 1 to ", field.limit));
    }
  }
  if (config.n_heads() % config.n_kv_heads() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("config n_heads ", config.n_heads(),
                                                   " is no multiple of n_kv_heads ",
                                                   config.n_kv_heads()));
  }
  if (config.head_dim() % 2 != 0) return absl::InvalidArgumentError("config head_dim is odd");
  if (!(config.norm_eps() >= 0 && config.norm_eps() < 1))
    return absl::InvalidArgumentError("config norm_eps out of range");
  if (!(config.rope_theta() > 0 && std::isfinite(config.rope_theta()))) {
    return absl::InvalidArgumentError("config rope_theta is not a positive number");
  }
  const pb::RopeScaling& scaling = config.rope_scaling();
  if (scaling.kind() < pb::RopeScaling::NONE || scaling.kind() > pb::RopeScaling::LLAMA3) {
    return absl::UnimplementedError(
        absl::StrCat("config rope_scaling kind ", scaling.kind(), " is unknown"));
  }
  if (scaling.kind() != pb::RopeScaling::NONE &&
      !(scaling.factor() > 0 && std::isfinite(scaling.factor()))) {
    return absl::InvalidArgumentError("config rope_scaling factor is not a positive number");
  }
  if (scaling.kind() == pb::RopeScaling::LLAMA3 &&
      !(scaling.low_freq_factor() > 0 && scaling.high_freq_factor() > scaling.low_freq_factor() &&
        std::isfinite(scaling.high_freq_factor()) && scaling.original_context_tokens() > 0)) {
    return absl::InvalidArgumentError(
        "config rope_scaling: low and high frequency factors out of range");
  }
  return absl::OkStatus();
}

}  // namespace

Geometry GeometryOf(const pb::TensorEntry& tensor) {
  const bool matrix = tensor.shape_size() == 2;
  return Geometry{static_cast<Encoding>(tensor.encoding()), static_cast<Layout>(tensor.layout()),
                  matrix ? static_cast<int64_t>(tensor.shape(0)) : 1,
                  static_cast<int64_t>(tensor.shape(matrix ? 1 : 0))};
}

const int8_t* CodebookOf(const pb::Manifest& manifest, const pb::TensorEntry& entry) {
  if (!entry.has_codebook()) return nullptr;
  return reinterpret_cast<const int8_t*>(manifest.codebooks(entry.codebook()).values().data());
}

bool IsKnownFeature(const std::string& feature) { return feature == kCodebooksOf32; }

void SetEncoding(Encoding encoding, const int8_t* codebook, pb::Manifest* manifest,
                 pb::TensorEntry* entry) {
  entry->set_encoding(static_cast<pb::EncodingCode>(encoding));
  entry->clear_codebook();
  const int size = Info(encoding).codebook_size;
  if (size == 0) return;
  const std::string values(reinterpret_cast<const char*>(codebook), size);
  int index = 0;
  while (index < manifest->codebooks_size() && manifest->codebooks(index).values() != values) {
    ++index;
  }
  entry->set_codebook(index);
  if (index < manifest->codebooks_size()) return;
  manifest->add_codebooks()->set_values(values);
  if (size > kPlainCodebookSize && !HasFeature(*manifest, kCodebooksOf32)) {
    manifest->add_required_features(kCodebooksOf32);
  }
}

void ClearCodebooks(pb::Manifest* manifest) {
  manifest->clear_codebooks();
  auto* features = manifest->mutable_required_features();
  features->erase(std::remove(features->begin(), features->end(), kCodebooksOf32), features->end());
}

absl::Status CheckManifest(const pb::Manifest& manifest) {
  for (const std::string& feature : manifest.required_features()) {
    if (!IsKnownFeature(feature)) {
      return absl::UnimplementedError(absl::StrCat("the file requires feature \"", feature,
                                                   "\", which this program does not know"));
    }
  }
  if (manifest.tensors_size() > kMaxTensors) {
    return absl::ResourceExhaustedError(
        absl::StrCat(manifest.tensors_size(), " tensors, the limit is ", kMaxTensors));
  }
  for (const pb::Codebook& codebook : manifest.codebooks()) {
    const size_t size = codebook.values().size();
    if (size == kMaxCodebookSize && HasFeature(manifest, kCodebooksOf32)) continue;
    if (size != kPlainCodebookSize) {
      return absl::InvalidArgumentError(
          absl::StrCat("codebook of ", size, " values, wanted ", kPlainCodebookSize, ", or ",
                       kMaxCodebookSize, " where feature \"", kCodebooksOf32, "\" is required"));
    }
  }
  absl::Status status = CheckConfig(manifest.config());
  if (!status.ok()) return status;
  absl::flat_hash_set<absl::string_view> names;
  for (const pb::TensorEntry& tensor : manifest.tensors()) {
    status = CheckTensor(manifest, tensor);
    if (!status.ok()) return status;
    if (!names.insert(tensor.name()).second) return Invalid(tensor, "a second tensor of this name");
  }
  return absl::OkStatus();
}

int64_t PlanOffsets(pb::Manifest* manifest, int64_t manifest_bytes, int64_t tokenizer_bytes) {
  int64_t offset = RoundUp(kHeaderBytes + manifest_bytes, kTensorAlignment);
  for (pb::TensorEntry& tensor : *manifest->mutable_tensors()) {
    const int64_t bytes = GeometryOf(tensor).bytes();
    tensor.set_offset(offset);
    tensor.set_bytes(bytes);
    offset = RoundUp(offset + bytes, kTensorAlignment);
  }
  if (tokenizer_bytes > 0) {
    manifest->mutable_tokenizer()->set_offset(offset);
    manifest->mutable_tokenizer()->set_bytes(tokenizer_bytes);
    offset = RoundUp(offset + tokenizer_bytes, kTensorAlignment);
  }
  return offset;
}

}  // namespace quire
