#include "runtime/text/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "runtime/text/utf8.h"

namespace quire {
namespace {

// Unicode's White_Space.
bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// What \w means in Unicode regular expressions (UTS 18, annex C), by general category.
bool IsWord(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return c == 0x200C || c == 0x200D;
  }
}

// Where the last character of text[0, end) begins. Precondition: end > 0.
size_t PreviousChar(absl::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}

bool WordEndsAt(absl::string_view text, size_t end) {
  return end > 0 && IsWord(NextChar(text.substr(PreviousChar(text, end))).code);
}
bool WordBeginsAt(absl::string_view text, size_t begin) {
  return begin < text.size() && IsWord(NextChar(text.substr(begin)).code);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<std::pair<absl::string_view, const pb::AddedToken*>> tokens) {
  std::vector<std::pair<absl::string_view, int32_t>> entries;
  for (const auto& [text, token] : tokens) {
    entries.emplace_back(text, static_cast<int32_t>(tokens_.size()));
    tokens_.push_back(token);
  }
  index_ = PrefixIndex(std::move(entries));
}

std::vector<TextStretch> AddedTokens::Cut(absl::string_view text, bool parse_special) const {
  std::vector<TextStretch> out;
  size_t done = 0;  // text before it is in `out`
  const auto plain_until = [&](size_t end) {
    if (end > done) out.push_back({text.substr(done, end - done), -1});
  };
  for (size_t pos = 0; pos < text.size() && !index_.empty();) {
    int32_t index;
    const size_t length = index_.Longest(text.substr(pos), &index);
    if (length == 0) {
      ++pos;
      continue;
    }
    const pb::AddedToken& token = *tokens_[index];
    size_t begin = pos, end = pos + length;
    pos = end;
    if (token.special() && !parse_special) continue;
    if (token.single_word() && (WordEndsAt(text, begin) || WordBeginsAt(text, end))) continue;
    if (token.lstrip()) {
      while (begin > done) {
        const size_t previous = PreviousChar(text, begin);
        if (!IsSpace(NextChar(text.substr(previous)).code)) break;
        begin = previous;
      }
    }
    if (token.rstrip()) {
      while (end < text.size()) {
        const Utf8Char c = NextChar(text.substr(end));
        if (!IsSpace(c.code)) break;
        end += c.length;
      }
    }
    begin = std::max(begin, done);
    plain_until(begin);
    if (end > begin)
      out.push_back({text.substr(begin, end - begin), static_cast<int32_t>(token.id())});
    done = std::max(done, end);
    pos = std::max(pos, end);
  }
  plain_until(text.size());
  return out;
}

}  // namespace quire
