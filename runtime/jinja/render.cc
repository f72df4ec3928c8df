#include "runtime/jinja/render.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/jinja/builtins.h"
#include "runtime/jinja/value.h"
#include "runtime/text/utf8.h"

namespace quire::jinja {
namespace {

constexpr size_t kMaxSteps = 1'000'000;
constexpr size_t kMaxBytes = 256 << 20;       // of all values made
constexpr size_t kMaxWorkBytes = 512 << 20;   // of all values looked through
constexpr size_t kMaxCharactersOf = 4 << 20;  // bytes of a string that is taken to pieces
constexpr int kMaxValueNesting = 100;

// A tree walk. After the first error everything is undefined and loops end; the error stays in
// status_.
class Renderer {
 public:
  explicit Renderer(const Json& globals) : scopes_(1) {
    for (const auto& [name, value] : globals.items()) scopes_[0][name] = MakeValue(value);
  }

  absl::StatusOr<std::string> Run(const Block& block) {
    std::string out;
    RunBlock(block, &out);
    if (!status_.ok()) return status_;
    return out;
  }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = absl::flat_hash_map<std::string, Value>;

  Flow RunBlock(const Block& block, std::string* out) {
    for (const Stmt& stmt : block) {
      const Flow flow = RunStmt(stmt, out);
      if (!status_.ok()) return Flow::kBreak;
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow RunStmt(const Stmt& stmt, std::string* out) {
    Step(stmt.line);
    switch (stmt.kind) {
      case Stmt::kText:
        Append(stmt.text, stmt.line, out);
        break;
      case Stmt::kOutput:
        Append(Check(Print(*Eval(*stmt.value)), stmt.line), stmt.line, out);
        break;
      case Stmt::kIf:
        for (const auto& [condition, body] : stmt.branches) {
          if (condition == nullptr || IsTrue(*Eval(*condition)))
            return status_.ok() ? RunBlock(body, out) : Flow::kNext;
        }
        break;
      case Stmt::kFor:
        RunFor(stmt, out);
        break;
      case Stmt::kSet:
        RunSet(stmt);
        break;
      case Stmt::kMacro:
        scopes_.back()[stmt.names[0]] = Undefined();
        break;
      case Stmt::kScope:
        return RunBlock(stmt.body, out);
      case Stmt::kBreak:
        return Flow::kBreak;
      case Stmt::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  void RunFor(const Stmt& stmt, std::string* out) {
    const Value iterated = Eval(*stmt.value);
    // All of them: a loop that ends early has made them too.
    Step(stmt.line,
         iterated->is_string() ? iterated->get_ref<const std::string&>().size() : iterated->size());
    if (!status_.ok()) return;
    std::vector<Value> items;
    if (iterated->is_array()) {
      for (const Json& item : *iterated) items.push_back(Part(iterated, item));
    } else if (iterated->is_object()) {
      for (const auto& [key, item] : iterated->items()) items.push_back(MakeValue(key));
    } else if (iterated->is_string()) {
      for (const absl::string_view c : Characters(*iterated, stmt.line))
        items.push_back(MakeValue(std::string(c)));
    } else if (status_.ok() && !iterated->is_discarded()) {
      return Fail(absl::StatusCode::kInvalidArgument, stmt.line, "for over what is no list");
    }
    scopes_.emplace_back();
    if (stmt.condition != nullptr) {
      std::vector<Value> kept;
      for (Value& item : items) {
        Bind(stmt, item);
        if (IsTrue(*Eval(*stmt.condition))) kept.push_back(std::move(item));
        if (!status_.ok()) break;
      }
      items = std::move(kept);
    }
    const size_t n = items.size();
    for (size_t i = 0; i < n && status_.ok(); ++i) {
      scopes_.back().clear();
      Bind(stmt, items[i]);
      const Json loop = {
          {"index", i + 1},  {"index0", i},        {"revindex", n - i}, {"revindex0", n - i - 1},
          {"first", i == 0}, {"last", i + 1 == n}, {"length", n}};
      scopes_.back()["loop"] = MakeValue(loop);
      // These would have to be copied into it.
      if (i > 0) scopes_.back()["loop.previtem"] = items[i - 1];
      if (i + 1 < n) scopes_.back()["loop.nextitem"] = items[i + 1];
      if (RunBlock(stmt.body, out) == Flow::kBreak) break;
    }
    scopes_.pop_back();
    if (n == 0 && status_.ok()) RunBlock(stmt.otherwise, out);
  }

  void Bind(const Stmt& stmt, const Value& item) {
    if (stmt.names.size() == 1) {
      scopes_.back()[stmt.names[0]] = item;
      return;
    }
    if (!item->is_array() || item->size() != stmt.names.size()) {
      return Fail(absl::StatusCode::kInvalidArgument, stmt.line,
                  "a loop over items of another number than its names");
    }
    for (size_t i = 0; i < stmt.names.size(); ++i)
      scopes_.back()[stmt.names[i]] = Part(item, (*item)[i]);
  }

  void RunSet(const Stmt& stmt) {
    Value value;
    if (stmt.value != nullptr) {
      value = Eval(*stmt.value);
    } else {
      std::string text;
      RunBlock(stmt.body, &text);
      value = MakeValue(std::move(text));
    }
    if (stmt.text.empty()) {
      scopes_.back()[stmt.names[0]] = std::move(value);
      return;
    }
    // A namespace: the one kind of value that changes, seen from every scope.
    Value* target = FindVariable(stmt.names[0]);
    if (target == nullptr || !(*target)->is_object()) {
      return Fail(absl::StatusCode::kInvalidArgument, stmt.line,
                  "set of an attribute of what is no namespace");
    }
    if (value->is_discarded())
      return Fail(absl::StatusCode::kInvalidArgument, stmt.line, "set to an undefined value");
    if (target->use_count() != 1) *target = MakeValue(Copy(*target, stmt.line));
    if (!status_.ok()) return;
    (*std::const_pointer_cast<Json>(*target))[stmt.text] = Copy(value, stmt.line);
  }

  Value* FindVariable(const std::string& name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto it = scope->find(name);
      if (it != scope->end()) return &it->second;
    }
    return nullptr;
  }

  // Of loop.previtem and loop.nextitem.
  const Value* NeighbourInLoop(const Expr& expr) {
    const Expr& object = *expr.args[0];
    if (object.kind != Expr::kName || object.text != "loop") return nullptr;
    const auto scope = std::find_if(scopes_.rbegin(), scopes_.rend(),
                                    [](const Scope& s) { return s.contains("loop"); });
    if (scope == scopes_.rend()) return nullptr;
    const auto it = scope->find(absl::StrCat("loop.", expr.text));
    return it == scope->end() ? nullptr : &it->second;
  }

  Value Eval(const Expr& expr) {
    Step(expr.line);
    if (!status_.ok()) return Undefined();
    switch (expr.kind) {
      case Expr::kLiteral:
        return Value(Value(), &expr.literal);  // the tree outlives the run
      case Expr::kName: {
        const Value* variable = FindVariable(expr.text);
        return variable == nullptr ? Undefined() : *variable;
      }
      case Expr::kList: {
        Json list = Json::array();
        for (const ExprPtr& item : expr.args) list.push_back(Copy(Eval(*item), expr.line));
        return MakeValue(std::move(list));
      }
      case Expr::kDict: {
        Json dict = Json::object();
        for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
          const Value key = Eval(*expr.args[i]);
          if (!key->is_string()) return FailWith("a dictionary's key that is no string", expr.line);
          dict[key->get<std::string>()] = Copy(Eval(*expr.args[i + 1]), expr.line);
        }
        return MakeValue(std::move(dict));
      }
      case Expr::kAttribute: {
        if (const Value* neighbour = NeighbourInLoop(expr)) return *neighbour;
        const Value object = Eval(*expr.args[0]);
        if (object->is_discarded())
          return FailWith(absl::StrCat("\"", expr.text, "\" of an undefined value"), expr.line);
        const auto it = object->is_object() ? object->find(expr.text) : object->end();
        return object->is_object() && it != object->end() ? Part(object, *it) : Undefined();
      }
      case Expr::kIndex:
        return Index(Eval(*expr.args[0]), Eval(*expr.args[1]), expr.line);
      case Expr::kSlice:
        return Slice(expr);
      case Expr::kCall:
        return Call(expr);
      case Expr::kFilter: {
        const Value value = Eval(*expr.args[0]);
        const Arguments arguments = EvalArguments(expr);
        LookThrough(value, arguments, expr.line);
        if (!status_.ok()) return Undefined();
        return Check(ApplyFilter(expr.text, value, arguments), expr.line);
      }
      case Expr::kTest: {
        const Value value = Eval(*expr.args[0]);
        const Arguments arguments = EvalArguments(expr);
        for (const Value& other : arguments.positional) Compare(value, other, expr.line);
        if (!status_.ok()) return Undefined();
        return MakeValue(Check(ApplyTest(expr.text, value, arguments), expr.line));
      }
      case Expr::kNot:
        return MakeValue(!IsTrue(*Eval(*expr.args[0])));
      case Expr::kNegate:
        return Check(Operate("-", Json(0), *Eval(*expr.args[0])), expr.line);
      case Expr::kBinary:
        return Binary(expr);
      case Expr::kChoice:
        if (IsTrue(*Eval(*expr.args[0]))) return Eval(*expr.args[1]);
        return expr.args[2] == nullptr ? Undefined() : Eval(*expr.args[2]);
    }
    return Undefined();
  }

  Value Binary(const Expr& expr) {
    const Value left = Eval(*expr.args[0]);
    if (expr.text == "and" && !IsTrue(*left)) return left;
    if (expr.text == "or" && IsTrue(*left)) return left;
    const Value right = Eval(*expr.args[1]);
    if (expr.text == "and" || expr.text == "or") return right;
    Compare(left, right, expr.line);
    if (!status_.ok()) return Undefined();
    return Check(Operate(expr.text, *left, *right), expr.line);
  }

  Value Index(const Value& object, const Value& key, int line) {
    if (object->is_discarded() && status_.ok())
      return FailWith("an element of an undefined value", line);
    if (object->is_object() && key->is_string()) {
      const auto it = object->find(key->get_ref<const std::string&>());
      return it == object->end() ? Undefined() : Part(object, *it);
    }
    if (!key->is_number_integer()) return Undefined();
    const auto in = [&](size_t size) {
      const int64_t i = key->get<int64_t>(), n = static_cast<int64_t>(size);
      return i >= n || i < -n ? -1 : i < 0 ? i + n : i;
    };
    if (object->is_array()) {
      const int64_t i = in(object->size());
      return i < 0 ? Undefined() : Part(object, (*object)[i]);
    }
    if (object->is_string()) {
      const std::vector<absl::string_view> characters = Characters(*object, line);
      const int64_t i = in(characters.size());
      return i < 0 ? Undefined() : MakeValue(std::string(characters[i]));
    }
    return Undefined();
  }

  // Of a string; views of it.
  std::vector<absl::string_view> Characters(const Json& text, int line) {
    absl::string_view rest = text.get_ref<const std::string&>();
    std::vector<absl::string_view> out;
    if (rest.size() > kMaxCharactersOf) {
      Fail(absl::StatusCode::kResourceExhausted, line,
           "the characters of a string of more than 4 MiB");
      return out;
    }
    Work(8 * rest.size(), line);
    for (; !rest.empty(); rest.remove_prefix(out.back().size()))
      out.push_back(rest.substr(0, NextChar(rest).length));
    return out;
  }

  Value Slice(const Expr& expr) {
    const Value object = Eval(*expr.args[0]);
    const bool text = object->is_string();
    if (!text && !object->is_array())
      return FailWith("a slice of what is neither list nor string", expr.line);
    std::vector<absl::string_view> characters;
    if (text) characters = Characters(*object, expr.line);
    const int64_t n = static_cast<int64_t>(text ? characters.size() : object->size());
    const auto bound = [&](size_t i, int64_t fallback) {
      if (expr.args[i] == nullptr) return fallback;
      const Value value = Eval(*expr.args[i]);
      if (!value->is_number_integer()) return fallback;
      const int64_t at = value->get<int64_t>();
      return at < 0 ? at + n : at;
    };
    int64_t step = 1;
    if (expr.args[3] != nullptr) {
      const Value value = Eval(*expr.args[3]);
      if (!value->is_number_integer() || value->get<int64_t>() == 0)
        return FailWith("a slice of step 0", expr.line);
      step = std::clamp<int64_t>(value->get<int64_t>(), -n - 1, n + 1);
    }
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    const int64_t from = std::clamp(bound(1, step > 0 ? 0 : n - 1), low, high);
    const int64_t to = std::clamp(bound(2, step > 0 ? n : -1), low, high);
    Json out = Json::array();
    std::string joined;
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
      if (text) {
        absl::StrAppend(&joined, characters[i]);
      } else {
        out.push_back(Copy(Part(object, (*object)[i]), expr.line));
      }
    }
    Charge(joined.size(), expr.line);
    return text ? MakeValue(std::move(joined)) : MakeValue(std::move(out));
  }

  Value Call(const Expr& expr) {
    const Expr& callee = *expr.args[0];
    const Arguments arguments = EvalArguments(expr);
    if (!status_.ok()) return Undefined();
    if (callee.kind == Expr::kAttribute) {
      const Value object = Eval(*callee.args[0]);
      LookThrough(object, arguments, expr.line);
      if (!status_.ok()) return Undefined();
      return Check(CallMethod(callee.text, object, arguments), expr.line);
    }
    return Check(CallFunction(callee.kind == Expr::kName ? callee.text : "()", arguments),
                 expr.line);
  }

  Arguments EvalArguments(const Expr& expr) {
    Arguments arguments;
    for (size_t i = 1; i < expr.args.size(); ++i)
      arguments.positional.push_back(Eval(*expr.args[i]));
    for (const auto& [name, value] : expr.named) {
      const Value evaluated = Eval(*value);
      arguments.named[name] = evaluated->is_discarded() ? Json() : Copy(evaluated, expr.line);
    }
    return arguments;
  }

  // Limits and errors.

  void Step(int line, size_t n = 1) {
    steps_ += n;
    if (steps_ > kMaxSteps)
      Fail(absl::StatusCode::kResourceExhausted, line, "more than a million steps");
  }
  void Charge(size_t bytes, int line) {
    bytes_ += bytes;
    if (bytes_ > kMaxBytes)
      Fail(absl::StatusCode::kResourceExhausted, line, "more than 256 MiB of values");
  }
  void Work(size_t bytes, int line) {
    work_bytes_ += bytes;
    if (work_bytes_ > kMaxWorkBytes)
      Fail(absl::StatusCode::kResourceExhausted, line,
           "more than 512 MiB of values looked through");
  }
  void Append(const std::string& text, int line, std::string* out) {
    Charge(text.size(), line);
    if (status_.ok()) *out += text;
  }

  // What a value takes with all its parts, about.
  size_t Weigh(const Json& value, int line, int depth = 0) {
    size_t bytes = 64;
    if (depth > kMaxValueNesting) {
      Fail(absl::StatusCode::kResourceExhausted, line, "values nested deeper than 100");
    } else if (value.is_string()) {
      bytes += value.get_ref<const std::string&>().size();
    } else if (value.is_array()) {
      for (const Json& item : value) bytes += sizeof(Json) + Weigh(item, line, depth + 1);
    } else if (value.is_object()) {
      for (const auto& [key, item] : value.items())
        bytes += 128 + key.size() + Weigh(item, line, depth + 1);
    }
    return bytes;
  }
  // Null where that is too much.
  Json Copy(const Value& value, int line) {
    Charge(Weigh(*value, line), line);
    return status_.ok() ? *value : Json();
  }
  void Compare(const Value& a, const Value& b, int line) {
    Work(Weigh(*a, line) + Weigh(*b, line), line);
  }
  void LookThrough(const Value& value, const Arguments& arguments, int line) {
    const auto look = [&](const Value& v) {
      Work(v->is_string() ? v->get_ref<const std::string&>().size() : v->size() * sizeof(Json),
           line);
    };
    look(value);
    for (const Value& argument : arguments.positional) look(argument);
  }

  Value Check(absl::StatusOr<Value> value, int line) {
    if (!value.ok()) {
      Fail(value.status().code(), line, value.status().message());
      return Undefined();
    }
    // What nobody else has is new.
    if (value->use_count() == 1) Charge(Weigh(**value, line), line);
    return *std::move(value);
  }
  template <typename T>
  T Check(absl::StatusOr<T> value, int line) {
    if (value.ok()) return *std::move(value);
    Fail(value.status().code(), line, value.status().message());
    return T();
  }
  Value FailWith(absl::string_view what, int line) {
    Fail(absl::StatusCode::kInvalidArgument, line, what);
    return Undefined();
  }
  void Fail(absl::StatusCode code, int line, absl::string_view what) {
    if (status_.ok())
      status_ = absl::Status(code, absl::StrFormat("chat template: line %d: %s", line, what));
  }

  std::vector<Scope> scopes_;
  size_t steps_ = 0, bytes_ = 0, work_bytes_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> Render(const Block& block, const Json& globals) {
  return Renderer(globals).Run(block);
}

}  // namespace quire::jinja
