// A .quire file's tokenizer, taken apart for the exporters.
#ifndef QUIRE_CONVERT_EXPORT_PIECES_H_
#define QUIRE_CONVERT_EXPORT_PIECES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "convert/tokenizer_builder.h"
#include "format/tokenizer.pb.h"

namespace quire {

struct Piece {
  std::string text;      // as pb::Tokenizer has it
  std::string spelling;  // as GGUF and tokenizer.json write it: GPT-2's stand-ins for bytes
  pb::PieceKind kind;
  bool added = false;  // among added_tokens
};
// All pieces, by id. InvalidArgument where lengths, kinds, scores, merges or ids contradict one
// another; what this returns without an error, the functions below rely on.
absl::StatusOr<std::vector<Piece>> PiecesOf(const pb::Tokenizer& tokenizer);

// BPE_BY_MERGES: the listed merges by rank. Of byte-level BPE_BY_SCORE (tiktoken): for each piece
// the pair of pieces that its bytes become by all merges before its own.
std::vector<Merge> MergesByRank(const pb::Tokenizer& tokenizer, const std::vector<Piece>& pieces);

// Scores with which sentencepiece's BPE does what these merges do: minus the order in which pieces
// come out of them. None where it would do something else: merges of one piece apart from one
// another, or a pair that makes a piece and is not listed.
std::optional<std::vector<float>> ScoresOfMerges(const std::vector<Merge>& merges,
                                                 const std::vector<Piece>& pieces);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_PIECES_H_
