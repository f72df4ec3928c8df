#include "convert/export/pieces.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace quire {
namespace {

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer: ", what));
}

absl::Status CheckIds(const pb::Tokenizer& t, size_t n) {
  const auto bad = [n](uint32_t id) { return id >= n; };
  if ((t.has_bos_id() && bad(t.bos_id())) || (t.has_unknown_id() && bad(t.unknown_id())) ||
      std::any_of(t.eos_ids().begin(), t.eos_ids().end(), bad) ||
      std::any_of(t.added_tokens().begin(), t.added_tokens().end(),
                  [&](const pb::AddedToken& token) { return bad(token.id()); }) ||
      std::any_of(t.merge_left().begin(), t.merge_left().end(), bad) ||
      std::any_of(t.merge_right().begin(), t.merge_right().end(), bad) ||
      std::any_of(t.merge_result().begin(), t.merge_result().end(), bad)) {
    return Malformed(absl::StrCat("an id beyond its ", n, " pieces"));
  }
  const int merges = t.merge_left_size();
  if (t.merge_right_size() != merges || t.merge_rank_size() != merges ||
      t.merge_result_size() != merges) {
    return Malformed("lists of merges that differ in length");
  }
  return absl::OkStatus();
}

// The pieces that the bytes of `text` become by merges of pieces with a score above `limit`.
std::vector<uint32_t> MergeBelow(absl::string_view text, float limit,
                                 const pb::Tokenizer& tokenizer,
                                 const absl::flat_hash_map<absl::string_view, uint32_t>& ids) {
  std::vector<absl::string_view> parts;
  for (size_t i = 0; i < text.size(); ++i) parts.push_back(text.substr(i, 1));
  while (parts.size() > 2) {
    size_t best = parts.size();
    float best_score = limit;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found =
          ids.find(absl::string_view(parts[i].data(), parts[i].size() + parts[i + 1].size()));
      if (found == ids.end() || tokenizer.piece_score(found->second) <= best_score) continue;
      best_score = tokenizer.piece_score(found->second);
      best = i;
    }
    if (best == parts.size()) break;
    parts[best] =
        absl::string_view(parts[best].data(), parts[best].size() + parts[best + 1].size());
    parts.erase(parts.begin() + static_cast<int64_t>(best) + 1);
  }
  std::vector<uint32_t> result;
  for (const absl::string_view part : parts) {
    const auto found = ids.find(part);
    if (found == ids.end()) return {};
    result.push_back(found->second);
  }
  return result;
}

std::vector<Merge> MergesOfScores(const pb::Tokenizer& tokenizer,
                                  const std::vector<Piece>& pieces) {
  absl::flat_hash_map<absl::string_view, uint32_t> ids;
  std::vector<uint32_t> order;
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].kind != pb::NORMAL) continue;
    ids.emplace(pieces[id].text, id);
    order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return tokenizer.piece_score(a) > tokenizer.piece_score(b);
  });
  std::vector<Merge> merges;
  for (const uint32_t id : order) {
    if (pieces[id].text.size() < 2) continue;
    const std::vector<uint32_t> parts =
        MergeBelow(pieces[id].text, tokenizer.piece_score(id), tokenizer, ids);
    if (parts.size() == 2)
      merges.push_back({parts[0], parts[1], static_cast<uint32_t>(merges.size()), id});
  }
  return merges;
}

}  // namespace

absl::StatusOr<std::vector<Piece>> PiecesOf(const pb::Tokenizer& t) {
  const auto n = static_cast<size_t>(t.piece_length_size());
  if (t.piece_kind().size() != n) return Malformed("kinds and lengths of pieces differ in number");
  const bool scored = t.model() != pb::Tokenizer::BPE_BY_MERGES;
  if (static_cast<size_t>(t.piece_score_size()) != (scored ? n : 0))
    return Malformed(absl::StrCat(t.piece_score_size(), " scores for ", n, " pieces"));
  if (absl::Status status = CheckIds(t, n); !status.ok()) return status;
  std::vector<Piece> pieces;
  pieces.reserve(n);
  size_t end = 0;
  for (size_t id = 0; id < n; ++id) {
    const size_t length = t.piece_length(static_cast<int>(id));
    const auto kind = static_cast<pb::PieceKind>(t.piece_kind()[id]);
    if (length > t.piece_text().size() - end) return Malformed("pieces longer than their text");
    if (kind < pb::NORMAL || kind > pb::BYTE)
      return Malformed(absl::StrCat("a piece of kind ", kind));
    Piece piece{t.piece_text().substr(end, length), "", kind};
    if (piece.text.empty()) {
      piece.kind = pb::UNUSED;
      piece.spelling = absl::StrCat("[PAD", id, "]");  // as converters name rows without a token
    } else {
      piece.spelling =
          t.byte_level() && kind == pb::NORMAL ? ByteLevelOfBytes(piece.text) : piece.text;
    }
    pieces.push_back(std::move(piece));
    end += length;
  }
  if (end != t.piece_text().size()) return Malformed("text behind the last piece");
  for (const pb::AddedToken& token : t.added_tokens()) pieces[token.id()].added = true;
  return pieces;
}

std::vector<Merge> MergesByRank(const pb::Tokenizer& tokenizer, const std::vector<Piece>& pieces) {
  if (tokenizer.model() != pb::Tokenizer::BPE_BY_MERGES) return MergesOfScores(tokenizer, pieces);
  std::vector<Merge> merges;
  for (int k = 0; k < tokenizer.merge_left_size(); ++k) {
    merges.push_back({tokenizer.merge_left(k), tokenizer.merge_right(k), tokenizer.merge_rank(k),
                      tokenizer.merge_result(k)});
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
  return merges;
}

std::optional<std::vector<float>> ScoresOfMerges(const std::vector<Merge>& merges,
                                                 const std::vector<Piece>& pieces) {
  std::vector<float> scores(pieces.size(), 0);
  absl::flat_hash_set<std::pair<uint32_t, uint32_t>> listed;
  float order = 0;
  for (size_t k = 0; k < merges.size(); ++k) {
    const Merge& merge = merges[k];
    listed.emplace(merge.left, merge.right);
    if (k > 0 && merges[k - 1].result == merge.result) continue;
    if (scores[merge.result] != 0) return std::nullopt;
    scores[merge.result] = -++order;
  }
  absl::flat_hash_map<absl::string_view, uint32_t> ids;
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].kind == pb::NORMAL) ids.emplace(pieces[id].text, id);
  }
  for (const auto& [text, id] : ids) {
    for (size_t i = 1; i < text.size(); ++i) {
      const auto left = ids.find(text.substr(0, i)), right = ids.find(text.substr(i));
      if (left == ids.end() || right == ids.end()) continue;
      if (listed.count({left->second, right->second}) == 0) return std::nullopt;
    }
  }
  // What no merge makes comes last.
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (scores[id] == 0 && pieces[id].kind == pb::NORMAL) scores[id] = -++order;
  }
  return scores;
}

}  // namespace quire
