// Values of a template, with Python's meaning.
#ifndef QUIRE_RUNTIME_JINJA_VALUE_H_
#define QUIRE_RUNTIME_JINJA_VALUE_H_

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quire::jinja {

using Json = nlohmann::json;
// Shared and immutable; a part of a value keeps the whole alive. Undefined is a discarded JSON
// value.
using Value = std::shared_ptr<const Json>;

inline Value MakeValue(Json json) { return std::make_shared<Json>(std::move(json)); }
inline Value Part(const Value& whole, const Json& part) { return Value(whole, &part); }
inline Value Undefined() {
  static const Value* const kUndefined = new Value(MakeValue(Json(Json::value_t::discarded)));
  return *kUndefined;
}

inline bool IsTrue(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return value.is_structured() && !value.empty();
}

// str.strip and its one-sided kin; `characters` null: white space as Unicode has it.
absl::string_view Strip(absl::string_view text, const std::string* characters, bool left,
                        bool right);

}  // namespace quire::jinja

#endif  // QUIRE_RUNTIME_JINJA_VALUE_H_
