// A tokenizer as the files of a Hugging Face folder.
#ifndef QUIRE_CONVERT_EXPORT_HUGGINGFACE_TOKENIZER_EXPORT_H_
#define QUIRE_CONVERT_EXPORT_HUGGINGFACE_TOKENIZER_EXPORT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "format/tokenizer.pb.h"

namespace quire {

using NamedContents = std::vector<std::pair<std::string, std::string>>;

// (file, content): tokenizer.model of a sentencepiece tokenizer, tokenizer.json of every other, and
// tokenizer_config.json with its special tokens and its chat template. Without the first where
// there is no way to write it; *notes says why. InvalidArgument for a malformed tokenizer.
absl::StatusOr<NamedContents> ExportHuggingFaceTokenizer(const pb::Tokenizer& tokenizer,
                                                         std::vector<std::string>* notes);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_HUGGINGFACE_TOKENIZER_EXPORT_H_
