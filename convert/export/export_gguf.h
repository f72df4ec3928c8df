// GGUF files, as llama.cpp's own converter writes them.
#ifndef QUIRE_CONVERT_EXPORT_EXPORT_GGUF_H_
#define QUIRE_CONVERT_EXPORT_EXPORT_GGUF_H_

#include "convert/export/export.h"

namespace quire {

// Export (export.h) of one format. q4_0, q4_1 and q8 become Q4_0, Q4_1 and Q8_0 bit for bit, floats
// stay what they are, every other encoding becomes F16.
absl::StatusOr<ExportReport> ExportGguf(const ModelFile& model, const std::string& path,
                                        bool overwrite, ThreadPool& pool,
                                        absl::FunctionRef<void(int64_t done_bytes)> progress);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_EXPORT_GGUF_H_
