#include "convert/export/gguf_tokenizer_export.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "convert/export/pieces.h"

namespace quire {
namespace {

constexpr char kSpaceSymbol[] = "\xE2\x96\x81";

// Why the tokenizer is left out.
std::string LeftOut(absl::string_view why) {
  return absl::StrCat("no tokenizer in the file: llama.cpp knows none that ", why);
}

// Byte-level BPE, GGUF's "gpt2". The reason where it cannot be.
std::optional<std::string> FillByteLevel(const pb::Tokenizer& tokenizer,
                                         const std::vector<Piece>& pieces, GgufTokenizerFields* out,
                                         std::vector<std::string>* notes) {
  const char* pre = GgufPreTokenizer(tokenizer);
  if (pre == nullptr) return "cuts texts into words as this one does";
  out->model = "gpt2";
  out->pre = pre;
  if (tokenizer.normalizer_size() > 0)
    notes->push_back("llama.cpp does not normalize texts, as the model's own tokenizer does");
  for (const Merge& merge : MergesByRank(tokenizer, pieces)) {
    out->merges.push_back(
        absl::StrCat(pieces[merge.left].spelling, " ", pieces[merge.right].spelling));
  }
  return std::nullopt;
}

// Whether the steps escape spaces, with or without one put before the text, and do nothing else.
bool EscapesSpaces(const pb::Tokenizer& tokenizer, bool* prefix, std::vector<std::string>* notes) {
  bool escapes = false;
  *prefix = false;
  for (const auto* steps : {&tokenizer.normalizer(), &tokenizer.pre_tokenizer()}) {
    for (const pb::TextStep& step : *steps) {
      if (step.kind() == pb::TextStep::PREPEND && step.text() == kSpaceSymbol && !*prefix) {
        *prefix = true;
        if (step.unless_present()) {
          notes->push_back(
              "llama.cpp puts a space before texts that begin with one too, where the "
              "model's own tokenizer does not");
        }
      } else if (step.kind() == pb::TextStep::REPLACE && step.text() == kSpaceSymbol &&
                 step.pattern() == PatternOfText(" ") && !escapes) {
        escapes = true;
      } else {
        return false;
      }
    }
  }
  return escapes;
}

// BPE of characters by scores, GGUF's "llama" (sentencepiece). The reason where it cannot be.
std::optional<std::string> FillByScore(const pb::Tokenizer& tokenizer,
                                       const std::vector<Piece>& pieces, GgufTokenizerFields* out,
                                       std::vector<std::string>* notes) {
  bool prefix = false;
  if (tokenizer.model() == pb::Tokenizer::BPE_BY_SCORE) {
    const pb::SentencepieceNormalizer& normalizer = tokenizer.sentencepiece();
    if (!normalizer.escape_whitespaces()) return "keeps spaces as they are";
    if (!normalizer.precompiled_charsmap().empty() || normalizer.remove_extra_whitespaces())
      notes->push_back("llama.cpp does not normalize texts, as the model's own tokenizer does");
    prefix = normalizer.add_dummy_prefix();
    out->scores.assign(tokenizer.piece_score().begin(), tokenizer.piece_score().end());
  } else if (tokenizer.model() == pb::Tokenizer::BPE_BY_MERGES) {
    if (!EscapesSpaces(tokenizer, &prefix, notes))
      return "normalizes and cuts texts as this one does";
    std::optional<std::vector<float>> scores =
        ScoresOfMerges(MergesByRank(tokenizer, pieces), pieces);
    if (!scores.has_value()) return "merges characters by a list as this one does";
    out->scores = *std::move(scores);
  } else {
    return "chooses pieces by their likelihood (unigram) in a model of this kind";
  }
  out->model = "llama";
  out->add_space_prefix = prefix;
  if (!tokenizer.byte_fallback())
    notes->push_back(
        "llama.cpp fails on texts with characters that are no pieces: there are no "
        "pieces for bytes");
  return std::nullopt;
}

}  // namespace

absl::StatusOr<GgufTokenizerFields> ExportGgufTokenizer(const pb::Tokenizer& tokenizer,
                                                        int64_t vocab_size,
                                                        std::vector<std::string>* notes) {
  absl::StatusOr<std::vector<Piece>> pieces = PiecesOf(tokenizer);
  if (!pieces.ok()) return pieces.status();
  GgufTokenizerFields out;
  std::optional<std::string> reason =
      tokenizer.byte_level() && tokenizer.model() != pb::Tokenizer::UNIGRAM
          ? FillByteLevel(tokenizer, *pieces, &out, notes)
          : FillByScore(tokenizer, *pieces, &out, notes);
  const auto n = static_cast<size_t>(vocab_size);
  if (!reason.has_value() && pieces->size() > n) {
    reason = absl::StrCat("has ", pieces->size(), " tokens beside an embedding of ", n, " rows");
  }
  if (reason.has_value()) {
    out = GgufTokenizerFields();
    out.model = "none";
    notes->push_back(LeftOut(*reason));
    return out;
  }
  for (const Piece& piece : *pieces) {
    // What is spelled in the vocabulary without being found in texts must not be searched for.
    const bool found = piece.kind != pb::USER_DEFINED || piece.added || !tokenizer.byte_level();
    out.tokens.push_back(piece.spelling);
    out.token_types.push_back(found ? piece.kind : pb::NORMAL);
  }
  for (size_t id = pieces->size(); id < n; ++id) {
    out.tokens.push_back(absl::StrCat("[PAD", id, "]"));
    out.token_types.push_back(pb::UNUSED);
    if (!out.scores.empty()) out.scores.push_back(0);
  }
  if (tokenizer.has_bos_id()) out.bos_id = tokenizer.bos_id();
  if (tokenizer.has_unknown_id()) out.unknown_id = tokenizer.unknown_id();
  std::optional<uint32_t>* ends[] = {&out.eos_id, &out.eot_id, &out.eom_id};
  for (int i = 0; i < std::min(tokenizer.eos_ids_size(), 3); ++i) *ends[i] = tokenizer.eos_ids(i);
  out.add_bos = tokenizer.add_bos();
  out.add_eos = tokenizer.add_eos();
  out.chat_template = tokenizer.chat_template();
  return out;
}

}  // namespace quire
