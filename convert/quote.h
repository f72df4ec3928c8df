// Text from a file, made fit for a one-line message.
#ifndef QUIRE_CONVERT_QUOTE_H_
#define QUIRE_CONVERT_QUOTE_H_

#include <cstdint>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quire {

// True for UTF-8 with C1 controls (U+0080 to 9F), or what a terminal would show in another order or
// on another line: U+061C, 200E, 200F, 2028 to 202E, 2066 to 2069.
inline bool HidesText(absl::string_view text) {
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const uint8_t a = text[i], b = text[i + 1], c = i + 2 < text.size() ? text[i + 2] : 0;
    if (a == 0xc2 && b < 0xa0) return true;
    if (a == 0xd8 && b == 0x9c) return true;
    if (a == 0xe2 && b == 0x80 && ((c >= 0xa8 && c <= 0xae) || c == 0x8e || c == 0x8f)) return true;
    if (a == 0xe2 && b == 0x81 && c >= 0xa6 && c <= 0xa9) return true;
  }
  return false;
}

// 'text' with control characters escaped (where some are not ASCII, with all that is not), cut
// after 160 bytes.
inline std::string Quote(absl::string_view text) {
  constexpr size_t kMaxBytes = 160;
  const bool cut = text.size() > kMaxBytes;
  text = text.substr(0, kMaxBytes);
  return absl::StrCat("'",
                      HidesText(text) ? absl::CHexEscape(text) : absl::Utf8SafeCHexEscape(text),
                      cut ? "...'" : "'");
}

}  // namespace quire

#endif  // QUIRE_CONVERT_QUOTE_H_
