// The parsed form of a template. Immutable once parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/template_value.h"

namespace acuity::engine::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;
struct Function;

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
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
    kTuple,        // args: items
    kDict,         // args: key, value, key, value...
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
    kApply,  // args: subject, arguments; `function` is a filter or test, null if there is none
             // of that `name`, which is an error when it is reached
    kCall,   // args: what is called, arguments; `names` of the last arguments
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

struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with default (may be null)
  Block body;
};

struct Statement {
  enum class Kind : uint8_t {
    kText,      // `text`
    kPrint,     // `expr`
    kIf,        // branches in order; a null condition is `else`
    kFor,       // `names` in `expr` if `condition` (may be null); `body`, `otherwise`
    kSet,       // `names` = `expr`, or the attribute `text` of the namespace names[0] if not empty
    kSetBlock,  // names[0] = the output of `body`, or `expr` of it (as kBlockOutput) if not null
    kFilter,    // prints `expr` of the output of `body`
    kScope,     // `body` in a scope of its own
    kMacro,     // `macro`
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
  std::unique_ptr<const Macro> macro;
};

// The name under which `expr` of kSetBlock and kFilter finds the output: no template can write it.
inline constexpr const char kBlockOutput[] = " output";

}  // namespace acuity::engine::jinja
