// Writing a .quire file: planned first, streamed tensor by tensor, visible under its name only when whole.
#ifndef QUIRE_FORMAT_WRITER_H_
#define QUIRE_FORMAT_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/manifest.pb.h"
#include "format/packed_layout.h"

namespace quire {

// The geometry of a manifest entry. Precondition: encoding and layout are known.
Geometry GeometryOf(const pb::TensorEntry& entry);

// Fills offset and bytes of every tensor and of the tokenizer section (of `tokenizer_bytes`; 0: no section), from their
// shapes, encodings and layouts. Returns the file's size.
int64_t PlanFile(pb::Manifest& manifest, int64_t tokenizer_bytes);

// Not thread-safe. A writer that is destroyed before Finish succeeds leaves nothing behind.
class FileWriter {
 public:
  // `manifest` has names, shapes, encodings, layouts, config and so on; offsets are planned here. `tokenizer` is a
  // serialized pb::Tokenizer, or empty. Writes to a temporary file in the same folder. AlreadyExists where `path`
  // exists and not `overwrite`; InvalidArgument for a manifest that ModelFile would refuse.
  static absl::StatusOr<std::unique_ptr<FileWriter>> Create(const std::string& path, pb::Manifest manifest,
                                                            std::string tokenizer, bool overwrite);
  ~FileWriter();

  const pb::Manifest& manifest() const { return manifest_; }
  int64_t file_bytes() const { return file_bytes_; }

  // The next bytes of the tensors, in file order: tensor after tensor, each exactly as long as planned.
  absl::Status Append(absl::Span<const uint8_t> bytes);

  // Writes tokenizer, manifest and header, syncs, renames over `path`, syncs the folder.
  // ResourceExhausted: no space. DataLoss: the disk failed. On any error the temporary file is gone.
  absl::Status Finish();

 private:
  struct Impl;
  explicit FileWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  pb::Manifest manifest_;
  int64_t file_bytes_ = 0;
};

}  // namespace quire

#endif  // QUIRE_FORMAT_WRITER_H_
