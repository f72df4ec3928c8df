// The pieces of a tokenizer: text, kind and score by id, and id by text.
#ifndef QUIRE_RUNTIME_TEXT_VOCABULARY_H_
#define QUIRE_RUNTIME_TEXT_VOCABULARY_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"

namespace quire {

inline constexpr int kMaxPieces = 1 << 21;
inline constexpr int kMaxPieceBytes = 1024;

// Borrows from the message given to Init, which must outlive it unmoved. Immutable after Init.
class Vocabulary {
 public:
  // Checks lengths, kinds, scores and byte pieces; two pieces alike that text can produce are
  // InvalidArgument.
  absl::Status Init(const pb::Tokenizer& proto);

  int size() const { return static_cast<int>(offsets_.size()) - 1; }
  absl::string_view text(int32_t id) const {
    return absl::string_view(text_ + offsets_[id], offsets_[id + 1] - offsets_[id]);
  }
  pb::PieceKind kind(int32_t id) const { return static_cast<pb::PieceKind>(kinds_[id]); }
  // BPE_BY_SCORE and UNIGRAM only.
  float score(int32_t id) const { return scores_[id]; }

  // The NORMAL, USER_DEFINED or UNUSED piece with this text, or -1.
  int32_t Find(absl::string_view text) const;
  // The BYTE piece, or -1.
  int32_t byte_piece(uint8_t byte) const { return byte_pieces_[byte]; }
  // The byte that a BYTE piece stands for.
  uint8_t byte_value(int32_t id) const;

 private:
  struct Slot {
    uint32_t tag;  // of the hash
    int32_t id;    // -1: free
  };
  absl::Status InitPieces(const pb::Tokenizer& proto);
  absl::Status InitSlots();

  const char* text_ = nullptr;
  const char* kinds_ = nullptr;
  const float* scores_ = nullptr;
  std::vector<uint32_t> offsets_ = {0};
  std::vector<Slot> slots_;  // open addressing; a power of two, at most half full
  std::array<int32_t, 256> byte_pieces_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_VOCABULARY_H_
