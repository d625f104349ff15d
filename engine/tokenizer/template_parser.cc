#include "engine/tokenizer/template_parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_lexer.h"

namespace acuity::engine::jinja {
namespace {

// Brackets in brackets and blocks in blocks. Real templates stay below 12; each level is a dozen
// stack frames.
constexpr int kMaxNesting = 64;
// Of an expression's tree, where a chain a + b + c ... is as deep as it is long. Real ones stay
// below 40.
constexpr int kMaxExprDepth = 200;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<Block> Run() {
    Block block = ParseBlock({});
    if (!status_.ok()) return status_;
    return block;
  }

 private:
  using Kind = Expr::Kind;

  const Token& Peek() const { return tokens_[pos_]; }
  Token Next() {
    Token token = tokens_[pos_];
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }
  bool AtOperator(std::string_view text) const {
    return Peek().type == TokenType::kOperator && Peek().text == text;
  }
  bool AtName(std::string_view text) const {
    return Peek().type == TokenType::kName && Peek().text == text;
  }
  bool TakeOperator(std::string_view text) { return AtOperator(text) && (Next(), true); }
  bool TakeName(std::string_view text) { return AtName(text) && (Next(), true); }

  // Records the first error and moves to the end, where every loop stops.
  std::nullptr_t Fail(const std::string& message, int line = 0) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("chat template, line ", line != 0 ? line : Peek().line, ": ", message));
    }
    pos_ = tokens_.size() - 1;
    return nullptr;
  }
  std::string Describe(const Token& token) const {
    constexpr const char* kNames[] = {"text", "{%",       "%}", "{{", "}}",
                                      "",     "a string", "",   "",   "the end"};
    const char* name = kNames[static_cast<int>(token.type)];
    return *name != '\0' ? std::string(name) : absl::StrCat("'", token.text, "'");
  }
  void Expect(std::string_view text) {
    if (!TakeOperator(text)) {
      Fail(absl::StrCat("expected '", std::string(text), "', got ", Describe(Peek())));
    }
  }
  void ExpectEnd(TokenType type) {
    if (Peek().type != type) {
      Fail(absl::StrCat("unexpected ", Describe(Peek())));
    } else {
      Next();
    }
  }
  std::string ExpectName() {
    if (Peek().type == TokenType::kName) return Next().text;
    Fail(absl::StrCat("expected a name, got ", Describe(Peek())));
    return "";
  }
  // While alive, one more level of nesting is in use.
  struct Level {
    explicit Level(Parser* p) : parser(p) {
      if (++p->nesting_ > kMaxNesting) p->Fail(absl::StrCat("nested deeper than ", kMaxNesting));
    }
    ~Level() { --parser->nesting_; }
    Parser* parser;
  };

  // Completes a node whose args are set; null after an error.
  ExprPtr Finish(std::unique_ptr<Expr> expr) {
    for (const ExprPtr& arg : expr->args) {
      if (arg != nullptr) expr->depth = std::max(expr->depth, arg->depth + 1);
    }
    if (expr->depth > kMaxExprDepth) {
      return Fail(absl::StrCat("expression deeper than ", kMaxExprDepth), expr->line);
    }
    return status_.ok() ? std::move(expr) : nullptr;
  }
  template <typename... Args>
  std::unique_ptr<Expr> Make(Kind kind, Args... args) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = Peek().line;
    (expr->args.push_back(std::move(args)), ...);
    return expr;
  }

  // --- statements ---

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
        statement->expr = ParseExpression();
        ExpectEnd(TokenType::kVariableEnd);
      } else {
        if (std::any_of(ends.begin(), ends.end(), [&](auto end) { return AtName(end); })) break;
        ParseTag(statement.get(), &block);
      }
      if (statement != nullptr) block.push_back(std::move(statement));
    }
    return block;
  }

  void EndBlock(std::string_view name) {
    if (!TakeName(name))
      Fail(absl::StrCat("expected ", std::string(name), ", got ", Describe(Peek())));
    ExpectEnd(TokenType::kBlockEnd);
  }

  void ParseTag(Statement* statement, Block* block) {
    const Token tag = Next();
    if (tag.text == "if") {
      ParseIf(statement);
    } else if (tag.text == "for") {
      ParseFor(statement);
    } else if (tag.text == "set") {
      ParseSet(statement);
    } else if (tag.text ==
               "generation") {  // marks training targets; its content is rendered as it is
      ExpectEnd(TokenType::kBlockEnd);
      Block body = ParseBlock({"endgeneration"});
      EndBlock("endgeneration");
      for (auto& inner : body) block->push_back(std::move(inner));
    } else if (tag.text == "break" || tag.text == "continue") {
      if (loops_ == 0) Fail(absl::StrCat(tag.text, " outside a loop"), tag.line);
      statement->kind = tag.text == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
      ExpectEnd(TokenType::kBlockEnd);
    } else {
      Fail(absl::StrCat("tag ", Describe(tag), " is not supported"), tag.line);
    }
  }

  void ParseIf(Statement* statement) {
    statement->kind = Statement::Kind::kIf;
    ExprPtr condition = ParseExpression();
    for (bool otherwise = false; status_.ok();) {
      ExpectEnd(TokenType::kBlockEnd);
      Block body = otherwise ? ParseBlock({"endif"}) : ParseBlock({"endif", "elif", "else"});
      statement->branches.emplace_back(std::move(condition), std::move(body));
      condition = nullptr;
      if (AtName("endif")) return EndBlock("endif");
      otherwise = Next().text == "else";
      if (!otherwise) condition = ParseExpression();
    }
  }

  void ParseFor(Statement* statement) {
    statement->kind = Statement::Kind::kFor;
    do {
      statement->names.push_back(ExpectName());
    } while (TakeOperator(","));
    if (!TakeName("in")) Fail(absl::StrCat("expected 'in', got ", Describe(Peek())));
    statement->expr = ParseOr();  // not a conditional: an `if` here filters
    if (TakeName("if")) statement->condition = ParseExpression();
    ExpectEnd(TokenType::kBlockEnd);
    ++loops_;
    statement->body = ParseBlock({"endfor", "else"});
    --loops_;
    if (TakeName("else")) {
      ExpectEnd(TokenType::kBlockEnd);
      statement->otherwise = ParseBlock({"endfor"});
    }
    EndBlock("endfor");
  }

  void ParseSet(Statement* statement) {
    statement->kind = Statement::Kind::kSet;
    statement->names.push_back(ExpectName());
    if (TakeOperator(".")) statement->names.push_back(ExpectName());
    if (TakeOperator("=")) {
      statement->expr = ParseExpression();
      return ExpectEnd(TokenType::kBlockEnd);
    }
    ExpectEnd(TokenType::kBlockEnd);
    const int loops = std::exchange(loops_, 0);  // no break out of a captured block
    statement->body = ParseBlock({"endset"});
    loops_ = loops;
    EndBlock("endset");
  }

  // --- expressions, loosest binding first ---

  ExprPtr ParseExpression() {
    const Level level(this);
    ExprPtr value = ParseOr();
    while (TakeName("if")) {
      ExprPtr condition = ParseOr();
      ExprPtr otherwise = TakeName("else") ? ParseExpression() : nullptr;
      value = Finish(
          Make(Kind::kConditional, std::move(value), std::move(condition), std::move(otherwise)));
    }
    return value;
  }

  ExprPtr ParseOr() {
    ExprPtr left = ParseAnd();
    while (TakeName("or")) left = Finish(Make(Kind::kOr, std::move(left), ParseAnd()));
    return left;
  }

  ExprPtr ParseAnd() {
    ExprPtr left = ParseNot();
    while (TakeName("and")) left = Finish(Make(Kind::kAnd, std::move(left), ParseNot()));
    return left;
  }

  ExprPtr ParseNot() {
    const Level level(this);
    if (TakeName("not")) return Finish(Make(Kind::kNot, ParseNot()));
    return ParseCompare();
  }

  std::optional<Operator> TakeCompare() {
    static constexpr std::pair<const char*, Operator> kTable[] = {
        {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
        {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
    for (const auto& [text, op] : kTable) {
      if (TakeOperator(text)) return op;
    }
    if (TakeName("in")) return Operator::kIn;
    const bool not_in = AtName("not") && tokens_[pos_ + 1].type == TokenType::kName &&
                        tokens_[pos_ + 1].text == "in";
    if (!not_in) return std::nullopt;
    pos_ += 2;
    return Operator::kNotIn;
  }

  ExprPtr ParseCompare() {
    ExprPtr first = ParseBinary(0);
    std::optional<Operator> op = TakeCompare();
    if (!op) return first;
    auto expr = Make(Kind::kCompare, std::move(first));
    for (; op; op = TakeCompare()) {
      expr->operators.push_back(*op);
      expr->args.push_back(ParseBinary(0));
    }
    return Finish(std::move(expr));
  }

  // Left-associative operators in three levels: + -, then ~, then * // %.
  ExprPtr ParseBinary(int level) {
    struct Entry {
      int level;
      const char* text;
      Operator op;
    };
    static constexpr Entry kTable[] = {
        {0, "+", Operator::kAdd},    {0, "-", Operator::kSubtract},
        {1, "~", Operator::kConcat}, {2, "*", Operator::kMultiply},
        {2, "%", Operator::kModulo}, {2, "//", Operator::kFloorDivide}};
    if (level == 3) return ParseUnary(/*with_filters=*/true);
    ExprPtr left = ParseBinary(level + 1);
    while (true) {
      const auto* entry = std::find_if(std::begin(kTable), std::end(kTable), [&](const Entry& e) {
        return e.level == level && AtOperator(e.text);
      });
      if (entry == std::end(kTable)) break;
      Next();
      auto expr = Make(Kind::kBinary, std::move(left), ParseBinary(level + 1));
      expr->operators.push_back(entry->op);
      left = Finish(std::move(expr));
    }
    if (AtOperator("/") || AtOperator("**")) {
      return Fail(absl::StrCat("operator ", Describe(Peek()), " is not supported"));
    }
    return left;
  }

  ExprPtr ParseUnary(bool with_filters) {
    const Level level(this);
    ExprPtr expr;
    if (TakeOperator("-")) {
      expr = Finish(Make(Kind::kNegate, ParseUnary(false)));
    } else {
      expr = ParsePostfix(ParsePrimary());
    }
    return with_filters ? ParseFilters(std::move(expr)) : std::move(expr);
  }

  ExprPtr Literal(Value value) {
    auto expr = Make(Kind::kLiteral);
    expr->literal = std::move(value);
    return Finish(std::move(expr));
  }

  ExprPtr ParsePrimary() {
    const Token token = Next();
    switch (token.type) {
      case TokenType::kString:
        return Literal(Value::Trusted(token.text));
      case TokenType::kInteger: {
        int64_t value = 0;
        const char* end = token.text.data() + token.text.size();
        if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
          return Fail("integer too large", token.line);
        }
        return Literal(value);
      }
      case TokenType::kName:
        return ParseName(token);
      case TokenType::kOperator:
        break;
      default:
        return Fail(absl::StrCat("expected an expression, got ", Describe(token)), token.line);
    }
    if (token.text == "(") {
      ExprPtr inner = ParseExpression();
      if (AtOperator(",")) return Fail("tuples are not supported");
      Expect(")");
      return inner;
    }
    if (token.text == "[") {
      auto list = Make(Kind::kList);
      while (status_.ok() && !AtOperator("]")) {
        list->args.push_back(ParseExpression());
        if (!TakeOperator(",")) break;
      }
      Expect("]");
      return Finish(std::move(list));
    }
    if (token.text == "{") return Fail("mapping literals are not supported", token.line);
    return Fail(absl::StrCat("expected an expression, got ", Describe(token)), token.line);
  }

  ExprPtr ParseName(const Token& token) {
    if (token.text == "true" || token.text == "True") return Literal(true);
    if (token.text == "false" || token.text == "False") return Literal(false);
    if (token.text == "none" || token.text == "None") return Literal(None{});
    auto expr = Make(AtOperator("(") ? Kind::kCall : Kind::kName);
    expr->name = token.text;
    if (TakeOperator("(")) ParseArguments(&expr->args, &expr->names);
    return Finish(std::move(expr));
  }

  // Up to ")". Keyword arguments come last; `names` are theirs.
  void ParseArguments(std::vector<ExprPtr>* args, std::vector<std::string>* names) {
    while (status_.ok() && !AtOperator(")")) {
      const bool keyword = Peek().type == TokenType::kName &&
                           tokens_[pos_ + 1].type == TokenType::kOperator &&
                           tokens_[pos_ + 1].text == "=";
      if (keyword) {
        names->push_back(Next().text);
        Next();
      } else if (!names->empty()) {
        Fail("positional argument after a keyword argument");
      }
      args->push_back(ParseExpression());
      if (!TakeOperator(",")) break;
    }
    Expect(")");
  }

  // `function` applied to `subject` and the arguments in parentheses, if there are any.
  ExprPtr ParseApply(const Function& function, ExprPtr subject) {
    std::vector<ExprPtr> args;
    std::vector<std::string> names;
    if (TakeOperator("(")) ParseArguments(&args, &names);
    return Apply(function, std::move(subject), std::move(args), names);
  }

  ExprPtr Apply(const Function& function, ExprPtr subject, std::vector<ExprPtr> args,
                const std::vector<std::string>& names) {
    auto expr = Make(Kind::kApply, std::move(subject));
    expr->function = &function;
    const int parameters = function.num_parameters();
    expr->args.resize(1 + parameters);
    const int positional = static_cast<int>(args.size() - names.size());
    if (!status_.ok() || positional > parameters) {
      return Fail(absl::StrCat("too many arguments for ", function.name));
    }
    for (int i = 0; i < static_cast<int>(args.size()); ++i) {
      int slot = i;
      if (i >= positional) {
        const std::string& name = names[i - positional];
        slot = 0;
        while (slot < parameters && name != function.parameters[slot]) ++slot;
        if (slot == parameters || expr->args[1 + slot] != nullptr) {
          return Fail(
              absl::StrCat("argument '", name, "' of ", function.name, " is not supported"));
        }
      }
      expr->args[1 + slot] = std::move(args[i]);
    }
    for (int i = 0; i < function.required; ++i) {
      if (expr->args[1 + i] == nullptr) {
        return Fail(absl::StrCat(function.name, " needs the argument ", function.parameters[i]));
      }
    }
    return Finish(std::move(expr));
  }

  ExprPtr ParsePostfix(ExprPtr expr) {
    while (status_.ok()) {
      if (TakeOperator(".")) {
        const Token name = Next();
        if (name.type != TokenType::kName) return Fail("expected a name after '.'", name.line);
        if (AtOperator("(")) {
          const Function* method = FindMethod(name.text);
          if (method == nullptr) {
            return Fail(absl::StrCat("method ", name.text, "() is not supported"), name.line);
          }
          expr = ParseApply(*method, std::move(expr));
        } else {
          auto attribute = Make(Kind::kAttribute, std::move(expr));
          attribute->name = name.text;
          expr = Finish(std::move(attribute));
        }
      } else if (TakeOperator("[")) {
        expr = ParseSubscript(std::move(expr));
      } else if (AtOperator("(")) {
        return Fail("calling a value is not supported");
      } else {
        break;
      }
    }
    return expr;
  }

  ExprPtr ParseSubscript(ExprPtr object) {
    std::vector<ExprPtr> parts(1);
    while (status_.ok() && !AtOperator("]")) {
      if (TakeOperator(":")) {
        parts.emplace_back();
      } else {
        if (parts.back() != nullptr) return Fail(absl::StrCat("unexpected ", Describe(Peek())));
        parts.back() = ParseExpression();
      }
    }
    Expect("]");
    if (parts.size() > 3 || (parts.size() == 1 && parts[0] == nullptr)) {
      return Fail("damaged subscript");
    }
    if (parts.size() == 1)
      return Finish(Make(Kind::kIndex, std::move(object), std::move(parts[0])));
    parts.resize(3);
    return Finish(Make(Kind::kSlice, std::move(object), std::move(parts[0]), std::move(parts[1]),
                       std::move(parts[2])));
  }

  ExprPtr ParseFilters(ExprPtr expr) {
    while (status_.ok()) {
      if (TakeOperator("|")) {
        const std::string name = ExpectName();
        const Function* filter = FindFilter(name);
        if (filter == nullptr) return Fail(absl::StrCat("filter '", name, "' is not supported"));
        expr = ParseApply(*filter, std::move(expr));
      } else if (TakeName("is")) {
        expr = ParseTest(std::move(expr));
      } else {
        break;
      }
    }
    return expr;
  }

  ExprPtr ParseTest(ExprPtr subject) {
    const bool negated = TakeName("not");
    const std::string name = ExpectName();
    const Function* test = FindTest(name);
    if (test == nullptr) return Fail(absl::StrCat("test '", name, "' is not supported"));
    ExprPtr result;
    if (test->num_parameters() > 0 && !AtOperator("(")) {  // `is equalto 1`
      std::vector<ExprPtr> args;
      args.push_back(ParsePostfix(ParsePrimary()));
      result = Apply(*test, std::move(subject), std::move(args), {});
    } else {
      result = ParseApply(*test, std::move(subject));
    }
    return negated ? Finish(Make(Kind::kNot, std::move(result))) : std::move(result);
  }

  const std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  int loops_ = 0;  // around the current statement
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Block> Parse(std::string_view source) {
  absl::StatusOr<std::vector<Token>> tokens = Lex(source);
  if (!tokens.ok()) return tokens.status();
  return Parser(*std::move(tokens)).Run();
}

}  // namespace acuity::engine::jinja
