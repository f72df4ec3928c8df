#include "convert/text_coding.h"

#include "absl/strings/numbers.h"

namespace quire {

void AppendUtf8(uint32_t c, std::string* out) {
  auto tail = [&](int shift) { out->push_back(static_cast<char>(0x80 | (c >> shift & 0x3f))); };
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xc0 | c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | c >> 12));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xf0 | c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

bool IsValidUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = text[i];
    const int tail = lead < 0x80                   ? 0
                     : lead >= 0xc2 && lead < 0xe0 ? 1
                     : lead >= 0xe0 && lead < 0xf0 ? 2
                     : lead >= 0xf0 && lead < 0xf5 ? 3
                                                   : -1;
    if (tail < 0 || text.size() - i <= static_cast<size_t>(tail)) return false;
    uint32_t c = tail == 0 ? lead : lead & (0x3f >> tail);
    for (int k = 1; k <= tail; ++k) {
      const uint8_t byte = text[i + k];
      if ((byte & 0xc0) != 0x80) return false;
      c = c << 6 | (byte & 0x3f);
    }
    if ((tail == 2 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) ||
        (tail == 3 && (c < 0x10000 || c >= 0x110000))) {
      return false;
    }
    i += tail + 1;
  }
  return true;
}

bool IsPlainText(absl::string_view text) {
  for (unsigned char c : text) {
    if (c < 0x20 || c == 0x7f) return false;
  }
  return IsValidUtf8(text);
}

bool DecodeRawUnicodeEscape(absl::string_view raw, std::string* utf8) {
  utf8->clear();
  for (size_t i = 0; i < raw.size();) {
    const size_t digits = raw[i] != '\\' || i + 1 == raw.size() ? 0
                          : raw[i + 1] == 'u'                   ? 4
                          : raw[i + 1] == 'U'                   ? 8
                                                                : 0;
    if (digits == 0) {
      AppendUtf8(static_cast<uint8_t>(raw[i++]), utf8);
      continue;
    }
    uint32_t c;
    const absl::string_view hex = raw.substr(i + 2, digits);
    if (hex.size() != digits || hex.find_first_of("+-xX ") != absl::string_view::npos ||
        !absl::SimpleHexAtoi(hex, &c) || c >= 0x110000) {
      return false;
    }
    AppendUtf8(c, utf8);
    i += 2 + digits;
  }
  return true;
}

bool DecodeLatin1(absl::string_view utf8, std::string* bytes) {
  bytes->clear();
  for (size_t i = 0; i < utf8.size(); ++i) {
    const uint8_t lead = utf8[i];
    if (lead < 0x80) {
      bytes->push_back(static_cast<char>(lead));
    } else if ((lead == 0xc2 || lead == 0xc3) && i + 1 < utf8.size() &&
               (static_cast<uint8_t>(utf8[i + 1]) & 0xc0) == 0x80) {
      bytes->push_back(static_cast<char>((lead & 3) << 6 | (utf8[++i] & 0x3f)));
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace quire
