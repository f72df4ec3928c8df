// A tokenizer as GGUF's metadata.
#ifndef QUIRE_CONVERT_EXPORT_GGUF_TOKENIZER_EXPORT_H_
#define QUIRE_CONVERT_EXPORT_GGUF_TOKENIZER_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "convert/tokenizer_import.h"

namespace quire {

// The inverse of ImportGgufTokenizer, with exactly vocab_size tokens: rows of the embedding without
// one are called [PADn]. `model` is "none" where llama.cpp has no way to do what the tokenizer
// does; notes say why, and what else llama.cpp will do differently. InvalidArgument for a malformed
// tokenizer.
absl::StatusOr<GgufTokenizerFields> ExportGgufTokenizer(const pb::Tokenizer& tokenizer,
                                                        int64_t vocab_size,
                                                        std::vector<std::string>* notes);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_GGUF_TOKENIZER_EXPORT_H_
