#include "runtime/text/unigram.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/text/utf8.h"

namespace quire {
namespace {

// How much less likely than the rarest piece an unknown character is (sentencepiece's kUnkPenalty).
constexpr float kUnknownPenalty = 10.0f;

}  // namespace

void Unigram::Init(const pb::Tokenizer& proto, const Vocabulary* vocabulary) {
  proto_ = &proto;
  vocabulary_ = vocabulary;
  std::vector<std::pair<absl::string_view, int32_t>> entries;
  float min_score = std::numeric_limits<float>::max();
  max_score_ = std::numeric_limits<float>::lowest();
  for (int32_t id = 0; id < vocabulary->size(); ++id) {
    const pb::PieceKind kind = vocabulary->kind(id);
    if (kind == pb::NORMAL) {
      min_score = std::min(min_score, vocabulary->score(id));
      max_score_ = std::max(max_score_, vocabulary->score(id));
    }
    if (kind == pb::NORMAL || kind == pb::USER_DEFINED)
      entries.emplace_back(vocabulary->text(id), id);
  }
  if (max_score_ < min_score) min_score = max_score_ = 0;
  unknown_score_ = min_score - kUnknownPenalty;
  pieces_ = PrefixIndex(std::move(entries));
}

void Unigram::Encode(absl::string_view text, std::vector<int32_t>* ids) const {
  // The best way to reach each byte offset.
  struct Node {
    int32_t id = -1;  // of the last piece; -1: an unknown character
    int32_t begin = -1;
    float score = 0;
  };
  std::vector<Node> nodes(text.size() + 1);
  for (size_t pos = 0; pos < text.size();) {
    const float score_here = nodes[pos].score;
    const size_t char_length = NextChar(text.substr(pos)).length;
    bool has_char = false;
    // Sums are made in double and kept in float, as the reference does: ties must fall alike.
    const auto reach = [&](size_t length, int32_t id, float score) {
      Node& node = nodes[pos + length];
      const float sum = score + score_here;
      if (node.begin >= 0 && sum <= node.score) return;
      node = {id, static_cast<int32_t>(pos), static_cast<float>(sum)};
    };
    pieces_.Matches(text.substr(pos), [&](size_t length, int32_t id) {
      const bool user_defined = vocabulary_->kind(id) == pb::USER_DEFINED;
      reach(length, id, user_defined ? length * max_score_ - 0.1 : vocabulary_->score(id));
      has_char |= length == char_length;
    });
    if (!has_char) reach(char_length, -1, unknown_score_);
    pos += char_length;
  }

  std::vector<std::pair<int32_t, int32_t>> path;  // (id, end), from the last
  for (int32_t end = static_cast<int32_t>(text.size()); end > 0; end = nodes[end].begin) {
    path.emplace_back(nodes[end].id, end);
  }
  bool after_unknown = false;
  for (auto it = path.rbegin(); it != path.rend(); ++it) {
    const auto [id, end] = *it;
    if (id >= 0) {
      ids->push_back(id);
    } else if (proto_->byte_fallback()) {
      for (const char c : text.substr(nodes[end].begin, end - nodes[end].begin)) {
        const int32_t byte_id = vocabulary_->byte_piece(static_cast<uint8_t>(c));
        if (byte_id >= 0) ids->push_back(byte_id);
      }
    } else if (proto_->has_unknown_id() && !(after_unknown && proto_->fuse_unknown())) {
      ids->push_back(static_cast<int32_t>(proto_->unknown_id()));
    }
    after_unknown = id < 0;
  }
}

}  // namespace quire
