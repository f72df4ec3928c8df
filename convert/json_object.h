// Reading settings from a JSON object, with errors that name the place and the key.
#ifndef QUIRE_CONVERT_JSON_OBJECT_H_
#define QUIRE_CONVERT_JSON_OBJECT_H_

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quire {

// Lists and objects inside one another.
inline constexpr int kMaxJsonDepth = 100;
// Each takes up to 100 bytes once it is parsed. The largest tokenizer.json, of 262,144 pieces and
// 514,906 pairs, has 1.8 million.
inline constexpr int64_t kMaxJsonValues = int64_t{4} << 20;

// The object that `text` is. ResourceExhausted over a limit above, before parsing, which would take
// memory for all of it. InvalidArgument, with what and where, for anything else.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text);
// Its errors begin with `place`.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view place);

// Settings of one object. A setting that is null counts as absent. The first error sticks in
// status(); what is returned after it has no meaning. Borrows the JSON value.
class JsonObject {
 public:
  // Precondition: object.is_object().
  JsonObject(const nlohmann::json& object, std::string place)
      : object_(object), place_(std::move(place)) {}

  const absl::Status& status() const { return status_; }
  const std::string& place() const { return place_; }

  // The value, or null.
  const nlohmann::json* Find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  bool Has(const char* key) const { return Find(key) != nullptr; }
  // Present, be it null.
  bool Mentions(const char* key) const { return object_.contains(key); }
  // Present, and neither false, zero nor empty.
  bool IsSet(const char* key) const {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return false;
    if (value->is_boolean()) return value->get<bool>();
    if (value->is_number()) return value->get<double>() != 0;
    return !value->empty();
  }

  // Without a fallback the setting must be there.
  int64_t Int(const char* key, std::optional<int64_t> fallback = std::nullopt) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr && fallback.has_value()) return *fallback;
    if (value != nullptr && value->is_number()) {
      const double number = value->get<double>();
      if (number == std::floor(number) && std::abs(number) <= 0x1p53) {
        return static_cast<int64_t>(number);
      }
    }
    Fail(key, value, "an integer");
    return 0;
  }
  double Number(const char* key, std::optional<double> fallback = std::nullopt) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr && fallback.has_value()) return *fallback;
    if (value != nullptr && value->is_number()) return value->get<double>();
    Fail(key, value, "a number");
    return 0;
  }
  bool Bool(const char* key, bool fallback) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) Fail(key, value, "true or false");
    return value->is_boolean() && value->get<bool>();
  }
  std::string String(const char* key, absl::string_view fallback) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return std::string(fallback);
    if (!value->is_string()) Fail(key, value, "a string");
    return value->is_string() ? value->get<std::string>() : "";
  }

  // A value for a message: cut, on one line, valid UTF-8.
  static std::string Show(const nlohmann::json& value) {
    if (value.is_structured()) return value.is_array() ? "a list" : "an object";
    std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    return text;
  }

 private:
  void Fail(const char* key, const nlohmann::json* value, const char* wanted) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        value == nullptr
            ? absl::StrCat(place_, ": '", key, "' is missing")
            : absl::StrCat(place_, ": '", key, "' is ", Show(*value), ", not ", wanted));
  }

  const nlohmann::json& object_;
  std::string place_;
  absl::Status status_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_JSON_OBJECT_H_
