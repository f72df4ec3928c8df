// A .quire file, mapped and checked: the one reader.
#ifndef QUIRE_FORMAT_MODEL_FILE_H_
#define QUIRE_FORMAT_MODEL_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "format/file.h"
#include "format/manifest.pb.h"
#include "format/packed_layout.h"
#include "format/tokenizer.pb.h"

namespace quire {

// A read-only, shared mapping of a whole file. Move-only. The weights are never copied and can
// never become dirty.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Map(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const uint8_t* data() const { return data_; }
  int64_t size() const { return file_.size(); }
  const File& file() const { return file_; }

  // DataLoss where the file is no longer as long as it was when it was opened: what was read in
  // between may be zeros in the place of weights.
  absl::Status CheckUnchanged() const;

 private:
  MappedFile(File file, const uint8_t* data) : file_(std::move(file)), data_(data) {}
  File file_;
  const uint8_t* data_;
};

// A tensor's stored bytes and what they mean. Borrows from the ModelFile, which must outlive it.
struct TensorView {
  absl::string_view name;
  std::vector<int64_t> shape;  // slowest first; [n] of a vector
  Geometry geometry;
  const int8_t* codebook = nullptr;  // 16 values, where the encoding has them
  const uint8_t* data = nullptr;     // 16 KiB aligned
  int64_t offset = 0;                // in the file
  int64_t bytes = 0;
  uint64_t xxh3 = 0;
};

// Immutable after Open; safe to use from many threads. Move-only.
class ModelFile {
 public:
  // Maps the file and checks header, manifest (checksum, limits, canonical coding), every range,
  // shape, and encoding. Reads no weight: the cost is that of the manifest, milliseconds for a 7B
  // model. InvalidArgument: not a .quire file, or a field is out of bounds. DataLoss: cut, or a
  // checksum differs. Unimplemented: a newer version, encoding or required feature.
  static absl::StatusOr<ModelFile> Open(const std::string& path);

  const std::string& path() const { return file_.file().path(); }
  const MappedFile& mapping() const { return file_; }
  const pb::Manifest& manifest() const { return *manifest_; }
  const pb::ModelConfig& config() const { return manifest_->config(); }
  absl::Span<const TensorView> tensors() const { return tensors_; }
  // Null where there is no such tensor.
  const TensorView* Find(absl::string_view name) const;
  bool has_tokenizer() const { return manifest_->has_tokenizer(); }
  // Checks the section's checksum and parses it. NotFound where the file has none.
  absl::StatusOr<pb::Tokenizer> LoadTokenizer() const;

  // Reads every byte: all checksums, all padding zero, every scale finite. `progress` hears of
  // bytes done, from one thread.
  absl::Status Verify(absl::FunctionRef<void(int64_t done_bytes)> progress) const;

 private:
  explicit ModelFile(MappedFile file) : file_(std::move(file)) {}
  MappedFile file_;
  std::unique_ptr<pb::Manifest> manifest_;
  std::vector<TensorView> tensors_;
  absl::flat_hash_map<absl::string_view, int> by_name_;
};

// Bits per weight over the matrices of the layers (embedding and output apart, vectors apart),
// scales and padding included: what FORMAT.md and all tables call "bits per weight".
double LayerBitsPerWeight(const pb::Manifest& manifest);

}  // namespace quire

#endif  // QUIRE_FORMAT_MODEL_FILE_H_
