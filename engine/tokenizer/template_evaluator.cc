#include "engine/tokenizer/template_evaluator.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_functions.h"
#include "engine/tokenizer/template_operators.h"

namespace acuity::engine::jinja {

// The variables of a block; names belong to the parsed template or the globals.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> variables;

  void Set(std::string_view name, Value value) {
    for (auto& [key, old] : variables) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }
};

namespace {

// Fuel of one expression or statement: about 16 bytes' worth of copying.
constexpr size_t kStepCost = 16;
// Of one round of a loop.
constexpr size_t kRoundCost = 64;
// Macros in each other. Real ones follow the nesting of JSON schemas: below 20.
constexpr int kMaxMacroDepth = 64;
// Blocks and expressions in each other, macros included: each level takes below 2 KB of stack, and
// below 12 KB under AddressSanitizer. The real templates that the suite renders stay within it.
constexpr int kMaxDepth = 500;

enum class Flow { kNext, kBreak, kContinue };

class Evaluator {
 public:
  Evaluator(Bounds bounds, absl::Time now) : context_(bounds, now) {}

  absl::StatusOr<Text> Run(const Block& block, const Dict& globals) {
    Scope builtin, scope;
    for (const Function& function : GlobalFunctions()) {
      builtin.Set(function.name, Callable{&function, {}});
    }
    for (const auto& [name, value] : globals.entries) builtin.Set(name.text()->bytes(), value);
    scope.parent = &builtin;
    Text out;
    RunBlock(block, &scope, &out);
    if (context_.failed()) return context_.status();
    return out;
  }

 private:
  using Kind = Expr::Kind;

  struct Level {
    explicit Level(Evaluator* e) : evaluator(e) {
      if (++e->depth_ > kMaxDepth) {
        e->context_.Fail(absl::StrCat("nests deeper than ", kMaxDepth),
                         absl::StatusCode::kResourceExhausted);
      }
    }
    ~Level() { --evaluator->depth_; }
    Evaluator* evaluator;
  };

  // --- statements ---

  void Print(const Text& text, Text* out) {
    if (context_.CheckSize(out->size() + text.size()) && context_.Charge(text.size())) {
      out->Append(text);
    }
  }

  Flow RunBlock(const Block& block, Scope* scope, Text* out) {
    const Level level(this);
    for (const auto& statement : block) {
      if (context_.failed()) return Flow::kBreak;
      const Flow flow = RunStatement(*statement, scope, out);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  // The output of a block in a scope of its own.
  Text Capture(const Block& body, Scope* parent) {
    Scope inner{parent, {}};
    Text out;
    RunBlock(body, &inner, &out);
    return out;
  }

  Flow RunStatement(const Statement& statement, Scope* scope, Text* out) {
    context_.set_line(statement.line);
    if (!context_.Charge(kStepCost)) return Flow::kBreak;
    switch (statement.kind) {
      case Statement::Kind::kText:
        Print(Text(statement.text, kTrusted), out);
        break;
      case Statement::Kind::kPrint:
        Print(context_.Print(Eval(*statement.expr, scope)), out);
        break;
      case Statement::Kind::kIf:
        for (const auto& [condition, body] : statement.branches) {
          if (condition != nullptr && !Eval(*condition, scope).Truthy()) continue;
          return context_.failed() ? Flow::kBreak : RunBlock(body, scope, out);
        }
        break;
      case Statement::Kind::kFor:
        RunFor(statement, scope, out);
        break;
      case Statement::Kind::kSet:
        RunSet(statement, scope);
        break;
      case Statement::Kind::kSetBlock:
        scope->Set(statement.names[0], RunCaptured(statement, scope));
        break;
      case Statement::Kind::kFilter:
        Print(context_.Print(RunCaptured(statement, scope)), out);
        break;
      case Statement::Kind::kScope:
        Print(Capture(statement.body, scope), out);
        break;
      case Statement::Kind::kMacro:
        scope->Set(statement.macro->name, Callable{nullptr, {}, statement.macro.get(), scope});
        break;
      case Statement::Kind::kBreak:
        return Flow::kBreak;
      case Statement::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  Value RunCaptured(const Statement& statement, Scope* scope) {
    Value value = Capture(statement.body, scope);
    if (statement.expr == nullptr || context_.failed()) return value;
    Scope inner{scope, {{kBlockOutput, std::move(value)}}};
    return Eval(*statement.expr, &inner);
  }

  void RunSet(const Statement& statement, Scope* scope) {
    const Value value = Eval(*statement.expr, scope);
    if (context_.failed()) return;
    if (statement.text.empty()) return Bind(statement.names, value, scope);
    const Value object = Lookup(statement.names[0], scope);
    Dict* const space = object.name_space();
    if (space == nullptr) {
      context_.Fail(absl::StrCat("'", statement.names[0], "' is not a namespace"));
    } else if (value.Depth() < 0) {
      context_.Fail(absl::StrCat("a ", value.TypeName(), " in a namespace is not supported"));
    } else if (context_.Charge(space->entries.size())) {
      space->Set(Value::Trusted(statement.text), value);
    }
  }

  // Sets the variables of a loop or of {% set %}.
  void Bind(const std::vector<std::string>& names, const Value& value, Scope* scope) {
    if (names.size() == 1) return scope->Set(names[0], value);
    const std::vector<Value> items = context_.Iterate(value);
    if (items.size() != names.size()) {
      context_.Fail(
          absl::StrCat("cannot unpack ", items.size(), " items into ", names.size(), " variables"));
      return;
    }
    for (size_t i = 0; i < names.size(); ++i) scope->Set(names[i], items[i]);
  }

  std::vector<Value> Filtered(const Statement& statement, std::vector<Value> items, Scope* scope) {
    std::vector<Value> kept;
    for (Value& item : items) {
      if (!context_.Charge(kRoundCost)) break;
      Scope inner{scope, {}};
      Bind(statement.names, item, &inner);
      if (Eval(*statement.condition, &inner).Truthy()) kept.push_back(std::move(item));
    }
    return kept;
  }

  void RunFor(const Statement& statement, Scope* scope, Text* out) {
    const auto loop = std::make_shared<Loop>();
    loop->items = context_.Iterate(Eval(*statement.expr, scope));
    if (statement.condition != nullptr) {
      loop->items = Filtered(statement, std::move(loop->items), scope);
    }
    Scope inner{scope, {}};
    if (loop->items.empty() && !context_.failed()) RunBlock(statement.otherwise, &inner, out);
    for (; loop->index < loop->items.size(); ++loop->index) {
      if (!context_.Charge(kRoundCost)) return;
      inner.variables.clear();
      inner.Set("loop", std::shared_ptr<const Loop>(loop));
      Bind(statement.names, loop->items[loop->index], &inner);
      if (RunBlock(statement.body, &inner, out) == Flow::kBreak) return;
    }
  }

  // --- expressions ---

  Value Lookup(std::string_view name, const Scope* scope) {
    for (; scope != nullptr; scope = scope->parent) {
      if (!context_.Charge(1 + scope->variables.size() / 4)) return {};
      for (const auto& [key, value] : scope->variables) {
        if (key == name) return value;
      }
    }
    return Undefined{std::string(name)};
  }

  Value Eval(const Expr& expr, Scope* scope) {
    const Level level(this);
    if (!context_.Charge(kStepCost)) return {};
    context_.set_line(expr.line);
    switch (expr.kind) {
      case Kind::kLiteral:
        return expr.literal;
      case Kind::kName:
        return Lookup(expr.name, scope);
      case Kind::kNot:
        return !Eval(*expr.args[0], scope).Truthy();
      case Kind::kAnd: {
        Value left = Eval(*expr.args[0], scope);
        return left.Truthy() ? Eval(*expr.args[1], scope) : left;
      }
      case Kind::kOr: {
        Value left = Eval(*expr.args[0], scope);
        return left.Truthy() ? left : Eval(*expr.args[1], scope);
      }
      case Kind::kConditional:
        if (Eval(*expr.args[1], scope).Truthy()) return Eval(*expr.args[0], scope);
        if (expr.args[2] != nullptr) return Eval(*expr.args[2], scope);
        return Undefined{"the inline if without else"};
      case Kind::kCompare:
        return EvalCompare(expr, scope);
      default:
        return EvalStrict(expr, scope);
    }
  }

  Value EvalCompare(const Expr& expr, Scope* scope) {
    Value left = Eval(*expr.args[0], scope);
    for (size_t i = 0; i < expr.operators.size(); ++i) {
      Value right = Eval(*expr.args[i + 1], scope);
      if (context_.failed() || !Compare(expr.operators[i], left, right, &context_)) return false;
      left = std::move(right);
    }
    return true;
  }

  // The kinds that need the values of all their operands.
  Value EvalStrict(const Expr& expr, Scope* scope) {
    std::vector<Value> args;
    args.reserve(expr.args.size());
    for (const ExprPtr& arg : expr.args) {
      args.push_back(arg == nullptr ? Value() : Eval(*arg, scope));
    }
    if (context_.failed()) return {};
    context_.set_line(expr.line);
    switch (expr.kind) {
      case Kind::kList:
        return context_.MakeList(std::move(args));
      case Kind::kTuple:
        return context_.MakeList(std::move(args), List::Kind::kTuple);
      case Kind::kDict: {
        Dict dict;
        for (size_t i = 0; i < args.size(); i += 2) {
          if (!context_.Charge(1 + dict.entries.size())) return {};
          dict.Set(args[i], args[i + 1]);
        }
        return context_.MakeDict(std::move(dict));
      }
      case Kind::kNegate:
        return Negate(args[0], &context_);
      case Kind::kAttribute:
        return Attribute(args[0], expr.name, &context_);
      case Kind::kIndex:
        return Item(args[0], args[1], &context_);
      case Kind::kSlice:
        return Slice(args, &context_);
      case Kind::kBinary:
        return Binary(expr.operators[0], args[0], args[1], &context_);
      default:
        return Call(expr, args);
    }
  }

  // kApply and kCall: args[0] is the subject or what is called.
  Value Call(const Expr& expr, std::span<const Value> args) {
    const size_t end = args.size() - expr.names.size();
    NamedArgs named;
    for (size_t i = 0; i < expr.names.size(); ++i) {
      named.emplace_back(expr.names[i], args[end + i]);
    }
    const std::span<const Value> positional = args.subspan(1, end - 1);
    if (expr.kind == Kind::kApply) {
      if (expr.function == nullptr) {
        return context_.Fail(absl::StrCat(expr.name, " is not supported"));
      }
      return Invoke(*expr.function, args[0], positional, named, &context_);
    }
    const Callable* callable = args[0].callable();
    if (callable == nullptr) {
      return args[0].undefined() != nullptr && expr.args[0]->kind == Kind::kAttribute
                 ? context_.Fail(absl::StrCat("method ", args[0].undefined()->name,
                                              "() is not supported or not of this type"))
                 : context_.FailType("cannot call", args[0]);
    }
    if (callable->macro != nullptr) return CallMacro(*callable, positional, named);
    return Invoke(*callable->function, callable->self, positional, named, &context_);
  }

  Value CallMacro(const Callable& callable, std::span<const Value> positional,
                  const NamedArgs& named) {
    const Macro& macro = *callable.macro;
    const auto& parameters = macro.parameters;
    if (macro_depth_ >= kMaxMacroDepth) {
      return context_.Fail(
          absl::StrCat("macro ", macro.name, " calls deeper than ", kMaxMacroDepth),
          absl::StatusCode::kResourceExhausted);
    }
    if (positional.size() > parameters.size()) {
      return context_.Fail(absl::StrCat("macro ", macro.name, " takes at most ", parameters.size(),
                                        " arguments, got ", positional.size()));
    }
    Scope scope{callable.scope, {}};
    for (size_t i = 0; i < positional.size(); ++i) {
      scope.variables.emplace_back(parameters[i].first, positional[i]);
    }
    for (const auto& [name, value] : named) {
      const auto it = std::find_if(
          parameters.begin() + static_cast<ptrdiff_t>(positional.size()), parameters.end(),
          [&name = name](const auto& parameter) { return parameter.first == name; });
      if (it == parameters.end()) {
        return context_.Fail(absl::StrCat("macro ", macro.name, " takes no argument '", name, "'"));
      }
      scope.Set(it->first, value);
    }
    ++macro_depth_;
    for (size_t i = positional.size(); i < parameters.size(); ++i) {
      const auto& [name, otherwise] = parameters[i];
      const bool given = std::any_of(scope.variables.begin(), scope.variables.end(),
                                     [&name = name](const auto& v) { return v.first == name; });
      if (given) continue;
      scope.Set(name, otherwise == nullptr ? Undefined{name} : Eval(*otherwise, &scope));
    }
    Text out;
    RunBlock(macro.body, &scope, &out);
    --macro_depth_;
    return out;
  }

  Context context_;
  int depth_ = 0;
  int macro_depth_ = 0;
};

}  // namespace

absl::StatusOr<Text> Evaluate(const Block& block, const Dict& globals, Bounds bounds,
                              absl::Time now) {
  return Evaluator(bounds, now).Run(block, globals);
}

}  // namespace acuity::engine::jinja
