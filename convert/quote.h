// Text from a file, made fit for a one-line message.
#ifndef QUIRE_CONVERT_QUOTE_H_
#define QUIRE_CONVERT_QUOTE_H_

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quire {

// 'text' with control characters escaped, cut after 160 bytes.
inline std::string Quote(absl::string_view text) {
  constexpr size_t kMaxBytes = 160;
  const bool cut = text.size() > kMaxBytes;
  return absl::StrCat("'", absl::Utf8SafeCHexEscape(text.substr(0, kMaxBytes)), cut ? "...'" : "'");
}

}  // namespace quire

#endif  // QUIRE_CONVERT_QUOTE_H_
