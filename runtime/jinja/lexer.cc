#include "runtime/jinja/lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "runtime/text/utf8.h"

namespace quire::jinja {
namespace {

constexpr absl::string_view kOperators[] = {"**", "==", "!=", "<=", ">=", "//", "+", "-", "*",
                                            "/",  "%",  "~",  "|",  "(",  ")",  "[", "]", "{",
                                            "}",  "<",  ">",  "=",  ".",  ",",  ":"};

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Segment>> Run() {
    while (pos_ < source_.size() && status_.ok()) {
      const size_t tag = FindTag(pos_);
      AddText(source_.substr(pos_, tag - pos_), tag);
      if (tag == source_.size()) break;
      pos_ = tag;
      ReadTag();
    }
    if (!status_.ok()) return status_;
    return std::move(segments_);
  }

 private:
  size_t FindTag(size_t from) const {
    for (size_t i = from; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#'))
        return i;
    }
    return source_.size();
  }

  // Trims the text before the tag at `end` by what the tags on both sides ask for.
  void AddText(absl::string_view text, size_t end) {
    const size_t begin = end - text.size();
    const int line = line_;
    for (const char c : text) line_ += c == '\n';
    if (trim_all_) {
      text = absl::StripLeadingAsciiWhitespace(text);
    } else if (trim_newline_ && absl::StartsWith(text, "\n")) {
      text.remove_prefix(1);
    }
    if (end < source_.size()) {
      const char marker = end + 2 < source_.size() ? source_[end + 2] : ' ';
      if (marker == '-') {
        text = absl::StripTrailingAsciiWhitespace(text);
      } else if (source_[end + 1] != '{' && marker != '+') {
        // A tag alone so far on its line takes the indentation with it.
        size_t indent = text.size();
        while (indent > 0 && (text[indent - 1] == ' ' || text[indent - 1] == '\t')) --indent;
        const bool line_begins = indent > 0 ? text[indent - 1] == '\n'
                                            : begin == 0 || source_[end - text.size() - 1] == '\n';
        if (line_begins) text = text.substr(0, indent);
      }
    }
    if (!text.empty()) segments_.push_back({Segment::kText, line, std::string(text), {}});
  }

  void ReadTag() {
    const char kind = source_[pos_ + 1];
    const int line = line_;
    pos_ += 2;
    if (pos_ < source_.size() && (source_[pos_] == '-' || source_[pos_] == '+')) ++pos_;
    trim_all_ = false;
    trim_newline_ = kind != '{';
    if (kind == '#') {
      const size_t end = source_.find("#}", pos_);
      if (end == absl::string_view::npos) return Fail("a comment that does not end");
      trim_all_ = source_[end - 1] == '-';
      for (const char c : source_.substr(pos_, end - pos_)) line_ += c == '\n';
      pos_ = end + 2;
      return;
    }
    Segment segment{kind == '{' ? Segment::kOutput : Segment::kBlock, line, "", {}};
    const absl::string_view close = kind == '{' ? "}}" : "%}";
    int braces = 0;
    while (status_.ok()) {
      while (pos_ < source_.size() &&
             absl::ascii_isspace(static_cast<unsigned char>(source_[pos_]))) {
        line_ += source_[pos_++] == '\n';
      }
      if (pos_ == source_.size()) return Fail("a tag that does not end");
      const absl::string_view rest = source_.substr(pos_);
      if (braces == 0 && absl::StartsWith(rest, close)) {
        pos_ += 2;
        break;
      }
      if (braces == 0 && (rest[0] == '-' || rest[0] == '+') &&
          absl::StartsWith(rest.substr(1), close)) {
        trim_all_ = rest[0] == '-';
        trim_newline_ = trim_newline_ && rest[0] != '+';
        pos_ += 3;
        break;
      }
      Token token = ReadToken();
      if (token.kind == Token::kOperator && token.text == "{") ++braces;
      if (token.kind == Token::kOperator && token.text == "}") --braces;
      segment.tokens.push_back(std::move(token));
    }
    segments_.push_back(std::move(segment));
  }

  Token ReadToken() {
    const absl::string_view rest = source_.substr(pos_);
    const auto is_digit = [&](size_t i) {
      return i < rest.size() && absl::ascii_isdigit(static_cast<unsigned char>(rest[i]));
    };
    const auto is_word = [&](size_t i) {
      return i < rest.size() &&
             (absl::ascii_isalnum(static_cast<unsigned char>(rest[i])) || rest[i] == '_');
    };
    if (rest[0] == '\'' || rest[0] == '"') return ReadString();
    size_t length = 0;
    if (is_digit(0)) {
      while (is_digit(length)) ++length;
      const bool fraction = length < rest.size() && rest[length] == '.' && is_digit(length + 1);
      if (fraction) {
        ++length;
        while (is_digit(length)) ++length;
      }
      pos_ += length;
      return {fraction ? Token::kFloat : Token::kInteger, std::string(rest.substr(0, length))};
    }
    while (is_word(length)) ++length;
    if (length > 0) {
      pos_ += length;
      return {Token::kName, std::string(rest.substr(0, length))};
    }
    for (const absl::string_view op : kOperators) {
      if (!absl::StartsWith(rest, op)) continue;
      pos_ += op.size();
      return {Token::kOperator, std::string(op)};
    }
    Fail("a character that begins no token");
    return {Token::kEnd, ""};
  }

  // Escapes are Python's.
  Token ReadString() {
    const char quote = source_[pos_++];
    std::string value;
    for (; pos_ < source_.size() && source_[pos_] != quote; ++pos_) {
      line_ += source_[pos_] == '\n';
      if (source_[pos_] != '\\' || pos_ + 1 == source_.size()) {
        value.push_back(source_[pos_]);
        continue;
      }
      const char c = source_[++pos_];
      constexpr absl::string_view kFrom = "abfnrtv0\\'\"",
                                  kTo = absl::string_view("\a\b\f\n\r\t\v\0\\'\"", 11);
      const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      const absl::string_view hex = source_.substr(pos_ + 1, digits);
      const bool is_hex =
          hex.size() == digits && std::all_of(hex.begin(), hex.end(), [](unsigned char digit) {
            return absl::ascii_isxdigit(digit);
          });
      uint32_t code;
      if (const size_t simple = kFrom.find(c); simple != absl::string_view::npos) {
        value.push_back(kTo[simple]);
      } else if (digits > 0 && is_hex && absl::SimpleHexAtoi(hex, &code) && code <= 0x10FFFF &&
                 (code < 0xD800 || code > 0xDFFF)) {
        AppendUtf8(code, &value);
        pos_ += digits;
      } else if (c != '\n') {  // an unknown escape stands for itself; a newline continues the line
        value.push_back('\\');
        value.push_back(c);
      }
    }
    if (pos_ == source_.size()) {
      Fail("a string that does not end");
    } else {
      ++pos_;
    }
    return {Token::kString, std::move(value)};
  }

  void Fail(const char* what) {
    if (status_.ok())
      status_ =
          absl::InvalidArgumentError(absl::StrFormat("chat template: line %d: %s", line_, what));
  }

  const absl::string_view source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool trim_all_ = false, trim_newline_ = false;  // by the tag before
  std::vector<Segment> segments_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<Segment>> Lex(absl::string_view source) {
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (absl::EndsWith(text, "\n")) text.pop_back();
  return Lexer(text).Run();
}

}  // namespace quire::jinja
