// The kinds of tokenizer file, one importer each. What stands beside them is tokenizer_import.cc's.
#ifndef QUIRE_CONVERT_TOKENIZER_FILES_H_
#define QUIRE_CONVERT_TOKENIZER_FILES_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"

namespace quire {

// Each takes the whole content of a file. Errors name the field, not the file.
absl::StatusOr<pb::Tokenizer> ImportSentencepieceModel(absl::string_view content);
absl::StatusOr<pb::Tokenizer> ImportHuggingFaceJson(absl::string_view content);
// Base64 and rank, a line each. With Llama 3's pattern and special tokens, the only such file that
// stands in checkpoints.
absl::StatusOr<pb::Tokenizer> ImportTiktoken(absl::string_view content);
bool LooksLikeTiktoken(absl::string_view content);

}  // namespace quire

#endif  // QUIRE_CONVERT_TOKENIZER_FILES_H_
