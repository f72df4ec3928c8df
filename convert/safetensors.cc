// safetensors: eight bytes of header length, a JSON header, then the tensors' bytes without gaps.
#include <algorithm>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "convert/little_endian.h"
#include "convert/quote.h"
#include "convert/tensor_source.h"
#include "convert/text_coding.h"
#include "convert/torch_listing.h"
#include "format/file.h"

namespace quire {
namespace {

using nlohmann::json;

// The format's own limit, and that of its reference reader.
constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kLengthBytes = 8;
constexpr absl::string_view kMetadataKey = "__metadata__";

struct NamedDType {
  const char* name;
  DType dtype;
};
constexpr NamedDType kDTypes[] = {
    {"F64", DType::kF64},        {"F32", DType::kF32},
    {"F16", DType::kF16},        {"BF16", DType::kBF16},
    {"I64", DType::kI64},        {"I32", DType::kI32},
    {"I16", DType::kI16},        {"I8", DType::kI8},
    {"U8", DType::kU8},          {"BOOL", DType::kBool},
    {"U16", DType::kU16},        {"U32", DType::kU32},
    {"U64", DType::kU64},        {"F8_E4M3", DType::kF8E4M3FN},
    {"F8_E5M2", DType::kF8E5M2}, {"C64", DType::kComplex64},
};
constexpr const char* kUnsupportedDTypes[] = {"F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                              "F6_E2M3", "F6_E3M2",     "F4"};

struct Entry {
  SourceTensor tensor;
  int64_t begin = 0;  // in the data
  int64_t end = 0;
};

// Takes the header's JSON as it is parsed, so that duplicate names are seen (a map would keep one
// of them) and no tree is built. Wants {"name": {"dtype": "F32", "shape": [..], "data_offsets": [a,
// b]},
// "__metadata__": {"key": "value"}} and nothing else.
class HeaderHandler {
 public:
  using number_integer_t = json::number_integer_t;
  using number_unsigned_t = json::number_unsigned_t;
  using number_float_t = json::number_float_t;
  using string_t = json::string_t;
  using binary_t = json::binary_t;

  explicit HeaderHandler(std::string path) : path_(std::move(path)) {}

  bool start_object(std::size_t) {
    if (depth_ == 0 || (depth_ == 1 && !name_.empty())) {
      ++depth_;
      return true;
    }
    return Fail("nests deeper than the format does");
  }
  bool end_object() {
    if (--depth_ == 1) {
      if (!in_metadata_ && !FinishTensor()) return false;
      in_metadata_ = false;
      name_.clear();
    }
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ != 2 || in_metadata_ || numbers_ != nullptr)
      return Fail("an array in the wrong place");
    if (field_ == "shape") {
      numbers_ = &shape_;
    } else if (field_ == "data_offsets") {
      numbers_ = &offsets_;
    } else {
      return Fail(absl::StrCat("an array for ", Quote(field_)));
    }
    return true;
  }
  bool end_array() {
    numbers_ = nullptr;
    return true;
  }
  bool key(string_t& text) {
    if (depth_ == 1) {
      if (!names_.insert(text).second) return Fail(absl::StrCat("two entries named ", Quote(text)));
      if (text.empty() || text.size() > kMaxTensorNameBytes) {
        return Fail(absl::StrCat("a tensor name of ", text.size(), " bytes; 1 to ",
                                 kMaxTensorNameBytes, " are allowed"));
      }
      if (!IsPlainText(text))
        return Fail(absl::StrCat("control characters in the name ", Quote(text)));
      name_ = text;
      in_metadata_ = name_ == kMetadataKey;
      dtype_.clear();
      shape_.clear();
      offsets_.clear();
      fields_.clear();
      return true;
    }
    field_ = text;
    auto& seen = in_metadata_ ? metadata_keys_ : fields_;
    if (!seen.insert(text).second) {
      return Fail(absl::StrCat("two entries ", Quote(text), " in ", Quote(name_)));
    }
    if (!in_metadata_ && field_ != "dtype" && field_ != "shape" && field_ != "data_offsets") {
      return Fail(absl::StrCat("an unknown entry ", Quote(text), " in ", Quote(name_)));
    }
    return true;
  }
  bool string(string_t& text) {
    if (depth_ == 2 && in_metadata_) {
      metadata_.emplace_back(field_,
                             json(text).dump(-1, ' ', false, json::error_handler_t::replace));
      return true;
    }
    if (depth_ != 2 || numbers_ != nullptr || field_ != "dtype")
      return Fail("a string in the wrong place");
    dtype_ = text;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) {
    if (numbers_ == nullptr) return Fail("a number in the wrong place");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(absl::StrCat(Quote(name_), " has a ", field_, " of ", value));
    }
    if (numbers_->size() >= kMaxTensorRank) {
      return Fail(absl::StrCat(Quote(name_), " has more than ", kMaxTensorRank, " dimensions"));
    }
    numbers_->push_back(static_cast<int64_t>(value));
    return true;
  }
  bool number_integer(number_integer_t value) {
    return Fail(absl::StrCat(Quote(name_), " has a ", field_, " of ", value));
  }
  bool number_float(number_float_t, const string_t& text) {
    return Fail(absl::StrCat(Quote(name_), " has a ", field_, " of ", Quote(text)));
  }
  bool null() { return Fail("a null"); }
  bool boolean(bool) { return Fail("a boolean"); }
  bool binary(binary_t&) { return Fail("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const json::exception&) {
    return Fail(absl::StrCat("no valid JSON at byte ", position));
  }

  absl::Status status() const { return status_; }
  std::vector<Entry>& entries() { return entries_; }
  std::vector<std::pair<std::string, std::string>>& metadata() { return metadata_; }

 private:
  bool Fail(absl::string_view what) {
    status_ = absl::InvalidArgumentError(absl::StrCat(path_, ": safetensors header: ", what));
    return false;
  }

  bool FinishTensor() {
    const std::string tensor = absl::StrCat("tensor ", Quote(name_));
    if (fields_.size() != 3)
      return Fail(absl::StrCat(tensor, " lacks its dtype, shape or data_offsets"));
    if (offsets_.size() != 2 || offsets_[0] > offsets_[1]) {
      return Fail(absl::StrCat(tensor, " has malformed data_offsets"));
    }
    const NamedDType* dtype =
        std::find_if(std::begin(kDTypes), std::end(kDTypes),
                     [this](const NamedDType& row) { return dtype_ == row.name; });
    if (dtype == std::end(kDTypes)) {
      for (const char* name : kUnsupportedDTypes) {
        if (dtype_ != name) continue;
        status_ = absl::UnimplementedError(
            absl::StrCat(path_, ": ", tensor, ": its dtype ", dtype_, " is not supported"));
        return false;
      }
      return Fail(absl::StrCat(tensor, " has the unknown dtype ", Quote(dtype_)));
    }
    int64_t bytes = Info(dtype->dtype).block_bytes;
    for (int64_t d : shape_) {
      // Zeros count as ones here, so that no product of the others can wrap beside them.
      if (__builtin_mul_overflow(bytes, std::max<int64_t>(d, 1), &bytes)) {
        return Fail(absl::StrCat(tensor, ": the product of its dimensions overflows"));
      }
    }
    if (std::count(shape_.begin(), shape_.end(), 0) > 0) bytes = 0;
    if (offsets_[1] - offsets_[0] != bytes) {
      return Fail(absl::StrCat(tensor, " has ", offsets_[1] - offsets_[0], " bytes, its shape and ",
                               dtype_, " make ", bytes));
    }
    entries_.push_back({{name_, shape_, dtype->dtype}, offsets_[0], offsets_[1]});
    return true;
  }

  const std::string path_;
  absl::Status status_;
  int depth_ = 0;
  std::string name_, field_, dtype_;
  bool in_metadata_ = false;
  std::vector<int64_t> shape_, offsets_;
  std::vector<int64_t>* numbers_ = nullptr;  // the array that is open
  absl::flat_hash_set<std::string> names_, fields_, metadata_keys_;
  std::vector<Entry> entries_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

class Safetensors : public TensorSource {
 public:
  Safetensors(File file, int64_t data_offset, std::vector<Entry> entries,
              std::vector<std::pair<std::string, std::string>> metadata)
      : file_(std::move(file)), metadata_(std::move(metadata)) {
    for (Entry& entry : entries) {
      tensors_.push_back(std::move(entry.tensor));
      offsets_.push_back(data_offset + entry.begin);
    }
  }

  absl::string_view container() const override { return "safetensors"; }
  absl::Span<const SourceTensor> tensors() const override { return tensors_; }
  absl::Status Read(int index, int64_t begin, int64_t, absl::Span<uint8_t> out) const override {
    return file_.ReadAt(offsets_[index] + begin * Info(tensors_[index].dtype).block_bytes, out);
  }
  absl::Span<const std::pair<std::string, std::string>> metadata() const override {
    return metadata_;
  }
  std::vector<std::pair<std::string, int64_t>> files() const override {
    return {{file_.path().substr(file_.path().rfind('/') + 1), file_.size()}};
  }

 private:
  File file_;
  std::vector<SourceTensor> tensors_;  // by offset
  std::vector<int64_t> offsets_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  if (file->size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a safetensors file: ", file->size(), " bytes"));
  }
  uint8_t length[kLengthBytes];
  if (auto s = file->ReadAt(0, absl::MakeSpan(length)); !s.ok()) return s;
  const auto header_bytes = LoadLittleEndian<uint64_t>(length);
  const int64_t behind = file->size() - kLengthBytes;
  if (header_bytes < 2 || header_bytes > static_cast<uint64_t>(behind)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a safetensors header of ", header_bytes,
                                                   " bytes, where ", behind, " follow"));
  }
  if (header_bytes > static_cast<uint64_t>(kMaxHeaderBytes)) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": a safetensors header of ",
                                                     header_bytes, " bytes; the limit is ",
                                                     kMaxHeaderBytes));
  }
  std::string header(header_bytes, '\0');
  if (auto s = file->ReadAt(kLengthBytes,
                            absl::MakeSpan(reinterpret_cast<uint8_t*>(&header[0]), header.size()));
      !s.ok()) {
    return s;
  }
  if (header[0] != '{') {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a safetensors file: its header does not begin with '{'"));
  }
  HeaderHandler handler(path);
  if (!json::sax_parse(header, &handler)) return handler.status();

  std::vector<Entry>& entries = handler.entries();
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::make_pair(a.begin, a.end) < std::make_pair(b.begin, b.end);
  });
  const int64_t data_bytes = behind - static_cast<int64_t>(header_bytes);
  int64_t end = 0;
  for (const Entry& entry : entries) {
    const std::string place = absl::StrCat(path, ": tensor ", Quote(entry.tensor.name));
    if (entry.begin != end) {
      return absl::InvalidArgumentError(absl::StrCat(
          place, " begins at byte ", entry.begin, " of the data, ",
          entry.begin < end ? "an overlap with" : "a hole behind", " what ends at ", end));
    }
    end = entry.end;
    if (end > data_bytes) {
      return absl::DataLossError(absl::StrCat(path, ": cut short: tensor ",
                                              Quote(entry.tensor.name), " ends at byte ", end,
                                              " of the data, ", data_bytes, " are here"));
    }
  }
  if (end != data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", data_bytes - end, " trailing bytes behind the last tensor"));
  }
  return std::make_unique<Safetensors>(*std::move(file), kLengthBytes + header_bytes,
                                       std::move(entries), std::move(handler.metadata()));
}

}  // namespace quire
