#include "runtime/jinja/parser.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/jinja/lexer.h"

namespace quire::jinja {
namespace {

constexpr size_t kMaxSourceBytes = 256 << 10;
constexpr int kMaxDepth = 100;

using Node = std::unique_ptr<Expr>;

// Recursive descent. After the first error every token is kEnd, so that all loops end; the error
// stays in status_.
class Parser {
 public:
  explicit Parser(std::vector<Segment> segments) : segments_(std::move(segments)) {}

  absl::StatusOr<Block> Run() {
    Block block = ParseBlock({});
    if (!status_.ok()) return status_;
    return block;
  }

 private:
  // Statements.

  // Up to a block tag that begins with one of `ends`, which is left current; or to the end where
  // there are none.
  Block ParseBlock(const std::vector<std::string>& ends) {
    Block block;
    if (++depth_ > kMaxDepth) Fail(absl::StatusCode::kResourceExhausted, "nested too deeply");
    while (status_.ok()) {
      if (segment_ == segments_.size()) {
        if (!ends.empty())
          Fail(absl::StatusCode::kInvalidArgument, absl::StrCat("no ", ends.back()));
        break;
      }
      Segment& segment = segments_[segment_];
      line_ = segment.line;
      token_ = 0;
      if (segment.kind == Segment::kText) {
        ++segment_;
        block.push_back(Make(Stmt::kText));
        block.back().text = std::move(segment.text);
        continue;
      }
      if (segment.kind == Segment::kBlock && Peek().kind == Token::kName &&
          std::find(ends.begin(), ends.end(), Peek().text) != ends.end()) {
        break;
      }
      if (segment.kind == Segment::kOutput) {
        block.push_back(Make(Stmt::kOutput));
        block.back().value = ParseExpr();
        EndTag();
      } else {
        ParseStatement(&block);
      }
    }
    --depth_;
    return block;
  }

  void ParseStatement(Block* block) {
    const std::string word = TakeName();
    if (word == "if") return ParseIf(block);
    if (word == "for") return ParseFor(block);
    if (word == "set") return ParseSet(block);
    if (word == "break" || word == "continue") {
      block->push_back(Make(word == "break" ? Stmt::kBreak : Stmt::kContinue));
      return EndTag();
    }
    if (word == "generation") {  // marks what was generated; prints as it is
      EndTag();
      Stmt stmt = Make(Stmt::kScope);
      stmt.body = ParseBlock({"endgeneration"});
      block->push_back(std::move(stmt));
      return SkipTag();
    }
    if (word == "macro") {
      Stmt stmt = Make(Stmt::kMacro);
      stmt.names.push_back(TakeName());
      NextSegment();
      ParseBlock({"endmacro"});
      block->push_back(std::move(stmt));
      return SkipTag();
    }
    Fail(absl::StatusCode::kUnimplemented,
         absl::StrCat("statement \"", word, "\" is not supported"));
  }

  void ParseIf(Block* block) {
    Stmt stmt = Make(Stmt::kIf);
    std::string word = "if";
    while (status_.ok() && word != "endif") {
      ExprPtr condition = word == "else" ? nullptr : ParseExpr();
      EndTag();
      Block body = ParseBlock(word == "else" ? std::vector<std::string>{"endif"}
                                             : std::vector<std::string>{"elif", "else", "endif"});
      stmt.branches.emplace_back(std::move(condition), std::move(body));
      word = TakeName();
    }
    EndTag();
    block->push_back(std::move(stmt));
  }

  void ParseFor(Block* block) {
    Stmt stmt = Make(Stmt::kFor);
    do {
      stmt.names.push_back(TakeName());
    } while (TakeOperator(","));
    if (TakeName() != "in") Fail(absl::StatusCode::kInvalidArgument, "for without in");
    stmt.value = ParseOr();  // an "if" that follows filters the items
    if (PeekName("if")) {
      TakeName();
      stmt.condition = ParseExpr();
    }
    if (PeekName("recursive"))
      Fail(absl::StatusCode::kUnimplemented, "recursive loops are not supported");
    EndTag();
    stmt.body = ParseBlock({"else", "endfor"});
    if (TakeName() == "else") {
      EndTag();
      stmt.otherwise = ParseBlock({"endfor"});
      TakeName();
    }
    EndTag();
    block->push_back(std::move(stmt));
  }

  void ParseSet(Block* block) {
    Stmt stmt = Make(Stmt::kSet);
    stmt.names.push_back(TakeName());
    if (TakeOperator(".")) stmt.text = TakeName();
    if (Peek().kind == Token::kEnd) {
      EndTag();
      stmt.body = ParseBlock({"endset"});
      SkipTag();
    } else {
      if (!TakeOperator("="))
        Fail(absl::StatusCode::kUnimplemented, "set of anything but a name or an attribute");
      stmt.value = ParseTuple();
      EndTag();
    }
    block->push_back(std::move(stmt));
  }

  // Expressions, loosest first.

  Node ParseTuple() {
    Node first = ParseExpr();
    if (!PeekOperator(",")) return first;
    Node list = New(Expr::kList);
    Adopt(list.get(), std::move(first));
    while (TakeOperator(",")) {
      if (Peek().kind == Token::kEnd || PeekOperator(")")) break;
      Adopt(list.get(), ParseExpr());
    }
    return list;
  }

  Node ParseExpr() {
    if (++depth_ > kMaxDepth) Fail(absl::StatusCode::kResourceExhausted, "nested too deeply");
    Node value = ParseOr();
    while (PeekName("if")) {
      TakeName();
      Node choice = New(Expr::kChoice);
      Node condition = ParseOr();
      Adopt(choice.get(), std::move(condition));
      Adopt(choice.get(), std::move(value));
      if (PeekName("else")) {
        TakeName();
        Adopt(choice.get(), ParseExpr());
      } else {
        choice->args.push_back(nullptr);
      }
      value = std::move(choice);
    }
    --depth_;
    return value;
  }

  Node ParseOr() {
    Node left = ParseAnd();
    while (PeekName("or")) left = Binary(std::move(left), Take().text, &Parser::ParseAnd);
    return left;
  }

  Node ParseAnd() {
    Node left = ParseNot();
    while (PeekName("and")) left = Binary(std::move(left), Take().text, &Parser::ParseNot);
    return left;
  }

  Node ParseNot() {
    if (!PeekName("not")) return ParseComparison();
    TakeName();
    if (++depth_ > kMaxDepth) Fail(absl::StatusCode::kResourceExhausted, "nested too deeply");
    Node node = New(Expr::kNot);
    Adopt(node.get(), ParseNot());
    --depth_;
    return node;
  }

  Node ParseComparison() {
    Node left = ParseSum();
    bool chained = false;
    while (status_.ok()) {
      std::string op;
      bool negated = false;
      if (PeekName("in")) {
        op = TakeName();
      } else if (PeekName("not") && Peek(1).kind == Token::kName && Peek(1).text == "in") {
        TakeName();
        op = TakeName();
        negated = true;
      } else {
        for (const char* candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
          if (op.empty() && TakeOperator(candidate)) op = candidate;
        }
      }
      if (op.empty()) break;
      if (chained) Fail(absl::StatusCode::kUnimplemented, "chained comparisons are not supported");
      chained = true;
      left = Binary(std::move(left), op, &Parser::ParseSum);
      if (negated) {
        Node node = New(Expr::kNot);
        Adopt(node.get(), std::move(left));
        left = std::move(node);
      }
    }
    return left;
  }

  Node ParseSum() {
    Node left = ParseConcat();
    while (PeekOperator("+") || PeekOperator("-"))
      left = Binary(std::move(left), Take().text, &Parser::ParseConcat);
    return left;
  }

  Node ParseConcat() {
    Node left = ParseProduct();
    while (PeekOperator("~")) left = Binary(std::move(left), Take().text, &Parser::ParseProduct);
    return left;
  }

  Node ParseProduct() {
    Node left = ParseUnary();
    while (PeekOperator("*") || PeekOperator("/") || PeekOperator("//") || PeekOperator("%")) {
      left = Binary(std::move(left), Take().text, &Parser::ParseUnary);
    }
    return left;
  }

  Node ParseUnary() {
    if (!PeekOperator("-")) return ParseFilters(ParsePostfix(ParsePrimary()));
    Take();
    if (++depth_ > kMaxDepth) Fail(absl::StatusCode::kResourceExhausted, "nested too deeply");
    Node node = New(Expr::kNegate);
    Adopt(node.get(), ParseUnary());
    --depth_;
    return node;
  }

  // x | filter, x is test
  Node ParseFilters(Node value) {
    while (status_.ok()) {
      if (TakeOperator("|")) {
        Node filter = New(Expr::kFilter);
        filter->text = TakeName();
        Adopt(filter.get(), std::move(value));
        if (PeekOperator("(")) ParseArguments(filter.get());
        value = ParsePostfix(std::move(filter));
      } else if (PeekName("is")) {
        TakeName();
        const bool negated = PeekName("not");
        if (negated) TakeName();
        Node test = New(Expr::kTest);
        test->text = Peek().kind == Token::kOperator ? Take().text : TakeName();
        Adopt(test.get(), std::move(value));
        if (PeekOperator("(")) {
          ParseArguments(test.get());
        } else if (Peek().kind == Token::kString || Peek().kind == Token::kInteger ||
                   PeekOperator("[") ||
                   (Peek().kind == Token::kName && !PeekName("and") && !PeekName("or") &&
                    !PeekName("else") && !PeekName("if") && !PeekName("not") && !PeekName("is") &&
                    !PeekName("in"))) {
          Adopt(test.get(), ParsePostfix(ParsePrimary()));  // "is divisibleby 3"
        }
        value = std::move(test);
        if (negated) {
          Node node = New(Expr::kNot);
          Adopt(node.get(), std::move(value));
          value = std::move(node);
        }
      } else {
        break;
      }
    }
    return value;
  }

  // x.name, x[...], x(...)
  Node ParsePostfix(Node value) {
    while (status_.ok()) {
      if (TakeOperator(".")) {
        Node node = New(Expr::kAttribute);
        node->text = TakeName();
        Adopt(node.get(), std::move(value));
        value = std::move(node);
      } else if (TakeOperator("[")) {
        value = ParseSubscript(std::move(value));
      } else if (PeekOperator("(")) {
        Node node = New(Expr::kCall);
        Adopt(node.get(), std::move(value));
        ParseArguments(node.get());
        value = std::move(node);
      } else {
        break;
      }
    }
    return value;
  }

  Node ParseSubscript(Node value) {
    Node node = New(Expr::kIndex);
    Adopt(node.get(), std::move(value));
    for (;;) {
      if (PeekOperator(":") || PeekOperator("]")) {
        node->args.push_back(nullptr);
      } else {
        Adopt(node.get(), ParseExpr());
      }
      if (!status_.ok() || !TakeOperator(":")) break;
      node->kind = Expr::kSlice;
    }
    Expect("]");
    if (node->kind == Expr::kIndex && status_.ok() && node->args.back() == nullptr) {
      Fail(absl::StatusCode::kInvalidArgument, "an empty subscript");
    }
    if (node->args.size() > 4)
      Fail(absl::StatusCode::kInvalidArgument, "a slice of more than three parts");
    while (node->kind == Expr::kSlice && node->args.size() < 4) node->args.push_back(nullptr);
    return node;
  }

  void ParseArguments(Expr* call) {
    Expect("(");
    while (status_.ok() && !PeekOperator(")")) {
      if (Peek().kind == Token::kName && Peek(1).kind == Token::kOperator && Peek(1).text == "=") {
        std::string name = TakeName();
        Take();
        Node value = ParseExpr();
        if (value != nullptr) call->depth = std::max(call->depth, value->depth + 1);
        call->named.emplace_back(std::move(name), std::move(value));
      } else {
        Adopt(call, ParseExpr());
      }
      if (!TakeOperator(",")) break;
    }
    Expect(")");
  }

  Node ParsePrimary() {
    const Token token = Take();
    Node node = New(Expr::kLiteral);
    switch (token.kind) {
      case Token::kString: {
        std::string value = token.text;
        while (Peek().kind == Token::kString) value += Take().text;
        node->literal = std::move(value);
        return node;
      }
      case Token::kInteger: {
        int64_t value = 0;
        if (!absl::SimpleAtoi(token.text, &value))
          Fail(absl::StatusCode::kInvalidArgument, "an integer that is too large");
        node->literal = value;
        return node;
      }
      case Token::kFloat:
        node->literal = std::strtod(token.text.c_str(), nullptr);
        return node;
      case Token::kName:
        if (token.text == "true" || token.text == "True") {
          node->literal = true;
        } else if (token.text == "false" || token.text == "False") {
          node->literal = false;
        } else if (token.text == "none" || token.text == "None") {
          node->literal = nullptr;
        } else {
          node->kind = Expr::kName;
          node->text = token.text;
        }
        return node;
      case Token::kOperator:
        if (token.text == "(") {
          node = PeekOperator(")") ? New(Expr::kList) : ParseTuple();
          Expect(")");
          return node;
        }
        if (token.text == "[" || token.text == "{") return ParseCollection(token.text == "[");
        break;
      case Token::kEnd:
        break;
    }
    Fail(absl::StatusCode::kInvalidArgument,
         token.kind == Token::kEnd ? "an expression that breaks off"
                                   : absl::StrCat("\"", token.text, "\" begins no expression"));
    return node;
  }

  Node ParseCollection(bool list) {
    Node node = New(list ? Expr::kList : Expr::kDict);
    const char* close = list ? "]" : "}";
    while (status_.ok() && !PeekOperator(close)) {
      Adopt(node.get(), ParseExpr());
      if (!list) {
        Expect(":");
        Adopt(node.get(), ParseExpr());
      }
      if (!TakeOperator(",")) break;
    }
    Expect(close);
    return node;
  }

  // Nodes.

  Stmt Make(Stmt::Kind kind) const {
    Stmt stmt{};
    stmt.kind = kind;
    stmt.line = line_;
    return stmt;
  }
  Node New(Expr::Kind kind) const {
    auto node = std::make_unique<Expr>();
    node->kind = kind;
    node->line = line_;
    return node;
  }
  // Chains grow trees without recursion, so that their depth is counted as well.
  void Adopt(Expr* parent, Node child) {
    if (child != nullptr) parent->depth = std::max(parent->depth, child->depth + 1);
    if (parent->depth > kMaxDepth) Fail(absl::StatusCode::kResourceExhausted, "nested too deeply");
    parent->args.push_back(std::move(child));
  }
  // The operator has been taken; parses what is right of it.
  Node Binary(Node left, std::string op, Node (Parser::*parse_right)()) {
    Node node = New(Expr::kBinary);
    node->text = std::move(op);
    Adopt(node.get(), std::move(left));
    Adopt(node.get(), (this->*parse_right)());
    return node;
  }

  // Tokens.

  const Token& Peek(size_t ahead = 0) const {
    static const Token kEnd{Token::kEnd, ""};
    if (!status_.ok() || segment_ >= segments_.size()) return kEnd;
    const std::vector<Token>& tokens = segments_[segment_].tokens;
    return token_ + ahead < tokens.size() ? tokens[token_ + ahead] : kEnd;
  }
  Token Take() {
    Token token = Peek();
    ++token_;
    return token;
  }
  bool PeekName(absl::string_view name) const {
    return Peek().kind == Token::kName && Peek().text == name;
  }
  bool PeekOperator(absl::string_view op) const {
    return Peek().kind == Token::kOperator && Peek().text == op;
  }
  bool TakeOperator(absl::string_view op) {
    const bool found = PeekOperator(op);
    if (found) ++token_;
    return found;
  }
  std::string TakeName() {
    const Token token = Take();
    if (token.kind != Token::kName) {
      Fail(absl::StatusCode::kInvalidArgument,
           absl::StrCat("\"", token.text, "\" where a name is wanted"));
    }
    return token.text;
  }
  void Expect(absl::string_view op) {
    if (!TakeOperator(op)) {
      Fail(absl::StatusCode::kInvalidArgument,
           absl::StrCat("\"", Peek().text, "\" where \"", op, "\" is wanted"));
    }
  }
  void NextSegment() {
    ++segment_;
    token_ = 0;
  }
  void EndTag() {
    if (Peek().kind != Token::kEnd) {
      Fail(absl::StatusCode::kInvalidArgument,
           absl::StrCat("\"", Peek().text, "\" after the end of an expression"));
    }
    NextSegment();
  }
  // The tag of one word at which a block ended.
  void SkipTag() {
    TakeName();
    EndTag();
  }
  void Fail(absl::StatusCode code, absl::string_view what) {
    if (status_.ok())
      status_ = absl::Status(code, absl::StrFormat("chat template: line %d: %s", line_, what));
  }

  std::vector<Segment> segments_;
  size_t segment_ = 0, token_ = 0;
  int line_ = 1, depth_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Block> Parse(absl::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::ResourceExhaustedError(absl::StrFormat("chat template: %d bytes, the limit is %d",
                                                        source.size(), kMaxSourceBytes));
  }
  absl::StatusOr<std::vector<Segment>> segments = Lex(source);
  if (!segments.ok()) return segments.status();
  return Parser(*std::move(segments)).Run();
}

}  // namespace quire::jinja
