// UTF-8, decoded with the usual care: shortest forms only, no surrogates, nothing beyond U+10FFFF.
#ifndef QUIRE_RUNTIME_TEXT_UTF8_H_
#define QUIRE_RUNTIME_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace quire {

inline constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr absl::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, sentencepiece's space

struct Utf8Char {
  char32_t code;  // U+FFFD where not valid
  int length;  // bytes: of the character, or of the maximal part of one (Unicode 3.9, Table 3-8);
               // at least 1
  bool valid;
  bool incomplete;  // not valid only because the text ends here
};

// The character at the front of `text`, which must not be empty.
Utf8Char NextChar(absl::string_view text);

void AppendUtf8(char32_t code, std::string* out);

// Length of the valid prefix.
size_t ValidUtf8Prefix(absl::string_view text);
// A copy in which each invalid part is U+FFFD.
std::string ReplaceInvalidUtf8(absl::string_view text);

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_UTF8_H_
