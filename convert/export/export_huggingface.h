// Folders as Hugging Face lays them out, in safetensors.
#ifndef QUIRE_CONVERT_EXPORT_EXPORT_HUGGINGFACE_H_
#define QUIRE_CONVERT_EXPORT_EXPORT_HUGGINGFACE_H_

#include "convert/export/export.h"

namespace quire {

// Export (export.h) of two formats. Floats stay what they are; other encodings become f16, but for
// the q4_0 matrices of linear layers where `pack`: those become compressed-tensors' pack-quantized
// ones bit for bit. FailedPrecondition where `pack` and there is none of them.
absl::StatusOr<ExportReport> ExportHuggingFace(
    const ModelFile& model, bool pack, const std::string& path, bool overwrite, ThreadPool& pool,
    absl::FunctionRef<void(int64_t done_bytes)> progress);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_EXPORT_HUGGINGFACE_H_
