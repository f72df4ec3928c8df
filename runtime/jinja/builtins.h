// What templates can call: filters, tests and methods. Each takes the value and its arguments.
#ifndef QUIRE_RUNTIME_JINJA_BUILTINS_H_
#define QUIRE_RUNTIME_JINJA_BUILTINS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/jinja/value.h"

namespace quire::jinja {

struct Arguments {
  std::vector<Value> positional;
  Json named = Json::object();
};

// Unimplemented, naming it, for one that is not known; InvalidArgument for a value or arguments
// that do not fit.
absl::StatusOr<Value> ApplyFilter(const std::string& name, const Value& value,
                                  const Arguments& arguments);
absl::StatusOr<bool> ApplyTest(const std::string& name, const Value& value,
                               const Arguments& arguments);
absl::StatusOr<Value> CallMethod(const std::string& name, const Value& value,
                                 const Arguments& arguments);
absl::StatusOr<Value> CallFunction(const std::string& name, const Arguments& arguments);

// What {{ value }} prints. Unimplemented for lists and dictionaries.
absl::StatusOr<std::string> Print(const Json& value);
// a OP b for the arithmetic operators, comparisons, "~" and "in".
absl::StatusOr<Value> Operate(const std::string& op, const Json& a, const Json& b);

}  // namespace quire::jinja

#endif  // QUIRE_RUNTIME_JINJA_BUILTINS_H_
