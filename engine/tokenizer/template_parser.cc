#include "engine/tokenizer/template_parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_expression_parser.h"

namespace acuity::engine::jinja {
namespace {

// Statements.
class Parser : private ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  absl::StatusOr<Block> Run() {
    Block block = ParseBlock({});
    if (!unknown_.empty()) {
      Fail(absl::StrCat(unknown_[0].message, " is not supported"), unknown_[0].line);
    }
    if (!status_.ok()) return status_;
    return block;
  }

 private:
  // Statements up to a tag of one of `ends`, whose name stays the next token.
  Block ParseBlock(std::initializer_list<std::string_view> ends) {
    const Level level(this);
    Block block;
    while (status_.ok()) {
      const Token token = Next();
      auto statement = std::make_unique<Statement>();
      statement->line = token.line;
      if (token.type == TokenType::kEnd) {
        if (ends.size() > 0) Fail(absl::StrCat("missing ", std::string(*ends.begin())), token.line);
        break;
      }
      if (token.type == TokenType::kText) {
        statement->text = token.text;
      } else if (token.type == TokenType::kVariableBegin) {
        statement->kind = Statement::Kind::kPrint;
        statement->expr = ParseTuple();
        ExpectEnd(TokenType::kVariableEnd);
      } else {
        if (std::any_of(ends.begin(), ends.end(), [&](auto end) { return AtName(end); })) break;
        ParseTag(statement.get());
      }
      block.push_back(std::move(statement));
    }
    return block;
  }

  // A block with a scope of its own, from which no `break` leads out unless it is a loop's.
  Block ParseScope(std::initializer_list<std::string_view> ends, bool loop = false) {
    const size_t unknown = unknown_.size();
    const int loops = std::exchange(loops_, loop ? loops_ + 1 : 0);
    Block body = ParseBlock(ends);
    loops_ = loops;
    KeepUnknown(unknown);
    return body;
  }

  void EndBlock(std::string_view name) {
    if (!TakeName(name)) {
      Fail(absl::StrCat("expected ", std::string(name), ", got ", Describe(Peek())));
    }
    ExpectEnd(TokenType::kBlockEnd);
  }

  void ParseTag(Statement* statement) {
    static constexpr std::pair<const char*, void (Parser::*)(Statement*)> kTags[] = {
        {"if", &Parser::ParseIf},         {"for", &Parser::ParseFor},
        {"set", &Parser::ParseSet},       {"macro", &Parser::ParseMacro},
        {"filter", &Parser::ParseFilter}, {"generation", &Parser::ParseGeneration}};
    const Token tag = Next();
    for (const auto& [name, parse] : kTags) {
      if (tag.text == name) return (this->*parse)(statement);
    }
    if (tag.text != "break" && tag.text != "continue") {
      Fail(absl::StrCat("tag ", Describe(tag), " is not supported"), tag.line);
    }
    if (loops_ == 0) Fail(absl::StrCat(tag.text, " outside a loop"), tag.line);
    statement->kind = tag.text == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
    ExpectEnd(TokenType::kBlockEnd);
  }

  void ParseIf(Statement* statement) {
    statement->kind = Statement::Kind::kIf;
    const size_t unknown = unknown_.size();
    ExprPtr condition = ParseExpression();
    for (bool otherwise = false; status_.ok();) {
      ExpectEnd(TokenType::kBlockEnd);
      Block body = otherwise ? ParseBlock({"endif"}) : ParseBlock({"endif", "elif", "else"});
      statement->branches.emplace_back(std::move(condition), std::move(body));
      condition = nullptr;
      if (AtName("endif")) break;
      otherwise = Next().text == "else";
      if (!otherwise) condition = ParseExpression();
    }
    EndBlock("endif");
    ForgetUnknown(unknown);
  }

  std::vector<std::string> ParseTargets() {
    std::vector<std::string> names;
    const bool parentheses = TakeOperator("(");
    do {
      names.push_back(ExpectName());
    } while (TakeOperator(","));
    if (parentheses) Expect(")");
    return names;
  }

  void ParseFor(Statement* statement) {
    statement->kind = Statement::Kind::kFor;
    statement->names = ParseTargets();
    if (!TakeName("in")) Fail(absl::StrCat("expected 'in', got ", Describe(Peek())));
    statement->expr = ParseOr();  // not a conditional: an `if` here filters
    if (TakeName("if")) statement->condition = ParseExpression();
    ExpectEnd(TokenType::kBlockEnd);
    statement->body = ParseScope({"endfor", "else"}, /*loop=*/true);
    if (TakeName("else")) {
      ExpectEnd(TokenType::kBlockEnd);
      statement->otherwise = ParseBlock({"endfor"});
    }
    EndBlock("endfor");
  }

  void ParseSet(Statement* statement) {
    statement->kind = Statement::Kind::kSet;
    statement->names = ParseTargets();
    if (statement->names.size() == 1 && TakeOperator(".")) statement->text = ExpectName();
    if (TakeOperator("=")) {
      statement->expr = ParseTuple();
      return ExpectEnd(TokenType::kBlockEnd);
    }
    statement->kind = Statement::Kind::kSetBlock;
    if (statement->names.size() > 1 || !statement->text.empty()) return Expect("=");
    if (AtOperator("|")) statement->expr = ParseFilters(Name(kBlockOutput));
    ExpectEnd(TokenType::kBlockEnd);
    statement->body = ParseScope({"endset"});
    EndBlock("endset");
  }

  void ParseFilter(Statement* statement) {
    statement->kind = Statement::Kind::kFilter;
    statement->expr = ParseFilters(Name(kBlockOutput), /*inside=*/true);
    ExpectEnd(TokenType::kBlockEnd);
    statement->body = ParseScope({"endfilter"});
    EndBlock("endfilter");
  }

  // Marks training targets; its content is rendered as it is.
  void ParseGeneration(Statement* statement) {
    statement->kind = Statement::Kind::kScope;
    ExpectEnd(TokenType::kBlockEnd);
    statement->body = ParseScope({"endgeneration"});
    EndBlock("endgeneration");
  }

  void ParseMacro(Statement* statement) {
    statement->kind = Statement::Kind::kMacro;
    auto macro = std::make_unique<Macro>();
    macro->name = ExpectName();
    Expect("(");
    while (status_.ok() && !AtOperator(")")) {
      std::string name = ExpectName();
      ExprPtr value = TakeOperator("=") ? ParseExpression() : nullptr;
      if (value == nullptr && !macro->parameters.empty() && macro->parameters.back().second) {
        Fail("parameter without a default after one with a default");
      }
      macro->parameters.emplace_back(std::move(name), std::move(value));
      if (!TakeOperator(",")) break;
    }
    Expect(")");
    ExpectEnd(TokenType::kBlockEnd);
    ++macros_;
    macro->body = ParseScope({"endmacro"});
    --macros_;
    EndBlock("endmacro");
    statement->macro = std::move(macro);
  }

  int loops_ = 0;  // around the current statement
};

}  // namespace

absl::StatusOr<Block> Parse(std::string_view source) {
  absl::StatusOr<std::vector<Token>> tokens = Lex(source);
  if (!tokens.ok()) return tokens.status();
  return Parser(*std::move(tokens)).Run();
}

}  // namespace acuity::engine::jinja
