// What convert reads from: named tensors in some container. The one input interface; every
// container is one .cc.
#ifndef QUIRE_CONVERT_TENSOR_SOURCE_H_
#define QUIRE_CONVERT_TENSOR_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quire {

// Element types found in checkpoints. Names are torch's; ggml's for its block types.
enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  kU16,
  kU32,
  kU64,
  kF8E4M3FN,
  kF8E5M2,
  kComplex64,
  kComplex128,
  kGgmlQ4_0,
  kGgmlQ4_1,
  kGgmlQ5_0,
  kGgmlQ5_1,
  kGgmlQ8_0,
  kGgmlQ2K,
  kGgmlQ3K,
  kGgmlQ4K,
  kGgmlQ5K,
  kGgmlQ6K,
  kGgmlOther,
};

struct DTypeInfo {
  DType dtype;
  const char* name;    // "float32", "bfloat16", "int64", "q4_k"
  int block_elements;  // 1 for plain types; 32 or 256 for ggml's blocks
  int block_bytes;
  bool decodable;  // DecodeToFloat reads it
};
const DTypeInfo& Info(DType dtype);

struct SourceTensor {
  std::string name;  // nested keys joined by "."
  std::vector<int64_t>
      shape;  // slowest first, as the checkpoint says; may be empty (a scalar) or contain 0
  DType dtype;
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  int64_t bytes() const {
    return elements() / Info(dtype).block_elements * Info(dtype).block_bytes;
  }
};

// A checkpoint, opened: metadata parsed and checked against the bytes that are there, nothing
// executed, no tensor read. Thread-safe after construction.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual absl::string_view container()
      const = 0;  // "torch-zip", "torch-legacy", "safetensors", "gguf", ...
  virtual absl::Span<const SourceTensor> tensors() const = 0;

  // Copies elements [begin, begin + count) in logical (row-major) order, as stored (little-endian,
  // blocks as they are) into out, whose size is that of `count` elements. begin and count are
  // multiples of the dtype's block_elements. Index: position in tensors(). DataLoss where the file
  // ends or cannot be read.
  virtual absl::Status Read(int index, int64_t begin, int64_t count,
                            absl::Span<uint8_t> out) const = 0;

  // Checks what the container itself says about the integrity of the tensor's bytes (zip: CRC-32 of
  // the record; others: nothing to check). Reads the whole record. DataLoss naming the record.
  virtual absl::Status Verify(int /*index*/) const { return absl::OkStatus(); }

  // Tensors that are the same memory (tied weights) have the same non-negative alias id; -1: not
  // shared.
  virtual int Alias(int /*index*/) const { return -1; }

  // Strings, numbers and flags that stood beside the tensors, by dotted path ("config.hidden_size"
  // -> "64", JSON text of the value). What hyperparameters of llama2.c-style files and GGUF
  // metadata come from.
  virtual absl::Span<const std::pair<std::string, std::string>> metadata() const = 0;

  // Files it reads: (name without folder, bytes).
  virtual std::vector<std::pair<std::string, int64_t>> files() const = 0;
};

// What the tensors of a checkpoint may hold together for all of them to be read: views can repeat
// the bytes of their storages, and deflated storages expand. Real ones hold at most a few times the
// bytes of their files.
inline constexpr int64_t kMaxBytesPerFileByte = 16;
inline constexpr int64_t kMaxMoreBytes = int64_t{1} << 30;
// ResourceExhausted, beginning with `place`, where `bytes` are over that. A sum of sizes that a file
// claims may be more than 64 bits hold.
absl::Status CheckProportion(const TensorSource& source, double bytes, const std::string& place);

// Opens a checkpoint file by what it contains, never by its name, or a folder by its index files.
// InvalidArgument: none of the known containers (the message names what was found: an LFS pointer,
// an HTML page, a pickle that is not a checkpoint, ...).
absl::StatusOr<std::unique_ptr<TensorSource>> OpenCheckpoint(const std::string& path);
absl::StatusOr<std::unique_ptr<TensorSource>> OpenCheckpointFile(const std::string& path);

// One function a container. Each checks its own magic first and returns InvalidArgument where it is
// not its own.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenTorchZip(const std::string& path);
absl::StatusOr<std::unique_ptr<TensorSource>> OpenTorchLegacy(const std::string& path);
absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& path);
absl::StatusOr<std::unique_ptr<TensorSource>> OpenGguf(const std::string& path);
// Folders: Hugging Face (index with shards, or one file) and Meta (consolidated.NN.pth joined along
// the right axes).
absl::StatusOr<std::unique_ptr<TensorSource>> OpenHuggingFaceFolder(const std::string& folder);
absl::StatusOr<std::unique_ptr<TensorSource>> OpenMetaFolder(const std::string& folder);

// Elements as f32. `raw` holds whole blocks, out.size() elements. Precondition:
// Info(dtype).decodable. Exact for f32, f16, bf16, integers to 2^24; f64 rounds; ggml blocks as
// ggml's reference code dequantizes them.
void DecodeToFloat(DType dtype, absl::Span<const uint8_t> raw, absl::Span<float> out);

}  // namespace quire

#endif  // QUIRE_CONVERT_TENSOR_SOURCE_H_
