// Template source to text and tags, tags to tokens.
#ifndef QUIRE_RUNTIME_JINJA_LEXER_H_
#define QUIRE_RUNTIME_JINJA_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire::jinja {

struct Token {
  enum Kind { kEnd, kName, kString, kInteger, kFloat, kOperator } kind;
  std::string text;  // a string's value
};

struct Segment {
  enum Kind { kText, kOutput, kBlock } kind;
  int line;
  std::string text;           // kText, white space already trimmed
  std::vector<Token> tokens;  // of {{ }} and {% %}
};

// White space is trimmed as transformers does: trim_blocks and lstrip_blocks on, one newline at the
// end dropped. InvalidArgument: a tag or string that does not end, or a character that begins no
// token.
absl::StatusOr<std::vector<Segment>> Lex(absl::string_view source);

}  // namespace quire::jinja

#endif  // QUIRE_RUNTIME_JINJA_LEXER_H_
