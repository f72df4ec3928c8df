// From a .quire file to the checkpoints of other programs.
#ifndef QUIRE_CONVERT_EXPORT_EXPORT_H_
#define QUIRE_CONVERT_EXPORT_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "format/model_file.h"
#include "format/thread_pool.h"

namespace quire {

struct ExportedTensor {
  std::string name;         // in the output
  std::string type;         // in the output: "Q4_0", "F16", "pack-quantized"
  std::string source_type;  // in the .quire file; empty: made from no tensor
  int64_t bytes = 0;
  bool exact = false;             // the same numbers
  double relative_rms_error = 0;  // sqrt(sum (written - stored)^2 / sum stored^2)
};

struct ExportReport {
  std::vector<ExportedTensor> tensors;
  // What another program will not do as the model's own library does, one line each.
  std::vector<std::string> notes;
  int64_t bytes = 0;  // of all files
};

// Names of the formats, for --format: "gguf, safetensors, compressed-tensors".
std::string ExportFormats();
bool IsExportFormat(absl::string_view name);

// Writes `model` to `path`: a file (gguf), or a folder of Hugging Face's layout. An output appears
// under its name only when it is whole; one that exists is refused without `overwrite`, and so is,
// even with it, a folder that holds anything an export does not write. Anonymous memory: a few MB a
// thread, and the tokenizer. `progress` hears of bytes written, from this thread.
// Precondition: IsExportFormat. AlreadyExists. DataLoss: a tensor's checksum differs.
// FailedPrecondition, Unimplemented: what the format cannot hold, and what to do.
absl::StatusOr<ExportReport> Export(const ModelFile& model, const std::string& format,
                                    const std::string& path, bool overwrite, ThreadPool& pool,
                                    absl::FunctionRef<void(int64_t done_bytes)> progress);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_EXPORT_H_
