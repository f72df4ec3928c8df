// Unigram segmentation: the pieces whose scores have the greatest sum.
#ifndef QUIRE_RUNTIME_TEXT_UNIGRAM_H_
#define QUIRE_RUNTIME_TEXT_UNIGRAM_H_

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"
#include "runtime/text/prefix_index.h"
#include "runtime/text/vocabulary.h"

namespace quire {

// Borrows the message and the vocabulary, which must outlive it unmoved. Immutable after Init.
class Unigram {
 public:
  void Init(const pb::Tokenizer& proto, const Vocabulary* vocabulary);

  // Appends the ids of one text (valid UTF-8, below 2 GiB). Viterbi: O(n x longest piece).
  void Encode(absl::string_view text, std::vector<int32_t>* ids) const;

 private:
  const pb::Tokenizer* proto_ = nullptr;
  const Vocabulary* vocabulary_ = nullptr;
  PrefixIndex pieces_;
  float max_score_ = 0, unknown_score_ = 0;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_UNIGRAM_H_
