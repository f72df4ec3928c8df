// Byte pair encoding: neighbours in a text join, best pair first, until none can.
#ifndef QUIRE_RUNTIME_TEXT_BPE_H_
#define QUIRE_RUNTIME_TEXT_BPE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"
#include "runtime/text/prefix_index.h"
#include "runtime/text/vocabulary.h"

namespace quire {

// Borrows the message and the vocabulary, which must outlive it unmoved. Immutable after Init.
class Bpe {
 public:
  absl::Status Init(const pb::Tokenizer& proto, const Vocabulary* vocabulary);

  // Appends the ids of one pre-token (valid UTF-8, below 2 GiB). O(n log n).
  void Encode(absl::string_view text, std::vector<int32_t>* ids) const;

 private:
  // Part of the text, in a doubly linked list. A part that was joined to the one before has length
  // 0.
  struct Symbol {
    uint32_t begin, length;
    int32_t id;  // -1: no piece (BPE_BY_SCORE joins by text)
    int32_t previous, next;
    // How it would join with the next: the smallest priority is done first. Result -1: not at all.
    uint32_t join_priority;
    int32_t join_result;
    bool frozen;  // never joins
  };
  struct Work;  // of one call

  absl::Status InitMerges(const pb::Tokenizer& proto);
  void AddSymbols(Work* work) const;
  void AddSymbol(Work* work, uint32_t begin, uint32_t length, int32_t id, bool frozen) const;
  bool FindJoin(Work* work, int32_t left) const;
  void AppendIds(const Work& work, const Symbol& symbol, std::vector<int32_t>* ids) const;
  void AppendUnknown(absl::string_view text, std::vector<int32_t>* ids) const;

  const pb::Tokenizer* proto_ = nullptr;
  const Vocabulary* vocabulary_ = nullptr;
  bool by_score_ = false;
  // BPE_BY_MERGES: pairs whose left is id lie at [merges_of_[id], merges_of_[id + 1]), in ascending
  // order of the right.
  std::vector<uint32_t> merges_of_;
  int32_t byte_symbols_[256];  // the piece of each single byte, or -1
  PrefixIndex user_defined_;   // BPE_BY_SCORE: pieces that stand for themselves wherever they occur
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_BPE_H_
