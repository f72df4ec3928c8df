#include "convert/gguf.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/gguf_header.h"
#include "convert/json_object.h"
#include "convert/quote.h"
#include "convert/tensor_source.h"
#include "format/file.h"

namespace quire {
namespace {

class GgufSource : public TensorSource {
 public:
  GgufSource(File file, GgufHeader header) : file_(std::move(file)) {
    for (GgufTensor& t : header.tensors) {
      tensors_.push_back(std::move(t.tensor));
      offsets_.push_back(t.offset);
    }
    for (GgufValue& value : header.metadata) {
      metadata_.emplace_back(std::move(value.key), std::move(value.json));
    }
  }

  absl::string_view container() const override { return "gguf"; }
  absl::Span<const SourceTensor> tensors() const override { return tensors_; }
  absl::Span<const std::pair<std::string, std::string>> metadata() const override {
    return metadata_;
  }
  std::vector<std::pair<std::string, int64_t>> files() const override {
    return {{file_.path().substr(file_.path().rfind('/') + 1), file_.size()}};
  }

  absl::Status Read(int index, int64_t begin, int64_t /*count*/,
                    absl::Span<uint8_t> out) const override {
    const SourceTensor& tensor = tensors_[static_cast<size_t>(index)];
    const DTypeInfo& info = Info(tensor.dtype);
    if (tensor.dtype == DType::kGgmlOther) {
      return absl::UnimplementedError(absl::StrCat(file_.path(), ": tensor ", Quote(tensor.name),
                                                   " is of a type that is not supported"));
    }
    return file_.ReadAt(
        offsets_[static_cast<size_t>(index)] + begin / info.block_elements * info.block_bytes, out);
  }

 private:
  const File file_;
  std::vector<SourceTensor> tensors_;
  std::vector<int64_t> offsets_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

// Reads the metadata's arrays, which the header only passes over. The first error sticks.
class ArrayReader {
 public:
  ArrayReader(const File& file, const GgufHeader& header) : file_(file), header_(header) {}

  const absl::Status& status() const { return status_; }

  // Empty where the key is absent. Preconditions: arrays of these types, as the header checks.
  std::vector<std::string> Strings(absl::string_view key) {
    return Elements<std::string>(
        key, [](GgufCursor& in) { return in.String("a token", kMaxGgufStringBytes); });
  }
  template <typename T>
  std::vector<T> Numbers(absl::string_view key) {
    return Elements<T>(key, [](GgufCursor& in) { return in.Read<T>("an array"); });
  }

 private:
  template <typename T, typename ReadElement>
  std::vector<T> Elements(absl::string_view key, ReadElement read) {
    std::vector<T> result;
    const GgufValue* value = header_.Find(key);
    if (value == nullptr || !status_.ok()) return result;
    result.reserve(static_cast<size_t>(value->count));
    GgufCursor in(file_, value->position);
    for (int64_t i = 0; i < value->count && in.status().ok(); ++i) result.push_back(read(in));
    status_ = in.status();
    return result;
  }

  const File& file_;
  const GgufHeader& header_;
  absl::Status status_;
};

std::optional<uint32_t> OptionalId(JsonObject& json, const char* key) {
  if (!json.Has(key)) return std::nullopt;
  const int64_t id = json.Int(key);
  // llama.cpp writes -1 as 2^32 - 1 for none.
  if (id < 0 || id >= UINT32_MAX) return std::nullopt;
  return static_cast<uint32_t>(id);
}

std::optional<bool> OptionalBool(JsonObject& json, const char* key) {
  if (!json.Has(key)) return std::nullopt;
  return json.Bool(key, false);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenGguf(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<GgufHeader> header = ReadGgufHeader(*file);
  if (!header.ok()) return header.status();
  return std::make_unique<GgufSource>(*std::move(file), *std::move(header));
}

absl::StatusOr<GgufTokenizerFields> ReadGgufTokenizer(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<GgufHeader> header = ReadGgufHeader(*file);
  if (!header.ok()) return header.status();
  if (header->Find("tokenizer.ggml.model") == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, ": no tokenizer in the metadata"));
  }
  nlohmann::json settings = nlohmann::json::object();
  for (const GgufValue& value : header->metadata) {
    settings[value.key] = nlohmann::json::parse(value.json, nullptr, false);
  }
  JsonObject json(settings, path);
  ArrayReader arrays(*file, *header);
  GgufTokenizerFields fields;
  fields.model = json.String("tokenizer.ggml.model", "");
  if (fields.model == "none") {
    return absl::NotFoundError(absl::StrCat(path, ": the metadata says that it has no tokenizer"));
  }
  fields.pre = json.String("tokenizer.ggml.pre", "");
  fields.tokens = arrays.Strings("tokenizer.ggml.tokens");
  fields.scores = arrays.Numbers<float>("tokenizer.ggml.scores");
  fields.token_types = arrays.Numbers<int32_t>("tokenizer.ggml.token_type");
  fields.merges = arrays.Strings("tokenizer.ggml.merges");
  fields.bos_id = OptionalId(json, "tokenizer.ggml.bos_token_id");
  fields.eos_id = OptionalId(json, "tokenizer.ggml.eos_token_id");
  fields.eot_id = OptionalId(json, "tokenizer.ggml.eot_token_id");
  fields.eom_id = OptionalId(json, "tokenizer.ggml.eom_token_id");
  fields.unknown_id = OptionalId(json, "tokenizer.ggml.unknown_token_id");
  fields.add_bos = OptionalBool(json, "tokenizer.ggml.add_bos_token");
  fields.add_eos = OptionalBool(json, "tokenizer.ggml.add_eos_token");
  fields.add_space_prefix = OptionalBool(json, "tokenizer.ggml.add_space_prefix");
  fields.chat_template = json.String("tokenizer.chat_template", "");
  if (!json.status().ok()) return json.status();
  if (!arrays.status().ok()) return arrays.status();
  return fields;
}

}  // namespace quire
