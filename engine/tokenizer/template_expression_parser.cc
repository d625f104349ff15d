#include "engine/tokenizer/template_expression_parser.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_functions.h"

namespace acuity::engine::jinja {
namespace {

// Brackets in brackets and blocks in blocks. Real templates stay below 20; each level is a dozen
// stack frames.
constexpr int kMaxNesting = 64;
// Of an expression's tree, where a chain a + b + c ... is as deep as it is long. Real ones stay
// below 40.
constexpr int kMaxExprDepth = 200;

}  // namespace

// --- the stream ---

Token ExpressionParser::Next() {
  Token token = tokens_[pos_];
  if (pos_ + 1 < tokens_.size()) ++pos_;
  return token;
}

std::nullptr_t ExpressionParser::Fail(const std::string& message, int line) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("chat template, line ", line != 0 ? line : Peek().line, ": ", message));
  }
  pos_ = tokens_.size() - 1;
  return nullptr;
}

std::string ExpressionParser::Describe(const Token& token) const {
  switch (token.type) {
    case TokenType::kText:
      return "text";
    case TokenType::kBlockBegin:
      return "{%";
    case TokenType::kBlockEnd:
      return "%}";
    case TokenType::kVariableBegin:
      return "{{";
    case TokenType::kVariableEnd:
      return "}}";
    case TokenType::kString:
      return "a string";
    case TokenType::kEnd:
      return "the end";
    default:
      return absl::StrCat("'", token.text, "'");
  }
}

void ExpressionParser::Expect(std::string_view text) {
  if (!TakeOperator(text)) {
    Fail(absl::StrCat("expected '", std::string(text), "', got ", Describe(Peek())));
  }
}

void ExpressionParser::ExpectEnd(TokenType type) {
  if (Peek().type != type) {
    Fail(absl::StrCat("unexpected ", Describe(Peek())));
  } else {
    Next();
  }
}

std::string ExpressionParser::ExpectName() {
  if (Peek().type == TokenType::kName) return Next().text;
  Fail(absl::StrCat("expected a name, got ", Describe(Peek())));
  return "";
}

ExpressionParser::Level::Level(ExpressionParser* p) : parser(p) {
  if (++p->nesting_ > kMaxNesting) p->Fail(absl::StrCat("nested deeper than ", kMaxNesting));
}

void ExpressionParser::ForgetUnknown(size_t begin) {
  const auto from = unknown_.begin() + static_cast<ptrdiff_t>(std::min(begin, unknown_.size()));
  unknown_.erase(
      std::remove_if(from, unknown_.end(), [](const Unknown& u) { return u.conditional; }),
      unknown_.end());
}

void ExpressionParser::KeepUnknown(size_t begin) {
  for (size_t i = begin; i < unknown_.size(); ++i) unknown_[i].conditional = false;
}

// --- nodes ---

// Completes a node whose args are set; null after an error.
ExprPtr ExpressionParser::Finish(std::unique_ptr<Expr> expr) {
  for (const ExprPtr& arg : expr->args) {
    if (arg != nullptr) expr->depth = std::max(expr->depth, arg->depth + 1);
  }
  if (expr->depth > kMaxExprDepth) {
    return Fail(absl::StrCat("expression deeper than ", kMaxExprDepth), expr->line);
  }
  return status_.ok() ? std::move(expr) : nullptr;
}

template <typename... Args>
std::unique_ptr<Expr> ExpressionParser::Make(Kind kind, Args... args) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = Peek().line;
  (expr->args.push_back(std::move(args)), ...);
  return expr;
}

ExprPtr ExpressionParser::Literal(Value value) {
  auto expr = Make(Kind::kLiteral);
  expr->literal = std::move(value);
  return Finish(std::move(expr));
}

ExprPtr ExpressionParser::Name(const std::string& name) {
  auto expr = Make(Kind::kName);
  expr->name = name;
  return Finish(std::move(expr));
}

// --- expressions, loosest binding first ---

ExprPtr ExpressionParser::ParseTuple() {
  ExprPtr first = ParseExpression();
  if (!AtOperator(",")) return first;
  auto tuple = Make(Kind::kTuple, std::move(first));
  while (status_.ok() && TakeOperator(",")) {
    const TokenType type = Peek().type;
    if (type == TokenType::kBlockEnd || type == TokenType::kVariableEnd || AtOperator(")")) break;
    tuple->args.push_back(ParseExpression());
  }
  return Finish(std::move(tuple));
}

ExprPtr ExpressionParser::ParseExpression() {
  const Level level(this);
  const size_t unknown = unknown_.size();
  ExprPtr value = ParseOr();
  while (TakeName("if")) {
    ExprPtr condition = ParseOr();
    ExprPtr otherwise = TakeName("else") ? ParseExpression() : nullptr;
    value = Finish(
        Make(Kind::kConditional, std::move(value), std::move(condition), std::move(otherwise)));
    ForgetUnknown(unknown);
  }
  return value;
}

ExprPtr ExpressionParser::ParseOr() {
  ExprPtr left = ParseAnd();
  while (TakeName("or")) left = Finish(Make(Kind::kOr, std::move(left), ParseAnd()));
  return left;
}

ExprPtr ExpressionParser::ParseAnd() {
  ExprPtr left = ParseNot();
  while (TakeName("and")) left = Finish(Make(Kind::kAnd, std::move(left), ParseNot()));
  return left;
}

ExprPtr ExpressionParser::ParseNot() {
  const Level level(this);
  if (TakeName("not")) return Finish(Make(Kind::kNot, ParseNot()));
  return ParseCompare();
}

bool ExpressionParser::TakeCompare(Operator* op) {
  static constexpr std::pair<const char*, Operator> kTable[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  for (const auto& [text, candidate] : kTable) {
    *op = candidate;
    if (TakeOperator(text)) return true;
  }
  *op = Operator::kIn;
  if (TakeName("in")) return true;
  if (!AtName("not") || !AtName("in", 1)) return false;
  *op = Operator::kNotIn;
  Next();
  Next();
  return true;
}

ExprPtr ExpressionParser::ParseCompare() {
  ExprPtr first = ParseBinary(0);
  Operator op{};
  if (!TakeCompare(&op)) return first;
  auto expr = Make(Kind::kCompare, std::move(first));
  do {
    expr->operators.push_back(op);
    expr->args.push_back(ParseBinary(0));
  } while (TakeCompare(&op));
  return Finish(std::move(expr));
}

// Left-associative operators in three levels: + -, then ~, then * / // %.
ExprPtr ExpressionParser::ParseBinary(int level) {
  struct Entry {
    int level;
    const char* text;
    Operator op;
  };
  static constexpr Entry kTable[] = {
      {0, "+", Operator::kAdd},         {0, "-", Operator::kSubtract}, {1, "~", Operator::kConcat},
      {2, "*", Operator::kMultiply},    {2, "%", Operator::kModulo},   {2, "/", Operator::kDivide},
      {2, "//", Operator::kFloorDivide}};
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
  if (AtOperator("**")) return Fail("operator '**' is not supported");
  return left;
}

ExprPtr ExpressionParser::ParseUnary(bool with_filters) {
  const Level level(this);
  ExprPtr expr;
  if (TakeOperator("-")) {
    expr = Finish(Make(Kind::kNegate, ParseUnary(false)));
  } else if (TakeOperator("+")) {
    expr = ParseUnary(false);
  } else {
    expr = ParsePostfix(ParsePrimary());
  }
  return with_filters ? ParseFilters(std::move(expr)) : std::move(expr);
}

ExprPtr ExpressionParser::ParsePrimary() {
  const Token token = Next();
  switch (token.type) {
    case TokenType::kString: {
      std::string text = token.text;
      while (Peek().type == TokenType::kString) text += Next().text;
      return Literal(Value::Trusted(text));
    }
    case TokenType::kInteger:
    case TokenType::kFloat:
      return ParseNumber(token);
    case TokenType::kName:
      return ParseName(token);
    case TokenType::kOperator:
      if (token.text == "(") return ParseParentheses();
      if (token.text == "[") return ParseList();
      if (token.text == "{") return ParseDict();
      break;
    default:
      break;
  }
  return Fail(absl::StrCat("expected an expression, got ", Describe(token)), token.line);
}

ExprPtr ExpressionParser::ParseNumber(const Token& token) {
  if (token.type == TokenType::kFloat) {
    double value = 0;
    if (!absl::SimpleAtod(token.text, &value)) return Fail("damaged number", token.line);
    return Literal(value);
  }
  int64_t value = 0;
  const char* end = token.text.data() + token.text.size();
  if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
    return Fail("integer too large", token.line);
  }
  return Literal(value);
}

ExprPtr ExpressionParser::ParseName(const Token& token) {
  if (token.text == "true" || token.text == "True") return Literal(true);
  if (token.text == "false" || token.text == "False") return Literal(false);
  if (token.text == "none" || token.text == "None") return Literal(None{});
  if (macros_ > 0 &&
      (token.text == "varargs" || token.text == "kwargs" || token.text == "caller")) {
    return Fail(absl::StrCat(token.text, " of a macro is not supported"), token.line);
  }
  return Name(token.text);
}

ExprPtr ExpressionParser::ParseParentheses() {
  if (TakeOperator(")")) return Finish(Make(Kind::kTuple));
  ExprPtr inner = ParseTuple();
  Expect(")");
  return inner;
}

ExprPtr ExpressionParser::ParseList() {
  auto list = Make(Kind::kList);
  while (status_.ok() && !AtOperator("]")) {
    list->args.push_back(ParseExpression());
    if (!TakeOperator(",")) break;
  }
  Expect("]");
  return Finish(std::move(list));
}

ExprPtr ExpressionParser::ParseDict() {
  auto dict = Make(Kind::kDict);
  while (status_.ok() && !AtOperator("}")) {
    dict->args.push_back(ParseExpression());
    Expect(":");
    dict->args.push_back(ParseExpression());
    if (!TakeOperator(",")) break;
  }
  Expect("}");
  return Finish(std::move(dict));
}

// Up to ")". Keyword arguments come last; `names` are theirs.
void ExpressionParser::ParseArguments(Expr* call) {
  while (status_.ok() && !AtOperator(")")) {
    if (AtOperator("*") || AtOperator("**")) {
      Fail(absl::StrCat("argument ", Describe(Peek()), " is not supported"));
    } else if (Peek().type == TokenType::kName && AtOperator("=", 1)) {
      call->names.push_back(Next().text);
      Next();
    } else if (!call->names.empty()) {
      Fail("positional argument after a keyword argument");
    }
    call->args.push_back(ParseExpression());
    if (!TakeOperator(",")) break;
  }
  Expect(")");
}

ExprPtr ExpressionParser::ParsePostfix(ExprPtr expr) {
  while (status_.ok()) {
    if (TakeOperator(".")) {
      const Token name = Next();
      if (name.type == TokenType::kInteger) {
        expr = Finish(Make(Kind::kIndex, std::move(expr), ParseNumber(name)));
        continue;
      }
      if (name.type != TokenType::kName) return Fail("expected a name after '.'", name.line);
      auto attribute = Make(Kind::kAttribute, std::move(expr));
      attribute->name = name.text;
      expr = Finish(std::move(attribute));
    } else if (TakeOperator("[")) {
      expr = ParseSubscript(std::move(expr));
    } else if (TakeOperator("(")) {
      expr = ParseCall(std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr ExpressionParser::ParseCall(ExprPtr callee) {
  auto call = Make(Kind::kCall, std::move(callee));
  ParseArguments(call.get());
  return Finish(std::move(call));
}

ExprPtr ExpressionParser::ParseSubscript(ExprPtr object) {
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
  if (parts.size() == 1) return Finish(Make(Kind::kIndex, std::move(object), std::move(parts[0])));
  parts.resize(3);
  return Finish(Make(Kind::kSlice, std::move(object), std::move(parts[0]), std::move(parts[1]),
                     std::move(parts[2])));
}

ExprPtr ExpressionParser::ParseFilters(ExprPtr expr, bool inside) {
  while (status_.ok()) {
    if (inside || TakeOperator("|")) {
      inside = false;
      expr = ParseFilter(std::move(expr));
    } else if (TakeName("is")) {
      expr = ParseTest(std::move(expr));
    } else if (TakeOperator("(")) {  // of what a filter gave
      expr = ParseCall(std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr ExpressionParser::ParseFilter(ExprPtr subject) {
  auto apply = Make(Kind::kApply, std::move(subject));
  apply->name = absl::StrCat("filter '", ExpectName(), "'");
  apply->function = FindFilter(apply->name.substr(8, apply->name.size() - 9));
  if (apply->function == nullptr) unknown_.push_back({apply->name, apply->line});
  if (TakeOperator("(")) ParseArguments(apply.get());
  return Finish(std::move(apply));
}

ExprPtr ExpressionParser::ParseTest(ExprPtr subject) {
  auto apply = Make(Kind::kApply, std::move(subject));
  const bool negated = TakeName("not");
  const std::string name = ExpectName();
  apply->name = absl::StrCat("test '", name, "'");
  apply->function = FindTest(name);
  if (apply->function == nullptr) unknown_.push_back({apply->name, apply->line});
  const TokenType type = Peek().type;
  const bool operand = type == TokenType::kName || type == TokenType::kString ||
                       type == TokenType::kInteger || type == TokenType::kFloat ||
                       AtOperator("[") || AtOperator("{");
  if (TakeOperator("(")) {
    ParseArguments(apply.get());
  } else if (AtName("is")) {
    return Fail("a test after a test needs parentheses");
  } else if (operand && !AtName("else") && !AtName("or") && !AtName("and")) {
    apply->args.push_back(ParsePostfix(ParsePrimary()));  // `is equalto 1`
  }
  ExprPtr result = Finish(std::move(apply));
  return negated ? Finish(Make(Kind::kNot, std::move(result))) : std::move(result);
}

}  // namespace acuity::engine::jinja
