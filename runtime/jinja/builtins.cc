#include "runtime/jinja/builtins.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/text/utf8.h"

namespace quire::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;
constexpr int64_t kMaxParts = 1000000;

// Python's str.isspace.
bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

absl::Status Unsupported(const char* what, const std::string& name) {
  return absl::UnimplementedError(absl::StrCat(what, " \"", name, "\" is not supported"));
}
absl::Status Unfit(const std::string& name) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" of a value or arguments that do not fit"));
}

const std::string* StringAt(const Arguments& arguments, size_t i) {
  if (i >= arguments.positional.size() || !arguments.positional[i]->is_string()) return nullptr;
  return &arguments.positional[i]->get_ref<const std::string&>();
}

int64_t CountChars(absl::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

std::string Title(absl::string_view text, bool every_word) {
  std::string out = absl::AsciiStrToLower(text);
  bool begins = true;
  for (char& c : out) {
    if (begins) c = absl::ascii_toupper(static_cast<unsigned char>(c));
    begins = every_word && !absl::ascii_isalpha(static_cast<unsigned char>(c));
  }
  return out;
}

// In linear time, whatever they are.
size_t Find(absl::string_view text, absl::string_view what) {
  const void* found = memmem(text.data(), text.size(), what.data(), what.size());
  return found == nullptr ? absl::string_view::npos : static_cast<const char*>(found) - text.data();
}

std::string Replace(absl::string_view text, absl::string_view from, absl::string_view to) {
  std::string out;
  for (size_t at; (at = Find(text, from)) != absl::string_view::npos;
       text.remove_prefix(at + from.size())) {
    absl::StrAppend(&out, text.substr(0, at), to);
  }
  absl::StrAppend(&out, text);
  return out;
}

absl::StatusOr<Value> Split(const std::string& text, const std::string* separator, int64_t limit) {
  Json out = Json::array();
  absl::string_view rest = text;
  const auto full = [&] { return static_cast<int64_t>(out.size()) > kMaxParts; };
  const auto error = [] {
    return absl::ResourceExhaustedError("split into more than 1000000 parts");
  };
  if (separator == nullptr) {  // at runs of white space
    for (;;) {
      rest = Strip(rest, nullptr, true, false);
      if (rest.empty()) return MakeValue(std::move(out));
      if (full()) return error();
      if (static_cast<int64_t>(out.size()) == limit) break;
      size_t end = 0;
      while (end < rest.size()) {
        const Utf8Char c = NextChar(rest.substr(end));
        if (IsSpace(c.code)) break;
        end += c.length;
      }
      out.push_back(std::string(rest.substr(0, end)));
      rest.remove_prefix(end);
    }
    out.push_back(std::string(rest));
    return MakeValue(std::move(out));
  }
  for (size_t at; static_cast<int64_t>(out.size()) != limit &&
                  (at = Find(rest, *separator)) != absl::string_view::npos;) {
    if (full()) return error();
    out.push_back(std::string(rest.substr(0, at)));
    rest.remove_prefix(at + separator->size());
  }
  out.push_back(std::string(rest));
  return MakeValue(std::move(out));
}

// Items of a dictionary come in the order of their keys, not of insertion.
Json Items(const Json& object) {
  Json out = Json::array();
  for (const auto& [key, value] : object.items()) out.push_back(Json::array({key, value}));
  return out;
}

absl::StatusOr<Value> SelectAttribute(const std::string& name, const Value& value,
                                      const Arguments& arguments) {
  const std::string* attribute = StringAt(arguments, 0);
  if (attribute == nullptr || !value->is_array()) return Unfit(name);
  const std::string* test = StringAt(arguments, 1);
  Arguments rest;
  if (arguments.positional.size() > 2)
    rest.positional.assign(arguments.positional.begin() + 2, arguments.positional.end());
  Json out = Json::array();
  for (const Json& item : *value) {
    Value member = Undefined();
    if (item.is_object() && item.contains(*attribute)) member = Part(value, item[*attribute]);
    absl::StatusOr<bool> selected = IsTrue(*member);
    if (test != nullptr) selected = ApplyTest(*test, member, rest);
    if (!selected.ok()) return selected.status();
    if (*selected == (name == "selectattr")) out.push_back(item);
  }
  return MakeValue(std::move(out));
}

absl::StatusOr<std::string> Join(const Json& list, const std::string& separator) {
  std::string out;
  for (size_t i = 0; i < list.size(); ++i) {
    absl::StatusOr<std::string> item = Print(list[i]);
    if (!item.ok()) return item.status();
    absl::StrAppend(&out, i == 0 ? "" : separator, *item);
  }
  return out;
}

}  // namespace

absl::string_view Strip(absl::string_view text, const std::string* characters, bool left,
                        bool right) {
  bool ascii[128] = {};
  absl::flat_hash_set<absl::string_view> others;
  absl::string_view rest;
  if (characters != nullptr) rest = *characters;
  while (!rest.empty()) {
    const absl::string_view c = rest.substr(0, NextChar(rest).length);
    const auto code = static_cast<uint8_t>(c[0]);
    code < 128 ? (void)(ascii[code] = true) : (void)others.insert(c);
    rest.remove_prefix(c.size());
  }
  const auto strips = [&](absl::string_view c) {
    const auto code = static_cast<uint8_t>(c[0]);
    if (characters == nullptr) return IsSpace(code < 128 ? code : NextChar(c).code);
    return code < 128 ? ascii[code] : others.contains(c);
  };
  while (left && !text.empty()) {
    const size_t length = static_cast<uint8_t>(text[0]) < 128 ? 1 : NextChar(text).length;
    if (!strips(text.substr(0, length))) break;
    text.remove_prefix(length);
  }
  while (right && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!strips(text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return text;
}

absl::StatusOr<std::string> Print(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_discarded()) return std::string();
  if (value.is_null()) return std::string("None");
  if (value.is_boolean()) return std::string(value.get<bool>() ? "True" : "False");
  if (value.is_number()) return value.dump();
  return absl::UnimplementedError("printing a list or a dictionary is not supported");
}

absl::StatusOr<Value> Operate(const std::string& op, const Json& a, const Json& b) {
  if (op == "==")
    return MakeValue(!a.is_discarded() && !b.is_discarded() ? a == b
                                                            : a.is_discarded() && b.is_discarded());
  if (op == "!=")
    return MakeValue(!a.is_discarded() && !b.is_discarded() ? a != b
                                                            : a.is_discarded() != b.is_discarded());
  if (op == "in") {
    if (b.is_string() && a.is_string())
      return MakeValue(Find(b.get_ref<const std::string&>(), a.get_ref<const std::string&>()) !=
                       absl::string_view::npos);
    if (b.is_array()) return MakeValue(std::find(b.begin(), b.end(), a) != b.end());
    if (b.is_object()) return MakeValue(a.is_string() && b.contains(a.get<std::string>()));
    return Unfit(op);
  }
  if (op == "~") {
    const absl::StatusOr<std::string> left = Print(a), right = Print(b);
    if (!left.ok()) return left.status();
    if (!right.ok()) return right.status();
    return MakeValue(absl::StrCat(*left, *right));
  }
  if (op == "+" && a.is_string() && b.is_string())
    return MakeValue(absl::StrCat(a.get<std::string>(), b.get<std::string>()));
  if (op == "+" && a.is_array() && b.is_array()) {
    Json both = a;
    both.insert(both.end(), b.begin(), b.end());
    return MakeValue(std::move(both));
  }
  const bool order = op[0] == '<' || op[0] == '>';
  if (order && ((a.is_string() && b.is_string()) || (a.is_number() && b.is_number()))) {
    return MakeValue(op == "<" ? a < b : op == ">" ? b < a : op == "<=" ? !(b < a) : !(a < b));
  }
  const auto integer = [](const Json& v) {
    return v.is_number_integer() && std::abs(v.get<double>()) < 1e9;
  };
  if (integer(a) && integer(b)) {
    const int64_t x = a.get<int64_t>(), y = b.get<int64_t>();
    if (op == "+") return MakeValue(x + y);
    if (op == "-") return MakeValue(x - y);
    if (op == "*") return MakeValue(x * y);
    if ((op == "//" || op == "%") && y != 0) {  // rounded down, the remainder with y's sign
      const int64_t remainder = ((x % y) + y) % y;
      return MakeValue(op == "%" ? remainder : (x - remainder) / y);
    }
  }
  return Unfit(op);
}

absl::StatusOr<bool> ApplyTest(const std::string& name, const Value& value,
                               const Arguments& arguments) {
  const Json& v = *value;
  if (name == "defined") return !v.is_discarded();
  if (name == "undefined") return v.is_discarded();
  if (name == "none") return v.is_null();
  if (name == "string") return v.is_string();
  if (name == "mapping") return v.is_object();
  if (name == "sequence" || name == "iterable") return v.is_structured() || v.is_string();
  if (name == "number") return v.is_number() || v.is_boolean();
  if (name == "integer") return v.is_number_integer();
  if (name == "float") return v.is_number_float();
  if (name == "boolean") return v.is_boolean();
  if (name == "true") return v.is_boolean() && v.get<bool>();
  if (name == "false") return v.is_boolean() && !v.get<bool>();
  if ((name == "odd" || name == "even") && v.is_number_integer())
    return (v.get<int64_t>() % 2 != 0) == (name == "odd");
  for (const auto& [test, op] :
       {std::make_pair("equalto", "=="), {"eq", "=="}, {"==", "=="}, {"ne", "!="}, {"in", "in"}}) {
    if (name != test) continue;
    if (arguments.positional.size() != 1) return Unfit(name);
    const absl::StatusOr<Value> result = Operate(op, v, *arguments.positional[0]);
    if (!result.ok()) return result.status();
    return (*result)->get<bool>();
  }
  return Unsupported("test", name);
}

absl::StatusOr<Value> ApplyFilter(const std::string& name, const Value& value,
                                  const Arguments& arguments) {
  const Json& v = *value;
  const std::vector<Value>& args = arguments.positional;
  if (name == "default" || name == "d") {
    const bool also_false = args.size() > 1 && IsTrue(*args[1]);
    const bool keep = also_false ? IsTrue(v) : !v.is_discarded();
    return keep ? value : args.empty() ? MakeValue("") : args[0];
  }
  if (name == "safe") return value;
  if (name == "length" || name == "count") {
    if (v.is_string()) return MakeValue(CountChars(v.get_ref<const std::string&>()));
    if (v.is_structured()) return MakeValue(v.size());
    if (v.is_discarded()) return MakeValue(0);
    return Unfit(name);
  }
  if (name == "string" || name == "trim" || name == "upper" || name == "lower" || name == "title" ||
      name == "capitalize" || name == "replace") {
    absl::StatusOr<std::string> text = Print(v);
    if (!text.ok()) return text.status();
    if (name == "trim")
      return MakeValue(std::string(Strip(*text, StringAt(arguments, 0), true, true)));
    if (name == "string") return MakeValue(*text);
    return CallMethod(name, MakeValue(*text), arguments);
  }
  if (name == "first" || name == "last") {
    if (!v.is_array()) return Unfit(name);
    return v.empty() ? Undefined() : Part(value, name == "first" ? v.front() : v.back());
  }
  if (name == "list" && v.is_array()) return value;
  if (name == "items" && v.is_object()) return MakeValue(Items(v));
  if (name == "join" && v.is_array()) {
    const absl::StatusOr<std::string> text =
        Join(v, args.empty() || StringAt(arguments, 0) == nullptr ? "" : *StringAt(arguments, 0));
    if (!text.ok()) return text.status();
    return MakeValue(*text);
  }
  if (name == "int") {
    int64_t number = 0;
    if (v.is_number() && std::abs(v.get<double>()) < 1e15)
      number = static_cast<int64_t>(v.get<double>());
    if (v.is_string() && !absl::SimpleAtoi(v.get<std::string>(), &number)) number = 0;
    return MakeValue(number);
  }
  if (name == "map" && v.is_array() && args.empty() && arguments.named.contains("attribute") &&
      arguments.named["attribute"].is_string()) {
    Json out = Json::array();
    const std::string attribute = arguments.named["attribute"].get<std::string>();
    for (const Json& item : v) {
      if (!item.is_object() || !item.contains(attribute)) return Unfit(name);
      out.push_back(item[attribute]);
    }
    return MakeValue(std::move(out));
  }
  if (name == "selectattr" || name == "rejectattr") return SelectAttribute(name, value, arguments);
  return Unsupported("filter", name);
}

absl::StatusOr<Value> CallMethod(const std::string& name, const Value& value,
                                 const Arguments& arguments) {
  const std::vector<Value>& args = arguments.positional;
  if (value->is_string()) {
    const std::string& text = value->get_ref<const std::string&>();
    const std::string* first = StringAt(arguments, 0);
    if (name == "strip") return MakeValue(std::string(Strip(text, first, true, true)));
    if (name == "lstrip") return MakeValue(std::string(Strip(text, first, true, false)));
    if (name == "rstrip") return MakeValue(std::string(Strip(text, first, false, true)));
    if (name == "upper") return MakeValue(absl::AsciiStrToUpper(text));
    if (name == "lower") return MakeValue(absl::AsciiStrToLower(text));
    if (name == "title") return MakeValue(Title(text, true));
    if (name == "capitalize") return MakeValue(Title(text, false));
    if (name == "startswith" && first != nullptr) return MakeValue(absl::StartsWith(text, *first));
    if (name == "endswith" && first != nullptr) return MakeValue(absl::EndsWith(text, *first));
    if (name == "replace" && first != nullptr && !first->empty() &&
        StringAt(arguments, 1) != nullptr) {
      const std::string& to = *StringAt(arguments, 1);
      if (to.size() > first->size() && text.size() / first->size() * to.size() > (16 << 20)) {
        return absl::ResourceExhaustedError("a string of more than 16 MiB");
      }
      return MakeValue(Replace(text, *first, to));
    }
    if (name == "split" && (args.empty() || (first != nullptr && !first->empty()))) {
      const bool limited = args.size() > 1 && args[1]->is_number_integer();
      return Split(text, first, limited ? args[1]->get<int64_t>() : -1);
    }
  }
  if (value->is_object()) {
    if (name == "items" && args.empty()) return MakeValue(Items(*value));
    if (name == "get" && StringAt(arguments, 0) != nullptr) {
      const auto it = value->find(*StringAt(arguments, 0));
      if (it != value->end()) return Part(value, *it);
      return args.size() > 1 ? args[1] : MakeValue(nullptr);
    }
    if ((name == "keys" || name == "values") && args.empty()) {
      Json out = Json::array();
      for (const auto& [key, item] : value->items())
        out.push_back(name == "keys" ? Json(key) : item);
      return MakeValue(std::move(out));
    }
  }
  return Unsupported("method", name);
}

absl::StatusOr<Value> CallFunction(const std::string& name, const Arguments& arguments) {
  const std::vector<Value>& args = arguments.positional;
  if (name == "raise_exception") {
    return absl::InvalidArgumentError(StringAt(arguments, 0) == nullptr ? "raise_exception"
                                                                        : *StringAt(arguments, 0));
  }
  if ((name == "namespace" || name == "dict") && args.empty()) return MakeValue(arguments.named);
  if (name == "range" && !args.empty() && args.size() <= 3) {
    int64_t bounds[3] = {0, 0, 1};
    for (size_t i = 0; i < args.size(); ++i) {
      if (!args[i]->is_number_integer() || std::abs(args[i]->get<double>()) > 1e9)
        return Unfit(name);
      bounds[args.size() == 1 ? 1 : i] = args[i]->get<int64_t>();
    }
    const auto [from, to, step] = bounds;
    if (step == 0) return Unfit(name);
    if (std::abs((to - from) / step) > kMaxRange)
      return absl::ResourceExhaustedError("a range of more than 100000 items");
    Json out = Json::array();
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) out.push_back(i);
    return MakeValue(std::move(out));
  }
  if (name == "strftime_now" && StringAt(arguments, 0) != nullptr) {
    const std::time_t now = std::time(nullptr);
    std::tm local;
    char text[256];
    if (localtime_r(&now, &local) == nullptr) return Unfit(name);
    return MakeValue(std::string(
        text, std::strftime(text, sizeof text, StringAt(arguments, 0)->c_str(), &local)));
  }
  return Unsupported("function", name);
}

}  // namespace quire::jinja
