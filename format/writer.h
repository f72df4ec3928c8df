// Writing a .quire file: planned first, streamed tensor by tensor, visible under its name only when
// whole.
#ifndef QUIRE_FORMAT_WRITER_H_
#define QUIRE_FORMAT_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/manifest.pb.h"

namespace quire {

// Assigns every offset and size of a manifest that has names, shapes, encodings and layouts, as
// Create does, for a tokenizer section of tokenizer_bytes (0: none). Returns the file's size. For
// plans and dry runs. InvalidArgument, ResourceExhausted or Unimplemented for a manifest that
// ModelFile would refuse.
absl::StatusOr<int64_t> PlanFile(int64_t tokenizer_bytes, pb::Manifest* manifest);

// Not thread-safe. A writer that is destroyed before Finish succeeded leaves nothing behind; nor
// does a killed process, where the file system has unnamed temporary files (O_TMPFILE).
class FileWriter {
 public:
  // `manifest` has names, shapes, encodings, layouts, config and so on; offsets are planned here.
  // `tokenizer` is a serialized pb::Tokenizer, or empty. The file grows in the same folder, without
  // a name. AlreadyExists where `path` exists and not `overwrite`; ResourceExhausted where the disk
  // has no room for all of it.
  static absl::StatusOr<std::unique_ptr<FileWriter>> Create(const std::string& path,
                                                            pb::Manifest manifest,
                                                            std::string tokenizer, bool overwrite);
  ~FileWriter();

  const pb::Manifest& manifest() const;

  // The next bytes of the tensors, in file order: tensor after tensor, each exactly as long as
  // planned. A span may hold the end of one tensor and the beginning of the next.
  absl::Status Append(absl::Span<const uint8_t> bytes);

  // Writes tokenizer, manifest and header, syncs, checks what ModelFile::Open checks, gives the
  // file its name, syncs the folder. ResourceExhausted: no space. DataLoss: the disk failed.
  absl::Status Finish();

 private:
  struct Impl;
  explicit FileWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire

#endif  // QUIRE_FORMAT_WRITER_H_
