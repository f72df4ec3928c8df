// The part of a GGUF file that stands before the weights: metadata and the list of tensors.
#ifndef QUIRE_CONVERT_GGUF_HEADER_H_
#define QUIRE_CONVERT_GGUF_HEADER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "convert/tensor_source.h"
#include "format/file.h"

namespace quire {

// Limits. Real files: 50 keys, 2000 tensors, a chat template of 20 kB, 10 MB in all.
inline constexpr int64_t kMaxGgufHeaderBytes = int64_t{512} << 20;
inline constexpr int64_t kMaxGgufKeys = 1 << 16;
inline constexpr int64_t kMaxGgufTensors = 1 << 17;
inline constexpr int64_t kMaxGgufNameBytes = 1024;
inline constexpr int64_t kMaxGgufStringBytes = 16 << 20;  // a metadata string
inline constexpr int64_t kMaxGgufArrayStrings = 1 << 22;
inline constexpr int64_t kMaxGgufAlignment = 1 << 20;

// Reads a file from front to back through a buffer. What is read after an error is zeros; the first
// error sticks.
class GgufCursor {
 public:
  GgufCursor(const File& file, int64_t position) : file_(file), position_(position) {}

  const absl::Status& status() const { return status_; }
  int64_t position() const { return position_; }
  int64_t remaining() const { return file_.size() - position_; }

  template <typename T>
  T Read(const char* what) {
    uint8_t bytes[sizeof(T)] = {};
    Copy(bytes, sizeof(T), what);
    T value;
    __builtin_memcpy(&value, bytes, sizeof value);
    return value;
  }
  // A 64-bit length and so many bytes. InvalidArgument where the file has fewer, ResourceExhausted
  // above max_bytes.
  std::string String(const char* what, int64_t max_bytes);
  // Passes over one without keeping it.
  void SkipString(const char* what);
  void Skip(int64_t bytes, const char* what);
  // "PATH: byte N: MESSAGE".
  void Fail(absl::StatusCode code, absl::string_view message);

 private:
  void Copy(uint8_t* out, size_t n, const char* what);
  int64_t StringLength(const char* what);

  const File& file_;
  int64_t position_;
  std::vector<uint8_t> buffer_;
  int64_t buffer_start_ = 0;
  absl::Status status_;
};

enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

struct GgufValue {
  std::string key;
  GgufType type;
  std::string json;  // of a scalar or string; of an array {"type": "string", "length": 32000}
  // Arrays:
  GgufType element_type = GgufType::kU8;
  int64_t count = 0;
  int64_t position = 0;  // of the first element, in the file
};

struct GgufTensor {
  SourceTensor tensor;
  int64_t offset;  // in the file
  int64_t bytes;
};

struct GgufHeader {
  std::vector<GgufValue> metadata;
  std::vector<GgufTensor> tensors;  // in the order of the file's list

  const GgufValue* Find(absl::string_view key) const;
};

// Reads and checks everything but the weights: every tensor lies within the file, aligned, apart
// from all others. InvalidArgument, DataLoss (cut), Unimplemented (version 1, big-endian),
// ResourceExhausted (the limits above).
absl::StatusOr<GgufHeader> ReadGgufHeader(const File& file);

}  // namespace quire

#endif  // QUIRE_CONVERT_GGUF_HEADER_H_
