#include "engine/tokenizer/template_evaluator.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace acuity::engine::jinja {
namespace {

// Fuel of one expression or statement: about 16 bytes' worth of copying.
constexpr size_t kStepCost = 16;
// Of one round of a loop, which makes a scope and the loop's nine variables.
constexpr size_t kRoundCost = 128;

enum class Flow { kNext, kBreak, kContinue };

// Python's // and %: rounded towards minus infinity. REQUIRES: b != 0, and not (min, -1).
int64_t FloorDivide(int64_t a, int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }

class Evaluator {
 public:
  Evaluator(const Map& globals, Bounds bounds) : bounds_(bounds), context_(bounds.fuel) {
    scopes_.push_back(globals);
  }

  absl::StatusOr<Text> Run(const Block& block) {
    Text out;
    RunBlock(block, &out);
    if (context_.failed()) return context_.status();
    return out;
  }

 private:
  using Kind = Expr::Kind;

  // --- statements ---

  void Print(const Text& text, Text* out) {
    if (CheckSize(out->size() + text.size()) && context_.Charge(text.size())) out->Append(text);
  }

  bool CheckSize(size_t bytes) {
    if (bytes > bounds_.output_bytes) {
      context_.Fail(absl::StrCat("makes more than ", bounds_.output_bytes, " bytes"),
                    absl::StatusCode::kResourceExhausted);
    }
    return !context_.failed();
  }

  Flow RunBlock(const Block& block, Text* out) {
    for (const auto& statement : block) {
      const Flow flow = RunStatement(*statement, out);
      if (context_.failed()) return Flow::kBreak;
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow RunStatement(const Statement& statement, Text* out) {
    context_.set_line(statement.line);
    if (!context_.Charge(kStepCost)) return Flow::kBreak;
    switch (statement.kind) {
      case Statement::Kind::kText:
        Print(Text(statement.text, true), out);
        return Flow::kNext;
      case Statement::Kind::kPrint:
        Print(context_.Print(Eval(*statement.expr)), out);
        return Flow::kNext;
      case Statement::Kind::kIf:
        for (const auto& [condition, body] : statement.branches) {
          if (condition == nullptr || Eval(*condition).Truthy()) return RunBlock(body, out);
        }
        return Flow::kNext;
      case Statement::Kind::kFor:
        RunFor(statement, out);
        return Flow::kNext;
      case Statement::Kind::kSet:
        RunSet(statement);
        return Flow::kNext;
      case Statement::Kind::kBreak:
        return Flow::kBreak;
      case Statement::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  void RunSet(const Statement& statement) {
    Value value;
    if (statement.expr != nullptr) {
      value = Eval(*statement.expr);
    } else {
      Text captured;
      scopes_.emplace_back();
      RunBlock(statement.body, &captured);
      scopes_.pop_back();
      value = std::move(captured);
    }
    if (context_.failed()) return;
    if (statement.names.size() == 1) return Assign(&scopes_.back(), statement.names[0], value);
    const Value object = Lookup(statement.names[0]);
    if (object.name_space() == nullptr) {
      context_.Fail(absl::StrCat("'", statement.names[0], "' is not a namespace"));
    } else if (value.name_space() != nullptr) {
      context_.Fail("a namespace in a namespace is not supported");
    } else {
      Assign(object.name_space(), statement.names[1], value);
    }
  }

  static void Assign(Map* map, const std::string& name, Value value) {
    for (auto& [key, old] : *map) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    map->emplace_back(name, std::move(value));
  }

  // Sets the variables of a loop in the innermost scope.
  void Bind(const std::vector<std::string>& names, const Value& item) {
    if (names.size() == 1) return Assign(&scopes_.back(), names[0], item);
    if (item.list() == nullptr || item.list()->items.size() != names.size()) {
      context_.Fail(absl::StrCat("cannot unpack an item into ", names.size(), " variables"));
      return;
    }
    for (size_t i = 0; i < names.size(); ++i) {
      Assign(&scopes_.back(), names[i], item.list()->items[i]);
    }
  }

  void RunFor(const Statement& statement, Text* out) {
    std::vector<Value> items = context_.Iterate(Eval(*statement.expr));
    if (statement.condition != nullptr) {
      std::vector<Value> kept;
      for (Value& item : items) {
        if (context_.failed()) return;
        scopes_.emplace_back();
        Bind(statement.names, item);
        if (Eval(*statement.condition).Truthy()) kept.push_back(std::move(item));
        scopes_.pop_back();
      }
      items = std::move(kept);
    }
    if (items.empty() && !context_.failed()) RunBlock(statement.otherwise, out);
    const int64_t n = static_cast<int64_t>(items.size());
    for (int64_t i = 0; i < n; ++i) {
      if (!context_.Charge(kRoundCost)) return;
      scopes_.emplace_back();
      scopes_.back().emplace_back(
          "loop", Map{{"index", i + 1},
                      {"index0", i},
                      {"first", i == 0},
                      {"last", i + 1 == n},
                      {"length", n},
                      {"revindex", n - i},
                      {"revindex0", n - i - 1},
                      {"previtem", i > 0 ? items[i - 1] : Value(Undefined{"loop.previtem"})},
                      {"nextitem", i + 1 < n ? items[i + 1] : Value(Undefined{"loop.nextitem"})}});
      Bind(statement.names, items[i]);
      const Flow flow = RunBlock(statement.body, out);
      scopes_.pop_back();
      if (flow == Flow::kBreak || context_.failed()) return;
    }
  }

  // --- expressions ---

  Value Lookup(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      for (const auto& [key, value] : *scope) {
        if (key == name) return value;
      }
    }
    return Undefined{name};
  }

  Value Eval(const Expr& expr) {
    if (!context_.Charge(kStepCost)) return {};
    context_.set_line(expr.line);
    switch (expr.kind) {
      case Kind::kLiteral:
        return expr.literal;
      case Kind::kName:
        return Lookup(expr.name);
      case Kind::kNot:
        return !Eval(*expr.args[0]).Truthy();
      case Kind::kNegate:
        return Arithmetic(Operator::kSubtract, int64_t{0}, Eval(*expr.args[0]));
      case Kind::kAnd: {
        Value left = Eval(*expr.args[0]);
        return left.Truthy() ? Eval(*expr.args[1]) : left;
      }
      case Kind::kOr: {
        Value left = Eval(*expr.args[0]);
        return left.Truthy() ? left : Eval(*expr.args[1]);
      }
      case Kind::kConditional:
        if (Eval(*expr.args[1]).Truthy()) return Eval(*expr.args[0]);
        return expr.args[2] == nullptr ? Value() : Eval(*expr.args[2]);
      case Kind::kCompare:
        return EvalCompare(expr);
      default:
        return EvalStrict(expr);
    }
  }

  // The kinds that need the values of all their operands.
  Value EvalStrict(const Expr& expr) {
    std::vector<Value> args;
    args.reserve(expr.args.size());
    for (const ExprPtr& arg : expr.args) args.push_back(arg == nullptr ? Value() : Eval(*arg));
    if (context_.failed()) return {};
    context_.set_line(expr.line);
    switch (expr.kind) {
      case Kind::kList:
        return context_.MakeList(std::move(args));
      case Kind::kAttribute:
        return Attribute(args[0], expr.name);
      case Kind::kIndex:
        return Index(args[0], args[1]);
      case Kind::kSlice:
        return Slice(args);
      case Kind::kBinary:
        return Binary(expr.operators[0], args[0], args[1]);
      case Kind::kApply: {
        Value result = expr.function->call(args, &context_);
        if (result.text() != nullptr && !CheckSize(result.text()->size())) return {};
        return result;
      }
      default:
        return Call(expr, std::move(args));
    }
  }

  Value EvalCompare(const Expr& expr) {
    Value left = Eval(*expr.args[0]);
    for (size_t i = 0; i < expr.operators.size(); ++i) {
      Value right = Eval(*expr.args[i + 1]);
      if (context_.failed() || !Compare(expr.operators[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  bool Compare(Operator op, const Value& a, const Value& b) {
    switch (op) {
      case Operator::kEqual:
        return context_.Equal(a, b);
      case Operator::kNotEqual:
        return !context_.Equal(a, b);
      case Operator::kIn:
        return Contains(b, a, &context_);
      case Operator::kNotIn:
        return !Contains(b, a, &context_);
      default:
        break;
    }
    int order = 0;
    int64_t x = 0, y = 0;
    if (a.Integer(&x) && b.Integer(&y)) {
      order = (x > y) - (x < y);
    } else if (a.text() != nullptr && b.text() != nullptr && context_.Charge(a.text()->size())) {
      order = a.text()->bytes().compare(b.text()->bytes());  // UTF-8 sorts as its characters do
    } else {
      context_.Fail(absl::StrCat("cannot order a ", a.TypeName(), " and a ", b.TypeName()));
      return false;
    }
    if (op == Operator::kLess) return order < 0;
    if (op == Operator::kLessEqual) return order <= 0;
    if (op == Operator::kGreater) return order > 0;
    return order >= 0;
  }

  Value Concat(const Text& a, const Text& b) {
    if (!CheckSize(a.size() + b.size()) || !context_.Charge(a.size() + b.size())) return {};
    Text result = a;
    result.Append(b);
    return result;
  }

  Value Binary(Operator op, const Value& a, const Value& b) {
    if (op == Operator::kConcat) return Concat(context_.Print(a), context_.Print(b));
    if (op == Operator::kAdd && a.text() != nullptr && b.text() != nullptr) {
      return Concat(*a.text(), *b.text());
    }
    if (op == Operator::kAdd && a.list() != nullptr && b.list() != nullptr) {
      std::vector<Value> items = a.list()->items;
      items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
      return context_.MakeList(std::move(items));
    }
    if (op == Operator::kMultiply && (a.text() != nullptr || b.text() != nullptr)) {
      return Repeat(a.text() != nullptr ? a : b, a.text() != nullptr ? b : a);
    }
    return Arithmetic(op, a, b);
  }

  Value Repeat(const Value& text, const Value& count) {
    int64_t n = 0;
    if (!count.Integer(&n)) return context_.Fail("a string can only be multiplied by an integer");
    Text result;
    for (int64_t i = 0; i < n && text.text()->size() > 0; ++i) {
      if (!CheckSize(result.size() + text.text()->size())) return {};
      if (!context_.Charge(text.text()->size())) return {};
      result.Append(*text.text());
    }
    return result;
  }

  Value Arithmetic(Operator op, const Value& a, const Value& b) {
    int64_t x = 0, y = 0, result = 0;
    if (!a.Integer(&x) || !b.Integer(&y)) {
      for (const Value* value : {&a, &b}) {
        if (value->undefined() != nullptr) return FailUndefined(*value);
      }
      return context_.Fail(
          absl::StrCat("wrong types for an operator: ", a.TypeName(), " and ", b.TypeName()));
    }
    bool overflow = false;
    if (op == Operator::kAdd) {
      overflow = __builtin_add_overflow(x, y, &result);
    } else if (op == Operator::kSubtract) {
      overflow = __builtin_sub_overflow(x, y, &result);
    } else if (op == Operator::kMultiply) {
      overflow = __builtin_mul_overflow(x, y, &result);
    } else {
      if (y == 0) return context_.Fail("division by zero");
      overflow = y == -1 && __builtin_sub_overflow(0, x, &result);
      if (!overflow) {
        const int64_t quotient = y == -1 ? result : FloorDivide(x, y);
        result = op == Operator::kFloorDivide ? quotient : x - quotient * y;
      }
    }
    return overflow ? context_.Fail("integer overflow") : Value(result);
  }

  Value FailUndefined(const Value& value) {
    return context_.Fail(absl::StrCat("'", value.undefined()->name, "' is undefined"));
  }

  Value Attribute(const Value& object, const std::string& name) {
    if (object.undefined() != nullptr) return FailUndefined(object);
    return object.Attribute(name);
  }

  Value Index(const Value& object, const Value& index) {
    if (object.undefined() != nullptr) return FailUndefined(object);
    if (index.text() != nullptr) return object.Attribute(index.text()->bytes());
    int64_t i = 0;
    if (!index.Integer(&i)) return Undefined{"item"};
    std::vector<size_t> offsets;
    if (object.text() != nullptr && context_.Charge(object.text()->size())) {
      offsets = CharacterOffsets(object.text()->bytes());
    }
    const int64_t n = object.list() != nullptr ? static_cast<int64_t>(object.list()->items.size())
                                               : static_cast<int64_t>(offsets.size()) - 1;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return Undefined{"item out of range"};
    if (object.list() != nullptr) return object.list()->items[i];
    return object.text()->Part(offsets[i], offsets[i + 1]);
  }

  // Python's a[start:stop:step] of lists and strings.
  Value Slice(const std::vector<Value>& args) {
    const Value& object = args[0];
    const bool is_text = object.text() != nullptr;
    if (!is_text && object.list() == nullptr) {
      return context_.Fail(absl::StrCat("cannot slice a ", object.TypeName()));
    }
    if (is_text && !context_.Charge(object.text()->size())) return {};
    const std::vector<size_t> offsets =
        is_text ? CharacterOffsets(object.text()->bytes()) : std::vector<size_t>();
    const int64_t n =
        static_cast<int64_t>(is_text ? offsets.size() - 1 : object.list()->items.size());
    int64_t bounds[3] = {0, 0, 1};  // start, stop, step
    bool given[3] = {};
    for (int k : {2, 0, 1}) {
      const Value& arg = args[k + 1];
      given[k] = arg.undefined() == nullptr && !arg.none();
      if (given[k] && !arg.Integer(&bounds[k])) return context_.Fail("slice: no integer");
    }
    const int64_t step = std::clamp<int64_t>(bounds[2], -n - 1, n + 1);  // beyond: one item at most
    if (step == 0) return context_.Fail("slice: step 0");
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    for (int k = 0; k < 2; ++k) {
      if (!given[k]) {
        bounds[k] = (k == 0) == (step > 0) ? low : high;
      } else {
        bounds[k] = std::clamp(bounds[k] < 0 ? bounds[k] + n : bounds[k], low, high);
      }
    }
    Text text;
    std::vector<Value> items;
    for (int64_t i = bounds[0]; step > 0 ? i < bounds[1] : i > bounds[1]; i += step) {
      if (!context_.Charge(1)) return {};
      if (is_text) {
        text.AppendPart(*object.text(), offsets[i], offsets[i + 1]);
      } else {
        items.push_back(object.list()->items[i]);
      }
    }
    return is_text ? Value(std::move(text)) : context_.MakeList(std::move(items));
  }

  Value Call(const Expr& expr, std::vector<Value> args) {
    const size_t positional = args.size() - expr.names.size();
    if (expr.name == "raise_exception" && args.size() == 1) {
      return context_.Fail(std::string(context_.Print(args[0]).bytes()));
    }
    if (expr.name == "namespace" && positional == 0) {
      Map map;
      for (size_t i = 0; i < args.size(); ++i) {
        if (args[i].name_space() != nullptr) {
          return context_.Fail("a namespace in a namespace is not supported");
        }
        Assign(&map, expr.names[i], std::move(args[i]));
      }
      return Value::Namespace(std::move(map));
    }
    if (expr.name == "range" && expr.names.empty() && !args.empty() && args.size() <= 2) {
      int64_t begin = 0, end = 0;
      if (!args.back().Integer(&end) || (args.size() == 2 && !args[0].Integer(&begin))) {
        return context_.Fail("range: no integer");
      }
      std::vector<Value> items;
      for (; begin < end && context_.Charge(sizeof(Value)); ++begin) items.push_back(begin);
      return context_.MakeList(std::move(items));
    }
    return context_.Fail(
        absl::StrCat("function ", expr.name, "() is not supported or got wrong arguments"));
  }

  const Bounds bounds_;
  Context context_;
  std::vector<Map> scopes_;  // innermost last
};

}  // namespace

absl::StatusOr<Text> Evaluate(const Block& block, const Map& globals, Bounds bounds) {
  return Evaluator(globals, bounds).Run(block);
}

}  // namespace acuity::engine::jinja
