// The parsed form of a template. Immutable once parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/template_functions.h"
#include "engine/tokenizer/template_value.h"

namespace acuity::engine::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kFloorDivide,
  kModulo,
  kConcat,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr {
  enum class Kind : uint8_t {
    kLiteral,
    kName,         // `name`
    kList,         // args: items
    kAttribute,    // args: object; `name`
    kIndex,        // args: object, index
    kSlice,        // args: object, start, stop, step (each but the first may be null)
    kNot,          // args: operand
    kNegate,       // args: operand
    kBinary,       // args: left, right; operators[0]
    kCompare,      // args: operands; operators between them, as in a < b < c
    kAnd,          // args: left, right
    kOr,           // args: left, right
    kConditional,  // args: value, condition, alternative (may be null)
    kApply,        // args: subject, arguments; `function` is a filter, test or method
    kCall,         // args: arguments; `name` is a global function; `names` of the last arguments
  };
  Kind kind = Kind::kLiteral;
  int line = 1;
  int depth = 1;  // evaluation recurses this deep
  std::string name;
  Value literal;
  const Function* function = nullptr;
  std::vector<ExprPtr> args;
  std::vector<Operator> operators;
  std::vector<std::string> names;
};

struct Statement;
using Block = std::vector<std::unique_ptr<const Statement>>;

struct Statement {
  enum class Kind : uint8_t {
    kText,      // `text`
    kPrint,     // `expr`
    kIf,        // branches in order; a null condition is `else`
    kFor,       // `names` in `expr` if `condition` (may be null); `body`, `otherwise`
    kSet,       // names[0] or names[0].names[1] = `expr`, or the output of `body` if that is null
    kBreak,     // of the innermost kFor
    kContinue,  // of the innermost kFor
  };
  Kind kind = Kind::kText;
  int line = 1;
  std::string text;
  ExprPtr expr, condition;
  std::vector<std::pair<ExprPtr, Block>> branches;
  std::vector<std::string> names;
  Block body, otherwise;
};

}  // namespace acuity::engine::jinja
