// Tokenizers of checkpoints, turned into the one of the .quire file.
#ifndef QUIRE_CONVERT_TOKENIZER_IMPORT_H_
#define QUIRE_CONVERT_TOKENIZER_IMPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "format/tokenizer.pb.h"

namespace quire {

// All of these return InvalidArgument for malformed content, Unimplemented (with what is supported)
// for a kind of tokenizer that the runtime cannot follow exactly, ResourceExhausted over a limit.
// Nothing in the files is executed.

// A folder's tokenizer: tokenizer.json, else tokenizer.model (sentencepiece or tiktoken); refined
// by tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json and
// chat_template.jinja where they exist. NotFound where the folder has neither.
absl::StatusOr<pb::Tokenizer> ImportTokenizerFolder(const std::string& folder);

// One file, recognised by its content: a sentencepiece model, a tokenizer.json, or a tiktoken rank
// file.
absl::StatusOr<pb::Tokenizer> ImportTokenizerFile(const std::string& path);

// A GGUF file's metadata under "tokenizer.", as it stands there. Scalars that are absent are
// nullopt or empty.
struct GgufTokenizerFields {
  std::string model;  // tokenizer.ggml.model: "llama" (sentencepiece BPE), "gpt2" (byte-level BPE)
  std::string pre;    // tokenizer.ggml.pre: "smollm", "llama-bpe", "qwen2", ...
  std::vector<std::string> tokens;       // tokenizer.ggml.tokens
  std::vector<float> scores;             // tokenizer.ggml.scores; may be empty
  std::vector<int32_t> token_types;      // tokenizer.ggml.token_type; may be empty
  std::vector<std::string> merges;       // tokenizer.ggml.merges
  std::optional<uint32_t> bos_id;        // tokenizer.ggml.bos_token_id
  std::optional<uint32_t> eos_id;        // tokenizer.ggml.eos_token_id
  std::optional<uint32_t> eot_id;        // tokenizer.ggml.eot_token_id
  std::optional<uint32_t> eom_id;        // tokenizer.ggml.eom_token_id
  std::optional<uint32_t> unknown_id;    // tokenizer.ggml.unknown_token_id
  std::optional<bool> add_bos;           // tokenizer.ggml.add_bos_token
  std::optional<bool> add_eos;           // tokenizer.ggml.add_eos_token
  std::optional<bool> add_space_prefix;  // tokenizer.ggml.add_space_prefix
  std::string chat_template;             // tokenizer.chat_template
};
absl::StatusOr<pb::Tokenizer> ImportGgufTokenizer(const GgufTokenizerFields& fields);

// The name for tokenizer.ggml.pre of a byte-level tokenizer: that under which texts are cut as its
// steps do. Null where there is none.
const char* GgufPreTokenizer(const pb::Tokenizer& tokenizer);

// Takes away the tokens from id `rows` on, which the model has no embedding for, and returns their
// texts. InvalidArgument where they are not added ones: the tokenizer is another model's.
absl::StatusOr<std::vector<std::string>> LeaveOutTokensFrom(int64_t rows, pb::Tokenizer* tokenizer);

}  // namespace quire

#endif  // QUIRE_CONVERT_TOKENIZER_IMPORT_H_
