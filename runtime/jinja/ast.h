// A parsed template of the Jinja subset that chat templates use.
#ifndef QUIRE_RUNTIME_JINJA_AST_H_
#define QUIRE_RUNTIME_JINJA_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

namespace quire::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  enum Kind {
    kLiteral,    // literal
    kName,       // text
    kList,       // args
    kDict,       // args: key, value, key, value, ...
    kAttribute,  // args[0].text
    kIndex,      // args[0][args[1]]
    kSlice,      // args[0][args[1]:args[2]:args[3]]; absent ones are null
    kCall,       // args[0](args[1:], **named)
    kFilter,     // args[0] | text(args[1:], **named)
    kTest,       // args[0] is text(args[1:])
    kNot,        // not args[0]
    kNegate,     // -args[0]
    kBinary,     // args[0] text args[1]; text is an operator, "in", "and" or "or"
    kChoice,     // args[1] if args[0] else args[2]; args[2] may be null
  } kind;
  int line;
  int depth = 1;  // of the tree
  std::string text;
  nlohmann::json literal;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

struct Stmt;
using Block = std::vector<Stmt>;

struct Stmt {
  enum Kind {
    kText,    // text
    kOutput,  // {{ value }}
    kIf,      // the first of branches whose condition holds; a null condition always does
    kFor,     // for names in value if condition: body, else: otherwise
    kSet,  // names[0] = value, or names[0].text = value, or names[0] = what body prints where value
           // is null
    kMacro,  // names[0]; known by name only
    kScope,  // body
    kBreak,
    kContinue,
  } kind;
  int line;
  std::string text;
  std::vector<std::string> names;
  ExprPtr value, condition;
  std::vector<std::pair<ExprPtr, Block>> branches;
  Block body, otherwise;
};

}  // namespace quire::jinja

#endif  // QUIRE_RUNTIME_JINJA_AST_H_
