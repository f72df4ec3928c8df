#include "runtime/text/sentencepiece_normalizer.h"

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "runtime/text/utf8.h"

namespace quire {
namespace {

// Longest string that may stand for a character; NFKC's longest has 33 bytes.
constexpr size_t kMaxReplacementBytes = 255;

// A unit of a Darts-clone double array (32 bits). A node's unit holds, from the low end: 8 bits
// label, 1 bit "a key ends here", 1 bit that shifts the offset by 8, 21 bits offset to its
// children. A leaf's unit holds a value, and bit 31.
uint32_t Label(uint32_t unit) { return unit & 0x800000ffu; }
bool HasLeaf(uint32_t unit) { return unit >> 8 & 1; }
uint32_t Offset(uint32_t unit) { return unit >> 10 << ((unit & 0x200u) >> 6); }
uint32_t Value(uint32_t unit) { return unit & 0x7fffffffu; }

uint32_t ReadLittleEndian32(const char* p) {
  const auto byte = [p](int i) { return uint32_t{static_cast<uint8_t>(p[i])}; };
  return byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
}

}  // namespace

absl::Status SentencepieceNormalizer::Init(const pb::SentencepieceNormalizer& spec,
                                           const Vocabulary& vocabulary) {
  spec_ = &spec;
  std::vector<std::pair<absl::string_view, int32_t>> entries;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.kind(id) == pb::USER_DEFINED) entries.emplace_back(vocabulary.text(id), id);
  }
  user_defined_ = PrefixIndex(std::move(entries));

  const absl::string_view map = spec.precompiled_charsmap();
  if (map.empty()) return absl::OkStatus();
  const auto refuse = [](const std::string& what) {
    return absl::InvalidArgumentError("tokenizer: precompiled_charsmap: " + what);
  };
  if (map.size() < 4) return refuse(absl::StrFormat("%d bytes, want at least 4", map.size()));
  const uint32_t trie_bytes = ReadLittleEndian32(map.data());
  if (trie_bytes > map.size() - 4 || trie_bytes % 4 != 0 || trie_bytes == 0) {
    return refuse(absl::StrFormat("a trie of %d bytes in a map of %d", trie_bytes, map.size()));
  }
  replacements_ = map.substr(4 + trie_bytes);
  if (replacements_.empty() || replacements_.back() != '\0')
    return refuse("its replacements do not end with a NUL");
  trie_.resize(trie_bytes / 4);
  for (size_t i = 0; i < trie_.size(); ++i) trie_[i] = ReadLittleEndian32(map.data() + 4 + 4 * i);

  // Every unit may be a node or a value, and only walking tells. So all nodes that can be reached
  // are walked here, and all references of theirs checked; a node is entered once, so a trie with
  // cycles ends too.
  std::vector<bool> seen(trie_.size());
  std::vector<uint32_t> open;
  const auto enter = [&](uint32_t node) {
    if (!seen[node]) open.push_back(node);
    seen[node] = true;
  };
  enter(0);
  while (!open.empty()) {
    const uint32_t node = open.back();
    open.pop_back();
    const uint32_t children = node ^ Offset(trie_[node]);
    if (HasLeaf(trie_[node])) {
      if (children >= trie_.size())
        return refuse(absl::StrFormat("unit %d leads to %d of %d", node, children, trie_.size()));
      const uint32_t value = Value(trie_[children]);
      if (value >= replacements_.size()) {
        return refuse(absl::StrFormat("unit %d refers to byte %d of %d", children, value,
                                      replacements_.size()));
      }
      const absl::string_view rest = replacements_.substr(value, kMaxReplacementBytes + 1);
      const absl::string_view replacement = rest.substr(0, rest.find('\0'));
      if (replacement.size() > kMaxReplacementBytes) {
        return absl::ResourceExhaustedError(absl::StrFormat(
            "tokenizer: precompiled_charsmap: the replacement at byte %d is longer than %d", value,
            kMaxReplacementBytes));
      }
      if (ValidUtf8Prefix(replacement) != replacement.size()) {
        return refuse(absl::StrFormat("the replacement at byte %d is not UTF-8", value));
      }
    }
    for (uint32_t label = 1; label < 256; ++label) {
      const uint32_t child = children ^ label;
      if (child < trie_.size() && Label(trie_[child]) == label) enter(child);
    }
  }
  return absl::OkStatus();
}

std::pair<absl::string_view, size_t> SentencepieceNormalizer::Front(absl::string_view text) const {
  int32_t id;
  if (const size_t length = user_defined_.Longest(text, &id); length > 0)
    return {text.substr(0, length), length};
  size_t longest = 0;
  uint32_t value = 0;
  if (!trie_.empty()) {
    uint32_t node = Offset(trie_[0]);
    for (size_t i = 0; i < text.size(); ++i) {
      const uint32_t label = static_cast<uint8_t>(text[i]);
      node ^= label;
      if (node >= trie_.size() || Label(trie_[node]) != label || label == 0) break;
      const bool leaf = HasLeaf(trie_[node]);
      node ^= Offset(trie_[node]);
      if (leaf) {
        longest = i + 1;
        value = Value(trie_[node]);
      }
    }
  }
  if (longest > 0) return {replacements_.data() + value, longest};
  const size_t length = NextChar(text).length;
  return {text.substr(0, length), length};
}

std::string SentencepieceNormalizer::Normalize(absl::string_view text) const {
  const bool trim = spec_->remove_extra_whitespaces();
  const absl::string_view space =
      spec_->escape_whitespaces() ? kSpaceSymbol : absl::string_view(" ");
  while (trim && !text.empty()) {
    const auto [front, length] = Front(text);
    if (front != " ") break;
    text.remove_prefix(length);
  }
  std::string out;
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 4 + space.size());
  const auto append = [&](absl::string_view part) { out.append(part.data(), part.size()); };
  if (spec_->add_dummy_prefix()) append(space);
  bool after_space = trim;
  while (!text.empty()) {
    auto [front, length] = Front(text);
    while (after_space && absl::ConsumePrefix(&front, " ")) {
    }
    if (!front.empty()) {
      for (const char c : front) c == ' ' ? append(space) : out.push_back(c);
      after_space = trim && absl::EndsWith(front, " ");
    }
    text.remove_prefix(length);
  }
  while (trim && absl::EndsWith(out, space)) out.resize(out.size() - space.size());
  return out;
}

}  // namespace quire
