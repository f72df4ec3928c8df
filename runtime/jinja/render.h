// Runs a parsed template.
#ifndef QUIRE_RUNTIME_JINJA_RENDER_H_
#define QUIRE_RUNTIME_JINJA_RENDER_H_

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "runtime/jinja/ast.h"

namespace quire::jinja {

// `globals` is an object of the variables. InvalidArgument: the template raised an exception, or
// operands do not fit. Unimplemented: it needs a function, filter, method or test that is not
// supported. ResourceExhausted: more than a million steps, 256 MiB of values, 512 MiB of values
// looked through, or values nested deeper than 100.
absl::StatusOr<std::string> Render(const Block& block, const nlohmann::json& globals);

}  // namespace quire::jinja

#endif  // QUIRE_RUNTIME_JINJA_RENDER_H_
