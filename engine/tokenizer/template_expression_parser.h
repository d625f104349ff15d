// The tokens of a template as a stream, and its expressions.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/template_ast.h"
#include "engine/tokenizer/template_lexer.h"

namespace acuity::engine::jinja {

// Records the first error and moves to the end, where every loop stops. Null expressions after it.
class ExpressionParser {
 protected:
  using Kind = Expr::Kind;

  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)];
  }
  Token Next();
  bool AtOperator(std::string_view text, size_t ahead = 0) const {
    return Peek(ahead).type == TokenType::kOperator && Peek(ahead).text == text;
  }
  bool AtName(std::string_view text, size_t ahead = 0) const {
    return Peek(ahead).type == TokenType::kName && Peek(ahead).text == text;
  }
  bool TakeOperator(std::string_view text) { return AtOperator(text) && (Next(), true); }
  bool TakeName(std::string_view text) { return AtName(text) && (Next(), true); }
  std::nullptr_t Fail(const std::string& message, int line = 0);
  std::string Describe(const Token& token) const;
  void Expect(std::string_view text);
  void ExpectEnd(TokenType type);
  std::string ExpectName();

  // While alive, one more level of nesting is in use.
  struct Level {
    explicit Level(ExpressionParser* parser);
    ~Level() { --parser->nesting_; }
    ExpressionParser* parser;
  };

  // Whole expressions; the second also takes `a, b` as a tuple, the third takes no `a if b else c`.
  ExprPtr ParseExpression();
  ExprPtr ParseTuple();
  ExprPtr ParseOr();
  // Filters and tests after `subject`. `inside`: at the name of a filter already.
  ExprPtr ParseFilters(ExprPtr subject, bool inside = false);
  ExprPtr Name(const std::string& name);

  // Names of filters and tests that do not exist are errors at once, but where a condition may keep
  // them from being reached, only then. (Jinja has the same rule.)
  struct Unknown {
    std::string message;
    int line;
    bool conditional = true;
  };
  // Forgets those since the number was `begin`, or makes them errors whatever is around them.
  void ForgetUnknown(size_t begin);
  void KeepUnknown(size_t begin);
  std::vector<Unknown> unknown_;

  int macros_ = 0;  // around the current token
  absl::Status status_;

 private:
  ExprPtr Finish(std::unique_ptr<Expr> expr);
  template <typename... Args>
  std::unique_ptr<Expr> Make(Kind kind, Args... args);
  ExprPtr Literal(Value value);

  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  bool TakeCompare(Operator* op);
  ExprPtr ParseCompare();
  ExprPtr ParseBinary(int level);
  ExprPtr ParseUnary(bool with_filters);
  ExprPtr ParsePrimary();
  ExprPtr ParseNumber(const Token& token);
  ExprPtr ParseName(const Token& token);
  ExprPtr ParseParentheses();
  ExprPtr ParseList();
  ExprPtr ParseDict();
  void ParseArguments(Expr* call);
  ExprPtr ParsePostfix(ExprPtr expr);
  ExprPtr ParseCall(ExprPtr callee);  // after its '('
  ExprPtr ParseSubscript(ExprPtr object);
  ExprPtr ParseFilter(ExprPtr subject);
  ExprPtr ParseTest(ExprPtr subject);

  const std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
};

}  // namespace acuity::engine::jinja
