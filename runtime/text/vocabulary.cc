#include "runtime/text/vocabulary.h"

#include <cmath>

#include "absl/hash/hash.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The value of "<0xNN>", or -1.
int ParseBytePiece(absl::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = HexDigit(text[3]), low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

uint8_t Vocabulary::byte_value(int32_t id) const {
  return static_cast<uint8_t>(ParseBytePiece(text(id)));
}

absl::Status Vocabulary::Init(const pb::Tokenizer& proto) {
  if (absl::Status status = InitPieces(proto); !status.ok()) return status;
  return InitSlots();
}

absl::Status Vocabulary::InitPieces(const pb::Tokenizer& proto) {
  const int n = proto.piece_length_size();
  if (n == 0) return absl::InvalidArgumentError("tokenizer: no pieces");
  if (n > kMaxPieces) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("tokenizer: %d pieces, the limit is %d", n, kMaxPieces));
  }
  if (proto.piece_kind().size() != static_cast<size_t>(n)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tokenizer: %d piece kinds for %d pieces", proto.piece_kind().size(), n));
  }
  const int want_scores = proto.model() == pb::Tokenizer::BPE_BY_MERGES ? 0 : n;
  if (proto.piece_score_size() != want_scores) {
    return absl::InvalidArgumentError(absl::StrFormat("tokenizer: %d piece scores, want %d",
                                                      proto.piece_score_size(), want_scores));
  }
  for (int id = 0; id < want_scores; ++id) {
    if (!std::isfinite(proto.piece_score(id))) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: piece %d: its score is not finite", id));
    }
  }
  text_ = proto.piece_text().data();
  kinds_ = proto.piece_kind().data();
  scores_ = proto.piece_score().data();
  byte_pieces_.fill(-1);

  offsets_.resize(n + 1);
  uint64_t end = 0;
  for (int id = 0; id < n; ++id) {
    const uint32_t length = proto.piece_length(id);
    if (length > kMaxPieceBytes) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "tokenizer: piece %d has %d bytes, the limit is %d", id, length, kMaxPieceBytes));
    }
    offsets_[id] = static_cast<uint32_t>(end);
    end += length;
    const int kind = static_cast<uint8_t>(kinds_[id]);
    if (kind == 0 || !pb::PieceKind_IsValid(kind)) {
      return absl::UnimplementedError(
          absl::StrFormat("tokenizer: piece %d is of unknown kind %d", id, kind));
    }
    if (length == 0 && kind != pb::UNUSED) {
      return absl::InvalidArgumentError(absl::StrFormat("tokenizer: piece %d is empty", id));
    }
  }
  if (end != proto.piece_text().size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tokenizer: the pieces' lengths add up to %d, their text has %d bytes", end,
                        proto.piece_text().size()));
  }
  offsets_[n] = static_cast<uint32_t>(end);

  for (int id = 0; id < n; ++id) {
    if (kind(id) != pb::BYTE) continue;
    const int byte = ParseBytePiece(text(id));
    if (byte < 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: byte piece %d is \"%s\", want \"<0x00>\" to \"<0xFF>\"", id,
                          absl::CHexEscape(text(id))));
    }
    if (byte_pieces_[byte] >= 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "tokenizer: pieces %d and %d are both \"%s\"", byte_pieces_[byte], id, text(id)));
    }
    byte_pieces_[byte] = id;
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::InitSlots() {
  size_t capacity = 2;
  while (capacity < 2 * static_cast<size_t>(size())) capacity *= 2;
  slots_.assign(capacity, Slot{0, -1});
  for (int32_t id = 0; id < size(); ++id) {
    const pb::PieceKind k = kind(id);
    if (k != pb::NORMAL && k != pb::USER_DEFINED && k != pb::UNUSED) continue;
    const absl::string_view piece = text(id);
    if (piece.empty()) continue;
    const uint64_t hash = absl::HashOf(piece);
    const uint32_t tag = static_cast<uint32_t>(hash >> 32);
    size_t i = hash & (capacity - 1);
    for (; slots_[i].id >= 0; i = (i + 1) & (capacity - 1)) {
      if (slots_[i].tag == tag && text(slots_[i].id) == piece) {
        return absl::InvalidArgumentError(
            absl::StrFormat("tokenizer: pieces %d and %d are both \"%s\"", slots_[i].id, id,
                            absl::CHexEscape(piece)));
      }
    }
    slots_[i] = {tag, id};
  }
  return absl::OkStatus();
}

int32_t Vocabulary::Find(absl::string_view piece) const {
  if (piece.size() > kMaxPieceBytes) return -1;
  const uint64_t hash = absl::HashOf(piece);
  const uint32_t tag = static_cast<uint32_t>(hash >> 32);
  for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[i];
    if (slot.id < 0) return -1;
    if (slot.tag == tag && text(slot.id) == piece) return slot.id;
  }
}

}  // namespace quire
