// Template source to a tree.
#ifndef QUIRE_RUNTIME_JINJA_PARSER_H_
#define QUIRE_RUNTIME_JINJA_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/jinja/ast.h"

namespace quire::jinja {

// InvalidArgument: malformed. Unimplemented: a statement that is not supported. ResourceExhausted:
// longer than 256 KiB, or nested deeper than 100.
absl::StatusOr<Block> Parse(absl::string_view source);

}  // namespace quire::jinja

#endif  // QUIRE_RUNTIME_JINJA_PARSER_H_
