// Text as checkpoints spell it.
#ifndef QUIRE_CONVERT_TEXT_CODING_H_
#define QUIRE_CONVERT_TEXT_CODING_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace quire {

// Appends the UTF-8 of a code point below 0x110000.
void AppendUtf8(uint32_t code_point, std::string* out);

// True for well-formed UTF-8: shortest forms, no surrogates, nothing above U+10FFFF.
bool IsValidUtf8(absl::string_view text);

// True for UTF-8 without control characters: fit to be a tensor's name.
bool IsPlainText(absl::string_view text);

// Python's raw-unicode-escape (protocol 0's UNICODE): Latin-1, with \uXXXX and \UXXXXXXXX. False
// where an escape is malformed.
bool DecodeRawUnicodeEscape(absl::string_view raw, std::string* utf8);

// Bytes that protocol 2 spells as the UTF-8 of their Latin-1 text. False where it is not that.
bool DecodeLatin1(absl::string_view utf8, std::string* bytes);

}  // namespace quire

#endif  // QUIRE_CONVERT_TEXT_CODING_H_
