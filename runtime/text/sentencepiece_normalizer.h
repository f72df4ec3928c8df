// Sentencepiece's normalizer: a compiled map of character sequences, and its treatment of spaces.
#ifndef QUIRE_RUNTIME_TEXT_SENTENCEPIECE_NORMALIZER_H_
#define QUIRE_RUNTIME_TEXT_SENTENCEPIECE_NORMALIZER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"
#include "runtime/text/prefix_index.h"
#include "runtime/text/vocabulary.h"

namespace quire {

// Borrows the message and the vocabulary, which must outlive it unmoved. Immutable after Init.
class SentencepieceNormalizer {
 public:
  // InvalidArgument where the character map's sizes or any reference in it lead outside of it.
  absl::Status Init(const pb::SentencepieceNormalizer& spec, const Vocabulary& vocabulary);

  // `text` is valid UTF-8; so is the result. Linear in the text and what replaces its characters.
  std::string Normalize(absl::string_view text) const;

 private:
  // What the front of `text` becomes, and how many bytes of it do.
  std::pair<absl::string_view, size_t> Front(absl::string_view text) const;

  const pb::SentencepieceNormalizer* spec_ = nullptr;
  std::vector<uint32_t> trie_;      // Darts double array
  absl::string_view replacements_;  // NUL-terminated strings
  PrefixIndex user_defined_;        // pass unchanged
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_SENTENCEPIECE_NORMALIZER_H_
