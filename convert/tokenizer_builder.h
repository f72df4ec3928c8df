// What all importers of tokenizers share: how pieces, merges and patterns go into pb::Tokenizer.
#ifndef QUIRE_CONVERT_TOKENIZER_BUILDER_H_
#define QUIRE_CONVERT_TOKENIZER_BUILDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"

namespace quire {

inline constexpr int64_t kMaxTokenizerFileBytes = int64_t{256} << 20;

// Appends the next id.
void AddPiece(absl::string_view text, pb::PieceKind kind, pb::Tokenizer* out);

struct Merge {
  uint32_t left, right, rank, result;
};
// Sorts; of a pair listed twice the later rank stays.
void SetMerges(std::vector<Merge> merges, pb::Tokenizer* out);

// The bytes that GPT-2's printable stand-ins mean ("Ġthe" -> " the"); nullopt where a character is
// none of them.
std::optional<std::string> BytesOfByteLevel(absl::string_view text);
// The other way round.
std::string ByteLevelOfBytes(absl::string_view bytes);

// A pattern in Oniguruma's or Rust's syntax (Hugging Face, tiktoken), in PCRE2's. Unimplemented,
// naming it, for syntax that PCRE2 reads differently; InvalidArgument where PCRE2 refuses it.
absl::StatusOr<std::string> PatternToPcre2(absl::string_view pattern);
// A pattern that matches `text` and nothing else.
std::string PatternOfText(absl::string_view text);

// Appends a SPLIT step. The pattern is PCRE2's.
pb::TextStep* AddSplit(absl::string_view pattern, pb::TextStep::Behavior behavior,
                       pb::Tokenizer* out);

// Patterns of well-known models, in the syntax of Hugging Face.
extern const char kGpt2Pattern[];
extern const char kLlama3Pattern[];
extern const char kQwen2Pattern[];
extern const char kTekkenPattern[];

}  // namespace quire

#endif  // QUIRE_CONVERT_TOKENIZER_BUILDER_H_
