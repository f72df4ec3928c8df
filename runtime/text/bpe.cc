#include "runtime/text/bpe.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "runtime/text/utf8.h"

namespace quire {
namespace {

// Maps scores to integers that sort the other way round: the highest score becomes the smallest.
uint32_t PriorityOfScore(float score) {
  score += 0.0f;  // -0 is 0
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

}  // namespace

struct Bpe::Work {
  absl::string_view text;
  std::vector<Symbol> symbols;
  // Joins to do: priority << 32 | index of the left symbol. One that is no longer its symbol's is
  // stale.
  std::vector<uint64_t> heap;
  // How an UNUSED piece came to be: bytes of its left part. Such a piece is taken apart again at
  // the end.
  absl::flat_hash_map<int32_t, uint32_t> unused;
};

absl::Status Bpe::Init(const pb::Tokenizer& proto, const Vocabulary* vocabulary) {
  proto_ = &proto;
  vocabulary_ = vocabulary;
  by_score_ = proto.model() == pb::Tokenizer::BPE_BY_SCORE;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    byte_symbols_[byte] = vocabulary->Find(absl::string_view(&c, 1));
  }
  if (proto.has_sentencepiece()) {
    std::vector<std::pair<absl::string_view, int32_t>> entries;
    for (int32_t id = 0; id < vocabulary->size(); ++id) {
      if (vocabulary->kind(id) == pb::USER_DEFINED) entries.emplace_back(vocabulary->text(id), id);
    }
    user_defined_ = PrefixIndex(std::move(entries));
  }
  return InitMerges(proto);
}

absl::Status Bpe::InitMerges(const pb::Tokenizer& proto) {
  const int n = proto.merge_left_size();
  if (proto.merge_right_size() != n || proto.merge_rank_size() != n ||
      proto.merge_result_size() != n) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer: merges have %d lefts, %d rights, %d ranks and %d results", n,
        proto.merge_right_size(), proto.merge_rank_size(), proto.merge_result_size()));
  }
  if (by_score_) return absl::OkStatus();
  const uint32_t size = vocabulary_->size();
  merges_of_.resize(size + 1);
  uint32_t filled = 0;  // merges_of_ is known below this id
  for (int k = 0; k < n; ++k) {
    const uint32_t left = proto.merge_left(k), right = proto.merge_right(k),
                   result = proto.merge_result(k);
    if (left >= size || right >= size || result >= size) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: merge %d is of pieces %d and %d to %d, but there are %d", k,
                          left, right, result, size));
    }
    if (k > 0 && std::make_pair(left, right) <=
                     std::make_pair(proto.merge_left(k - 1), proto.merge_right(k - 1))) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: merge %d is not in ascending order", k));
    }
    if (vocabulary_->text(left).size() + vocabulary_->text(right).size() !=
        vocabulary_->text(result).size()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: merge %d joins pieces %d and %d to %d, whose length differs",
                          k, left, right, result));
    }
    while (filled <= left) merges_of_[filled++] = k;
  }
  while (filled <= size) merges_of_[filled++] = n;
  return absl::OkStatus();
}

void Bpe::AddSymbol(Work* work, uint32_t begin, uint32_t length, int32_t id, bool frozen) const {
  const int32_t index = static_cast<int32_t>(work->symbols.size());
  if (index > 0) work->symbols.back().next = index;
  work->symbols.push_back({begin, length, id, index - 1, -1, 0, -1, frozen});
}

void Bpe::AddSymbols(Work* work) const {
  const absl::string_view text = work->text;
  for (uint32_t pos = 0; pos < text.size();) {
    if (proto_->byte_level()) {
      const int32_t id = byte_symbols_[static_cast<uint8_t>(text[pos])];
      // Where the vocabulary lacks a byte, the reference library leaves it out.
      if (id >= 0 || by_score_) AddSymbol(work, pos, 1, id, false);
      ++pos;
      continue;
    }
    int32_t user_id;
    if (const size_t length = user_defined_.Longest(text.substr(pos), &user_id); length > 0) {
      AddSymbol(work, pos, length, user_id, true);
      pos += length;
      continue;
    }
    const uint32_t length = NextChar(text.substr(pos)).length;
    const int32_t id = vocabulary_->Find(text.substr(pos, length));
    if (id >= 0 || by_score_) {
      AddSymbol(work, pos, length, id, false);
      pos += length;
      continue;
    }
    bool bytes = proto_->byte_fallback();
    for (uint32_t i = 0; i < length && bytes; ++i) {
      bytes = vocabulary_->byte_piece(static_cast<uint8_t>(text[pos + i])) >= 0;
    }
    if (bytes) {
      for (uint32_t i = 0; i < length; ++i) {
        AddSymbol(work, pos + i, 1, vocabulary_->byte_piece(static_cast<uint8_t>(text[pos + i])),
                  false);
      }
    } else if (proto_->has_unknown_id()) {
      const int32_t unknown = static_cast<int32_t>(proto_->unknown_id());
      std::vector<Symbol>& symbols = work->symbols;
      if (proto_->fuse_unknown() && !symbols.empty() && symbols.back().id == unknown) {
        symbols.back().length += length;
      } else {
        AddSymbol(work, pos, length, unknown, false);
      }
    }
    pos += length;
  }
}

bool Bpe::FindJoin(Work* work, int32_t left) const {
  Symbol& a = work->symbols[left];
  a.join_result = -1;
  if (a.next < 0) return false;
  const Symbol& b = work->symbols[a.next];
  if (a.frozen || b.frozen) return false;
  if (by_score_) {
    const int32_t result = vocabulary_->Find(work->text.substr(a.begin, a.length + b.length));
    if (result < 0) return false;
    a.join_priority = PriorityOfScore(vocabulary_->score(result));
    a.join_result = result;
    if (vocabulary_->kind(result) == pb::UNUSED) work->unused[result] = a.length;
    return true;
  }
  const uint32_t* rights = proto_->merge_right().data();
  const uint32_t* begin = rights + merges_of_[a.id];
  const uint32_t* end = rights + merges_of_[a.id + 1];
  const uint32_t* found = std::lower_bound(begin, end, static_cast<uint32_t>(b.id));
  if (found == end || *found != static_cast<uint32_t>(b.id)) return false;
  const int k = static_cast<int>(found - rights);
  a.join_priority = proto_->merge_rank(k);
  a.join_result = static_cast<int32_t>(proto_->merge_result(k));
  return true;
}

void Bpe::Encode(absl::string_view text, std::vector<int32_t>* ids) const {
  if (text.empty()) return;
  if (proto_->whole_words()) {
    if (const int32_t id = vocabulary_->Find(text);
        id >= 0 && vocabulary_->kind(id) != pb::UNUSED) {
      ids->push_back(id);
      return;
    }
  }
  Work work;
  work.text = text;
  work.symbols.reserve(text.size());
  AddSymbols(&work);
  std::vector<Symbol>& symbols = work.symbols;
  std::vector<uint64_t>& heap = work.heap;
  const auto key = [&](int32_t left) {
    return uint64_t{symbols[left].join_priority} << 32 | static_cast<uint32_t>(left);
  };
  const int32_t n = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i + 1 < n; ++i) {
    if (FindJoin(&work, i)) heap.push_back(key(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const int32_t index = static_cast<int32_t>(heap.back() & 0xffffffffu);
    Symbol& left = symbols[index];
    const bool stale = left.length == 0 || left.join_result < 0 || key(index) != heap.back();
    heap.pop_back();
    if (stale) continue;
    Symbol& right = symbols[left.next];
    left.length += right.length;
    left.id = left.join_result;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) symbols[left.next].previous = index;
    for (const int32_t changed : {left.previous, index}) {
      if (changed < 0 || !FindJoin(&work, changed)) continue;
      heap.push_back(key(changed));
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  for (int32_t i = n == 0 ? -1 : 0; i >= 0; i = symbols[i].next) AppendIds(work, symbols[i], ids);
}

void Bpe::AppendIds(const Work& work, const Symbol& symbol, std::vector<int32_t>* ids) const {
  if (!by_score_) {
    ids->push_back(symbol.id);
    return;
  }
  std::vector<absl::string_view> parts = {work.text.substr(symbol.begin, symbol.length)};
  while (!parts.empty()) {
    const absl::string_view part = parts.back();
    parts.pop_back();
    const int32_t id = vocabulary_->Find(part);
    if (id < 0) {
      AppendUnknown(part, ids);
      continue;
    }
    const auto unused =
        vocabulary_->kind(id) == pb::UNUSED ? work.unused.find(id) : work.unused.end();
    if (unused == work.unused.end()) {
      ids->push_back(id);
    } else {
      parts.push_back(part.substr(unused->second));
      parts.push_back(part.substr(0, unused->second));
    }
  }
}

void Bpe::AppendUnknown(absl::string_view text, std::vector<int32_t>* ids) const {
  if (proto_->byte_fallback()) {
    for (const char c : text) {
      const int32_t id = vocabulary_->byte_piece(static_cast<uint8_t>(c));
      if (id >= 0) ids->push_back(id);
    }
    return;
  }
  if (!proto_->has_unknown_id()) return;
  const int32_t unknown = static_cast<int32_t>(proto_->unknown_id());
  if (proto_->fuse_unknown() && !ids->empty() && ids->back() == unknown) return;
  ids->push_back(unknown);
}

}  // namespace quire
