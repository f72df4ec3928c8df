#include "convert/tokenizer_builder.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "convert/quote.h"
#include "runtime/text/regex.h"

namespace quire {

const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kTekkenPattern[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

void AddPiece(absl::string_view text, pb::PieceKind kind, pb::Tokenizer* out) {
  out->mutable_piece_text()->append(text.data(), text.size());
  out->add_piece_length(static_cast<uint32_t>(text.size()));
  out->mutable_piece_kind()->push_back(static_cast<char>(kind));
}

void SetMerges(std::vector<Merge> merges, pb::Tokenizer* out) {
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.left, a.right, a.rank) < std::tie(b.left, b.right, b.rank);
  });
  for (size_t k = 0; k < merges.size(); ++k) {
    const Merge& m = merges[k];
    if (k + 1 < merges.size() && merges[k + 1].left == m.left && merges[k + 1].right == m.right)
      continue;
    out->add_merge_left(m.left);
    out->add_merge_right(m.right);
    out->add_merge_rank(m.rank);
    out->add_merge_result(m.result);
  }
}

namespace {

// Printable bytes of Latin-1 stand for themselves; the others, in order, for U+0100 and up.
constexpr int kStandIns = 0x180;
std::array<int16_t, kStandIns> MakeByteOfStandIn() {
  std::array<int16_t, kStandIns> table;
  table.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[printable ? byte : next++] = static_cast<int16_t>(byte);
  }
  return table;
}

}  // namespace

std::optional<std::string> BytesOfByteLevel(absl::string_view text) {
  static const std::array<int16_t, kStandIns> kBytes = MakeByteOfStandIn();
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = static_cast<uint8_t>(text[i]);
    uint32_t code = lead;
    if (lead >= 0x80) {  // only two-byte characters can stand for a byte
      if (lead < 0xC2 || lead > 0xDF || i + 1 == text.size()) return std::nullopt;
      const uint8_t second = static_cast<uint8_t>(text[i + 1]);
      if ((second & 0xC0) != 0x80) return std::nullopt;
      code = (lead & 0x1Fu) << 6 | (second & 0x3Fu);
    }
    if (code >= kBytes.size() || kBytes[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kBytes[code]));
    i += lead >= 0x80 ? 2 : 1;
  }
  return bytes;
}

std::string ByteLevelOfBytes(absl::string_view bytes) {
  static const std::array<std::string, 256> kStandInOf = [] {
    std::array<std::string, 256> table;
    const std::array<int16_t, kStandIns> byte_of = MakeByteOfStandIn();
    for (int code = 0; code < kStandIns; ++code) {
      if (byte_of[code] < 0) continue;
      std::string& text = table[byte_of[code]];
      if (code < 0x80) {
        text = static_cast<char>(code);
      } else {
        text = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
      }
    }
    return table;
  }();
  std::string text;
  for (const char c : bytes) text += kStandInOf[static_cast<uint8_t>(c)];
  return text;
}

absl::StatusOr<std::string> PatternToPcre2(absl::string_view pattern) {
  // PCRE2's own \s and \w differ from Unicode's White_Space and word characters.
  constexpr char kSpaces[] =
      R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  constexpr char kWords[] = R"(\p{L}\p{M}\p{Nd}\p{Pc})";
  const auto unsupported = [&](absl::string_view what) {
    return absl::UnimplementedError(
        absl::StrCat("pattern ", Quote(pattern), ": ", what, " is not supported"));
  };
  std::string out;
  bool in_class = false, anchored = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      const bool negated = escaped == 'S' || escaped == 'W';
      const char* set = escaped == 's' || escaped == 'S'   ? kSpaces
                        : escaped == 'w' || escaped == 'W' ? kWords
                                                           : nullptr;
      if (escaped == 'h' || escaped == 'H') return unsupported("\\h");
      if (set != nullptr && in_class && negated) return unsupported("\\S or \\W in a class");
      if (set == nullptr) {
        absl::StrAppend(&out, "\\", pattern.substr(i, 1));
      } else if (in_class) {
        out += set;
      } else {
        absl::StrAppend(&out, negated ? "[^" : "[", set, "]");
      }
      continue;
    }
    if (in_class) {
      if (c == '[' && pattern.substr(i, 2) != "[:") return unsupported("a class in a class");
      if (pattern.substr(i, 2) == "&&") return unsupported("an intersection of classes");
      if (pattern.substr(i, 2) == "[:") {
        const size_t end = pattern.find(":]", i);
        if (end == absl::string_view::npos) return unsupported("a class in a class");
        absl::StrAppend(&out, pattern.substr(i, end + 2 - i));
        i = end + 1;
        continue;
      }
      if (c == ']') in_class = false;
      out.push_back(c);
      continue;
    }
    out.push_back(c);
    if (c == '[') {
      in_class = true;
      // A bracket that comes first is meant as such.
      if (pattern.substr(i + 1, 1) == "^") out.push_back(pattern[++i]);
      if (pattern.substr(i + 1, 1) == "]") out.push_back(pattern[++i]);
    }
    anchored |= c == '^' || c == '$';
  }
  if (anchored) out = "(?m)" + out;

  if (absl::Status status = Regex::Create(out).status(); !status.ok()) return status;
  return out;
}

std::string PatternOfText(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<uint8_t>(c) < 0x80) {
      absl::StrAppendFormat(&out, "\\x{%02x}", static_cast<int>(c));
    } else {
      out.push_back(c);
    }
  }
  return out;
}

pb::TextStep* AddSplit(absl::string_view pattern, pb::TextStep::Behavior behavior,
                       pb::Tokenizer* out) {
  pb::TextStep* step = out->add_pre_tokenizer();
  step->set_kind(pb::TextStep::SPLIT);
  step->set_pattern(pattern.data(), pattern.size());
  step->set_behavior(behavior);
  return step;
}

}  // namespace quire
