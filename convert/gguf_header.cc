#include "convert/gguf_header.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "convert/quote.h"
#include "convert/text_coding.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr int kMaxDimensions = 4;
constexpr int64_t kDefaultAlignment = 32;

struct ValueTypeInfo {
  const char* name;
  int bytes;  // 0: not of fixed size
};
// By GgufType.
constexpr ValueTypeInfo kValueTypes[] = {
    {"uint8", 1},  {"int8", 1},    {"uint16", 2},  {"int16", 2},  {"uint32", 4},
    {"int32", 4},  {"float32", 4}, {"bool", 1},    {"string", 0}, {"array", 0},
    {"uint64", 8}, {"int64", 8},   {"float64", 8},
};
const ValueTypeInfo& InfoOf(GgufType type) { return kValueTypes[static_cast<size_t>(type)]; }

// ggml's tensor types by their numbers. Those that are not here never were, or were removed.
struct TensorType {
  uint32_t id;
  DType dtype;
  int block_elements, block_bytes;
};
constexpr TensorType kTensorTypes[] = {
    {0, DType::kF32, 1, 4},
    {1, DType::kF16, 1, 2},
    {2, DType::kGgmlQ4_0, 32, 18},
    {3, DType::kGgmlQ4_1, 32, 20},
    {6, DType::kGgmlQ5_0, 32, 22},
    {7, DType::kGgmlQ5_1, 32, 24},
    {8, DType::kGgmlQ8_0, 32, 34},
    {9, DType::kGgmlOther, 32, 40},  // q8_1
    {10, DType::kGgmlQ2K, 256, 84},
    {11, DType::kGgmlQ3K, 256, 110},
    {12, DType::kGgmlQ4K, 256, 144},
    {13, DType::kGgmlQ5K, 256, 176},
    {14, DType::kGgmlQ6K, 256, 210},
    {15, DType::kGgmlOther, 256, 292},  // q8_k
    {16, DType::kGgmlOther, 256, 66},   // iq2_xxs
    {17, DType::kGgmlOther, 256, 74},   // iq2_xs
    {18, DType::kGgmlOther, 256, 98},   // iq3_xxs
    {19, DType::kGgmlOther, 256, 50},   // iq1_s
    {20, DType::kGgmlOther, 32, 18},    // iq4_nl
    {21, DType::kGgmlOther, 256, 110},  // iq3_s
    {22, DType::kGgmlOther, 256, 82},   // iq2_s
    {23, DType::kGgmlOther, 256, 136},  // iq4_xs
    {24, DType::kI8, 1, 1},
    {25, DType::kI16, 1, 2},
    {26, DType::kI32, 1, 4},
    {27, DType::kI64, 1, 8},
    {28, DType::kF64, 1, 8},
    {29, DType::kGgmlOther, 256, 56},  // iq1_m
    {30, DType::kBF16, 1, 2},
    {34, DType::kGgmlOther, 256, 54},  // tq1_0
    {35, DType::kGgmlOther, 256, 66},  // tq2_0
    {39, DType::kGgmlOther, 32, 17},   // mxfp4
    {40, DType::kGgmlOther, 64, 36},   // nvfp4
    {41, DType::kGgmlOther, 128, 18},  // q1_0
};

// Keys that later code relies on to be of one type (arrays: of elements of it).
struct KnownType {
  const char* key;
  bool array;
  GgufType type;
};
constexpr KnownType kKnownTypes[] = {
    {"general.alignment", false, GgufType::kU32},
    {"general.architecture", false, GgufType::kString},
    {"tokenizer.ggml.tokens", true, GgufType::kString},
    {"tokenizer.ggml.merges", true, GgufType::kString},
    {"tokenizer.ggml.scores", true, GgufType::kF32},
    {"tokenizer.ggml.token_type", true, GgufType::kI32},
};

template <typename T>
std::string NumberJson(GgufCursor& in) {
  const T number = in.Read<T>("a metadata value");
  if constexpr (std::is_floating_point_v<T>) {
    // For which JSON has no number, and which must not count as absent.
    if (!std::isfinite(number)) return absl::StrCat("\"", number, "\"");
  }
  return nlohmann::json(number).dump();
}

std::string ScalarJson(GgufType type, GgufCursor& in) {
  switch (type) {
    case GgufType::kU8:
      return NumberJson<uint8_t>(in);
    case GgufType::kI8:
      return NumberJson<int8_t>(in);
    case GgufType::kU16:
      return NumberJson<uint16_t>(in);
    case GgufType::kI16:
      return NumberJson<int16_t>(in);
    case GgufType::kU32:
      return NumberJson<uint32_t>(in);
    case GgufType::kI32:
      return NumberJson<int32_t>(in);
    case GgufType::kF32:
      return NumberJson<float>(in);
    case GgufType::kU64:
      return NumberJson<uint64_t>(in);
    case GgufType::kI64:
      return NumberJson<int64_t>(in);
    case GgufType::kF64:
      return NumberJson<double>(in);
    case GgufType::kBool: {
      const auto value = in.Read<uint8_t>("a metadata value");
      if (value > 1) {
        in.Fail(absl::StatusCode::kInvalidArgument, absl::StrCat("a bool is ", value));
      }
      return value == 1 ? "true" : "false";
    }
    case GgufType::kString:
      return nlohmann::json(in.String("a metadata string", kMaxGgufStringBytes))
          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    case GgufType::kArray:
      break;
  }
  return "null";
}

void CheckName(GgufCursor& in, const std::string& name, const char* what) {
  if (name.empty() || name.find('\0') != std::string::npos || !IsValidUtf8(name)) {
    in.Fail(absl::StatusCode::kInvalidArgument,
            absl::StrCat(what, " is ", Quote(name), ", not a name in UTF-8"));
  }
}

GgufType ReadType(GgufCursor& in, const std::string& key) {
  const auto type = in.Read<uint32_t>("a metadata type");
  if (type < std::size(kValueTypes)) return static_cast<GgufType>(type);
  in.Fail(absl::StatusCode::kInvalidArgument,
          absl::StrCat(Quote(key), " is of unknown type ", type));
  return GgufType::kU8;
}

void ReadArray(GgufCursor& in, GgufValue& value) {
  value.element_type = ReadType(in, value.key);
  const auto count = in.Read<uint64_t>("the length of an array");
  value.position = in.position();
  if (!in.status().ok()) return;
  if (value.element_type == GgufType::kArray) {
    return in.Fail(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(Quote(value.key), " is an array of arrays"));
  }
  const ValueTypeInfo& info = InfoOf(value.element_type);
  const bool strings = value.element_type == GgufType::kString;
  const int64_t least_bytes = strings ? 8 : info.bytes;
  if (count > static_cast<uint64_t>(in.remaining() / least_bytes)) {
    return in.Fail(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(Quote(value.key), " has ", count, " elements, for which the ",
                                in.remaining(), " bytes left are too few"));
  }
  value.count = static_cast<int64_t>(count);
  if (strings && value.count > kMaxGgufArrayStrings) {
    return in.Fail(absl::StatusCode::kResourceExhausted,
                   absl::StrCat(Quote(value.key), " has ", count, " strings; at most ",
                                kMaxGgufArrayStrings, " are supported"));
  }
  if (strings) {
    for (int64_t i = 0; i < value.count && in.status().ok(); ++i) in.SkipString("a string");
  } else {
    in.Skip(value.count * info.bytes, "an array");
  }
  value.json = absl::StrCat("{\"type\":\"", info.name, "\",\"length\":", value.count, "}");
}

GgufValue ReadValue(GgufCursor& in) {
  GgufValue value;
  value.key = in.String("a metadata key", kMaxGgufNameBytes);
  CheckName(in, value.key, "a metadata key");
  value.type = ReadType(in, value.key);
  if (!in.status().ok()) return value;
  for (const KnownType& known : kKnownTypes) {
    if (value.key == known.key && value.type != (known.array ? GgufType::kArray : known.type)) {
      in.Fail(absl::StatusCode::kInvalidArgument,
              absl::StrCat(Quote(value.key), " is of type ", InfoOf(value.type).name, ", not ",
                           known.array ? "an array" : InfoOf(known.type).name));
    }
  }
  if (value.type != GgufType::kArray) {
    value.json = ScalarJson(value.type, in);
    return value;
  }
  ReadArray(in, value);
  for (const KnownType& known : kKnownTypes) {
    if (in.status().ok() && value.key == known.key && value.element_type != known.type) {
      in.Fail(absl::StatusCode::kInvalidArgument,
              absl::StrCat(Quote(value.key), " is an array of ", InfoOf(value.element_type).name,
                           ", not of ", InfoOf(known.type).name));
    }
  }
  return value;
}

// Name, dimensions, type and offset of one tensor; the offset still counts from the data's start.
GgufTensor ReadTensor(GgufCursor& in) {
  GgufTensor result{};
  SourceTensor& tensor = result.tensor;
  tensor.name = in.String("a tensor's name", kMaxGgufNameBytes);
  CheckName(in, tensor.name, "a tensor's name");
  auto fail = [&](absl::string_view what) {
    in.Fail(absl::StatusCode::kInvalidArgument,
            absl::StrCat("tensor ", Quote(tensor.name), " ", what));
  };
  const auto n_dims = in.Read<uint32_t>("a tensor's rank");
  if (n_dims < 1 || n_dims > kMaxDimensions) {
    fail(absl::StrCat("has ", n_dims, " dimensions, not 1 to ", kMaxDimensions));
    return result;
  }
  int64_t elements = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    const auto size = in.Read<uint64_t>("a tensor's dimension");
    tensor.shape.push_back(static_cast<int64_t>(size));
    if (size > INT64_MAX || __builtin_mul_overflow(elements, tensor.shape.back(), &elements)) {
      fail("has more than 2^63 elements");
      return result;
    }
  }
  const int64_t row = tensor.shape.front();  // GGUF: fastest first
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  const auto type_id = in.Read<uint32_t>("a tensor's type");
  const auto offset = in.Read<uint64_t>("a tensor's offset");
  const auto* type = std::find_if(std::begin(kTensorTypes), std::end(kTensorTypes),
                                  [&](const TensorType& t) { return t.id == type_id; });
  if (type == std::end(kTensorTypes)) {
    fail(absl::StrCat("is of unknown type ", static_cast<int32_t>(type_id)));
    return result;
  }
  tensor.dtype = type->dtype;
  if (row % type->block_elements != 0) {
    fail(absl::StrCat("has rows of ", row, " elements, no multiple of its type's ",
                      type->block_elements));
  }
  if (__builtin_mul_overflow(elements / type->block_elements, type->block_bytes, &result.bytes)) {
    fail("has more than 2^63 bytes");
  }
  // Within the file, so that later sums cannot wrap.
  if (offset > static_cast<uint64_t>(INT64_MAX / 2)) fail(absl::StrCat("is at offset ", offset));
  result.offset = static_cast<int64_t>(offset);
  return result;
}

// A count that the bytes left can hold, or 0.
int64_t ReadCount(GgufCursor& in, const char* what, int64_t least_bytes, int64_t limit) {
  const auto count = in.Read<uint64_t>(what);
  if (!in.status().ok()) return 0;
  if (count > static_cast<uint64_t>(in.remaining() / least_bytes)) {
    in.Fail(absl::StatusCode::kInvalidArgument,
            absl::StrCat(what, " is ", count, ", for which the ", in.remaining(),
                         " bytes left are too few"));
    return 0;
  }
  if (count > static_cast<uint64_t>(limit)) {
    in.Fail(absl::StatusCode::kResourceExhausted,
            absl::StrCat(what, " is ", count, "; at most ", limit, " are supported"));
    return 0;
  }
  return static_cast<int64_t>(count);
}

void CheckMagicAndVersion(GgufCursor& in) {
  const auto magic = in.Read<uint32_t>("the magic");
  const bool swapped_magic = std::memcmp(&magic, "FUGG", 4) == 0;
  if (in.status().ok() && std::memcmp(&magic, "GGUF", 4) != 0 && !swapped_magic) {
    return in.Fail(absl::StatusCode::kInvalidArgument, "not a GGUF file");
  }
  const auto version = in.Read<uint32_t>("the version");
  if (!in.status().ok()) return;
  if (swapped_magic || (version != 0 && (version & 0xffff) == 0)) {
    return in.Fail(absl::StatusCode::kUnimplemented, "a big-endian GGUF file is not supported");
  }
  if (version != 2 && version != 3) {
    in.Fail(absl::StatusCode::kUnimplemented,
            absl::StrCat("GGUF version ", version, " is not supported; supported: 2, 3"));
  }
}

absl::StatusOr<int64_t> Alignment(const File& file, const GgufHeader& header) {
  const GgufValue* value = header.Find("general.alignment");
  if (value == nullptr) return kDefaultAlignment;
  const int64_t alignment = nlohmann::json::parse(value->json, nullptr, false).get<int64_t>();
  if (alignment < 1 || alignment > kMaxGgufAlignment || (alignment & (alignment - 1)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": 'general.alignment' is ",
                                                   alignment, ", not a power of two of at most ",
                                                   kMaxGgufAlignment));
  }
  return alignment;
}

// Makes offsets count from the file's start, and checks where tensors lie.
absl::Status PlaceTensors(const File& file, int64_t data_start, int64_t alignment,
                          std::vector<GgufTensor>& tensors) {
  std::vector<const GgufTensor*> by_offset;
  for (GgufTensor& t : tensors) {
    if (t.offset % alignment != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": tensor ", Quote(t.tensor.name), " is at offset ", t.offset,
                       ", no multiple of the alignment, ", alignment));
    }
    t.offset += data_start;
    if (t.bytes > file.size() - t.offset) {
      return absl::DataLossError(
          absl::StrCat(file.path(), ": tensor ", Quote(t.tensor.name), " needs bytes ", t.offset,
                       " to ", static_cast<uint64_t>(t.offset) + static_cast<uint64_t>(t.bytes),
                       "; the file ends at ", file.size()));
    }
    if (t.bytes > 0) by_offset.push_back(&t);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const GgufTensor &before = *by_offset[i - 1], &after = *by_offset[i];
    if (before.offset + before.bytes > after.offset) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": tensors ", Quote(before.tensor.name), " and ",
                       Quote(after.tensor.name), " overlap at byte ", after.offset));
    }
  }
  return absl::OkStatus();
}

}  // namespace

void GgufCursor::Fail(absl::StatusCode code, absl::string_view message) {
  if (!status_.ok()) return;
  status_ = absl::Status(code, absl::StrCat(file_.path(), ": byte ", position_, ": ", message));
}

void GgufCursor::Copy(uint8_t* out, size_t n, const char* what) {
  while (n > 0 && status_.ok()) {
    const int64_t in_buffer = position_ - buffer_start_;
    if (in_buffer >= 0 && in_buffer < static_cast<int64_t>(buffer_.size())) {
      const size_t chunk = std::min(n, buffer_.size() - static_cast<size_t>(in_buffer));
      std::memcpy(out, buffer_.data() + in_buffer, chunk);
      out += chunk;
      n -= chunk;
      position_ += static_cast<int64_t>(chunk);
      continue;
    }
    if (remaining() <= 0) {
      return Fail(absl::StatusCode::kDataLoss, absl::StrCat("the file ends within ", what));
    }
    if (position_ > kMaxGgufHeaderBytes) {
      return Fail(absl::StatusCode::kResourceExhausted,
                  absl::StrCat("metadata of more than ", kMaxGgufHeaderBytes, " bytes"));
    }
    buffer_.resize(static_cast<size_t>(std::min<int64_t>(remaining(), kBufferBytes)));
    buffer_start_ = position_;
    const absl::Status status = file_.ReadAt(position_, absl::MakeSpan(buffer_));
    if (!status.ok()) {
      status_ = status;
      buffer_.clear();
    }
  }
}

void GgufCursor::Skip(int64_t bytes, const char* what) {
  if (!status_.ok()) return;
  if (bytes > remaining()) {
    return Fail(absl::StatusCode::kInvalidArgument,
                absl::StrCat(what, " of ", bytes, " bytes, where the file has ", remaining()));
  }
  position_ += bytes;
}

int64_t GgufCursor::StringLength(const char* what) {
  const auto length = Read<uint64_t>(what);
  if (status_.ok() && length > static_cast<uint64_t>(remaining())) {
    Fail(absl::StatusCode::kInvalidArgument,
         absl::StrCat(what, " of ", length, " bytes, where the file has ", remaining()));
  }
  return status_.ok() ? static_cast<int64_t>(length) : 0;
}

std::string GgufCursor::String(const char* what, int64_t max_bytes) {
  const int64_t length = StringLength(what);
  if (length > max_bytes) {
    Fail(absl::StatusCode::kResourceExhausted,
         absl::StrCat(what, " of ", length, " bytes; at most ", max_bytes, " are supported"));
    return "";
  }
  std::string text(static_cast<size_t>(length), '\0');
  Copy(reinterpret_cast<uint8_t*>(&text[0]), text.size(), what);
  return text;
}

void GgufCursor::SkipString(const char* what) { Skip(StringLength(what), what); }

const GgufValue* GgufHeader::Find(absl::string_view key) const {
  for (const GgufValue& value : metadata) {
    if (value.key == key) return &value;
  }
  return nullptr;
}

absl::StatusOr<GgufHeader> ReadGgufHeader(const File& file) {
  GgufCursor in(file, 0);
  CheckMagicAndVersion(in);
  // A tensor takes at least its name's length, rank, one dimension, type and offset; a key its
  // length, type and a byte.
  const int64_t n_tensors = ReadCount(in, "the number of tensors", 32, kMaxGgufTensors);
  const int64_t n_keys = ReadCount(in, "the number of metadata keys", 13, kMaxGgufKeys);
  GgufHeader header;
  absl::flat_hash_set<std::string> names;
  for (int64_t i = 0; i < n_keys && in.status().ok(); ++i) {
    header.metadata.push_back(ReadValue(in));
    const std::string& key = header.metadata.back().key;
    if (!names.insert(key).second) {
      in.Fail(absl::StatusCode::kInvalidArgument, absl::StrCat("a second key ", Quote(key)));
    }
  }
  names.clear();
  for (int64_t i = 0; i < n_tensors && in.status().ok(); ++i) {
    header.tensors.push_back(ReadTensor(in));
    const std::string& name = header.tensors.back().tensor.name;
    if (!names.insert(name).second) {
      in.Fail(absl::StatusCode::kInvalidArgument, absl::StrCat("a second tensor ", Quote(name)));
    }
  }
  if (!in.status().ok()) return in.status();
  absl::StatusOr<int64_t> alignment = Alignment(file, header);
  if (!alignment.ok()) return alignment.status();
  const int64_t data_start = (in.position() + *alignment - 1) / *alignment * *alignment;
  const absl::Status status = PlaceTensors(file, data_start, *alignment, header.tensors);
  if (!status.ok()) return status;
  return header;
}

}  // namespace quire
