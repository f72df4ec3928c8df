#include "convert/json_object.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"

namespace quire {
namespace {

absl::Status CheckJsonSize(absl::string_view text) {
  int64_t values = 1;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') in_string = !in_string;
    if (in_string) {
      if (c == '\\') ++i;
      continue;
    }
    if (c == ']' || c == '}') --depth;
    if (c == '[' || c == '{') ++depth;
    if (c == '[' || c == '{' || c == ',') ++values;
    if (depth > kMaxJsonDepth) {
      return absl::ResourceExhaustedError(
          absl::StrCat("JSON nested deeper than ", kMaxJsonDepth, ", the limit"));
    }
    if (values > kMaxJsonValues) {
      return absl::ResourceExhaustedError(
          absl::StrCat("JSON of more than ", kMaxJsonValues, " values, the limit"));
    }
  }
  return absl::OkStatus();
}

// What nlohmann/json says of text that is no JSON: line, column, what was expected.
std::string Explain(const char* said) {
  absl::string_view words = said;
  words.remove_prefix(std::min(words.size(), words.find("parse error")));
  return absl::StrReplaceAll(absl::Utf8SafeCHexEscape(words.substr(0, 200)),
                             {{"\\'", "'"}, {"\\\"", "\""}});
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text) {
  if (absl::Status status = CheckJsonSize(text); !status.ok()) return status;
  if (absl::StripAsciiWhitespace(text).empty()) return absl::InvalidArgumentError("an empty file");
  if (absl::StartsWith(text, "version https://git-lfs"))
    return absl::InvalidArgumentError("a Git LFS pointer, not the file itself; run `git lfs pull`");
  try {
    nlohmann::json json = nlohmann::json::parse(text);
    if (json.is_object()) return json;
    return absl::InvalidArgumentError("not a JSON object");
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("not a JSON object: ", Explain(error.what())));
  }
}

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view place) {
  absl::StatusOr<nlohmann::json> json = ParseJsonObject(text);
  if (json.ok()) return json;
  return absl::Status(json.status().code(), absl::StrCat(place, ": ", json.status().message()));
}

}  // namespace quire
