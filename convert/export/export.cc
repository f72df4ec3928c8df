#include "convert/export/export.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_join.h"
#include "convert/export/export_gguf.h"
#include "convert/export/export_huggingface.h"
#include "format/file.h"

namespace quire {

namespace {

constexpr absl::string_view kFormats[] = {"gguf", "safetensors", "compressed-tensors"};

}  // namespace

std::string ExportFormats() { return absl::StrJoin(kFormats, ", "); }

bool IsExportFormat(absl::string_view name) {
  return std::find(std::begin(kFormats), std::end(kFormats), name) != std::end(kFormats);
}

absl::StatusOr<ExportReport> Export(const ModelFile& model, const std::string& format,
                                    const std::string& path, bool overwrite, ThreadPool& pool,
                                    absl::FunctionRef<void(int64_t done_bytes)> progress) {
  if (absl::Status status = CheckNotSameFile(model.path(), path); !status.ok()) return status;
  if (format == "gguf") return ExportGguf(model, path, overwrite, pool, progress);
  return ExportHuggingFace(model, format == "compressed-tensors", path, overwrite, pool, progress);
}

}  // namespace quire
