#include "engine/tokenizer/template_operators.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_functions.h"
#include "engine/tokenizer/template_text.h"

namespace acuity::engine::jinja {
namespace {

// Python's // and %: rounded towards minus infinity. REQUIRES: b != 0, and not (min, -1).
int64_t FloorDivide(int64_t a, int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }

Value Concat(const Text& a, const Text& b, Context* context) {
  if (!context->CheckSize(a.size() + b.size()) || !context->Charge(a.size() + b.size())) return {};
  Text result = a;
  result.Append(b);
  return result;
}

// `+` of strings: one that went through `safe` escapes the other.
Value AddTexts(const Text& a, const Text& b, Context* context) {
  if (!a.safe() && !b.safe()) return Concat(a, b, context);
  if (!context->Charge(5 * (a.size() + b.size()))) return {};
  Value sum = Concat(a.safe() ? a : EscapeHtml(a), b.safe() ? b : EscapeHtml(b), context);
  if (sum.text() == nullptr) return {};
  Text safe = *sum.text();
  safe.set_safe(true);
  return safe;
}

Value Repeat(const Value& value, int64_t count, Context* context) {
  Text text;
  std::vector<Value> items;
  for (int64_t i = 0; i < count && value.Truthy(); ++i) {
    if (value.text() != nullptr) {
      if (!context->CheckSize(text.size() + value.text()->size())) return {};
      if (!context->Charge(value.text()->size())) return {};
      text.Append(*value.text());
    } else {
      const std::vector<Value>& more = value.list()->items;
      if (!context->Charge(more.size() * sizeof(Value))) return {};
      items.insert(items.end(), more.begin(), more.end());
    }
  }
  if (value.text() != nullptr) return text;
  return context->MakeList(std::move(items), value.list()->kind);
}

Value FailOperands(const Value& a, const Value& b, Context* context) {
  for (const Value* value : {&a, &b}) {
    if (value->undefined() != nullptr) return context->FailType("", *value);
  }
  return context->Fail(
      absl::StrCat("wrong types for an operator: ", a.TypeName(), " and ", b.TypeName()));
}

Value FloatArithmetic(Operator op, double x, double y, Context* context) {
  switch (op) {
    case Operator::kAdd:
      return x + y;
    case Operator::kSubtract:
      return x - y;
    case Operator::kMultiply:
      return x * y;
    default:
      break;
  }
  if (y == 0) return context->Fail("division by zero");
  if (op == Operator::kDivide) return x / y;
  if (op == Operator::kFloorDivide) return std::floor(x / y);
  const double remainder = std::fmod(x, y);
  return remainder != 0 && (remainder < 0) != (y < 0) ? remainder + y : remainder;
}

Value Arithmetic(Operator op, const Value& a, const Value& b, Context* context) {
  int64_t x = 0, y = 0, result = 0;
  if (op == Operator::kDivide || !a.Integer(&x) || !b.Integer(&y)) {
    double p = 0, q = 0;
    if (!a.Number(&p) || !b.Number(&q)) return FailOperands(a, b, context);
    return FloatArithmetic(op, p, q, context);
  }
  bool overflow = false;
  if (op == Operator::kAdd) {
    overflow = __builtin_add_overflow(x, y, &result);
  } else if (op == Operator::kSubtract) {
    overflow = __builtin_sub_overflow(x, y, &result);
  } else if (op == Operator::kMultiply) {
    overflow = __builtin_mul_overflow(x, y, &result);
  } else {
    if (y == 0) return context->Fail("division by zero");
    overflow = y == -1 && __builtin_sub_overflow(0, x, &result);
    if (!overflow) {
      const int64_t quotient = y == -1 ? result : FloorDivide(x, y);
      result = op == Operator::kFloorDivide ? quotient : x - quotient * y;
    }
  }
  return overflow ? context->Fail("integer overflow") : Value(result);
}

// The bounds of a slice of n items, as Python computes them. False, and an error, if damaged.
struct Range {
  int64_t begin = 0, end = 0, step = 1;
};
bool SliceRange(std::span<const Value> args, int64_t n, Range* range, Context* context) {
  int64_t bounds[3] = {0, 0, 1};  // start, stop, step
  bool given[3] = {};
  for (int k = 0; k < 3; ++k) {
    const Value& arg = args[k];
    given[k] = !arg.missing() && !arg.none();
    if (given[k] && !arg.Integer(&bounds[k])) {
      context->FailType("slice: not an integer:", arg);
      return false;
    }
  }
  const int64_t step = std::clamp<int64_t>(bounds[2], -n - 1, n + 1);  // beyond: one item at most
  if (step == 0) {
    context->Fail("slice: step 0");
    return false;
  }
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
  for (int k = 0; k < 2; ++k) {
    if (!given[k]) {
      bounds[k] = (k == 0) == (step > 0) ? low : high;
    } else {
      bounds[k] = std::clamp(bounds[k] < 0 ? bounds[k] + n : bounds[k], low, high);
    }
  }
  *range = {bounds[0], bounds[1], step};
  return true;
}

Value LoopAttribute(const Loop& loop, std::string_view name) {
  const auto i = static_cast<int64_t>(loop.index), n = static_cast<int64_t>(loop.items.size());
  if (name == "index") return i + 1;
  if (name == "index0") return i;
  if (name == "first") return i == 0;
  if (name == "last") return i + 1 == n;
  if (name == "length") return n;
  if (name == "revindex") return n - i;
  if (name == "revindex0") return n - i - 1;
  if (name == "depth") return int64_t{1};
  if (name == "depth0") return int64_t{0};
  if (name == "previtem" && i > 0) return loop.items[i - 1];
  if (name == "nextitem" && i + 1 < n) return loop.items[i + 1];
  return Undefined{absl::StrCat("loop.", std::string(name))};
}

}  // namespace

Value Binary(Operator op, const Value& a, const Value& b, Context* context) {
  if (op == Operator::kConcat) return Concat(context->Print(a), context->Print(b), context);
  if (op == Operator::kAdd && a.text() != nullptr && b.text() != nullptr) {
    return AddTexts(*a.text(), *b.text(), context);
  }
  if (op == Operator::kAdd && a.list() != nullptr && b.list() != nullptr &&
      a.list()->kind == b.list()->kind && a.list()->kind <= List::Kind::kTuple) {
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return context->MakeList(std::move(items), a.list()->kind);
  }
  if (op == Operator::kMultiply) {
    const bool left = a.text() != nullptr || a.list() != nullptr;
    int64_t count = 0;
    if ((left || b.text() != nullptr || b.list() != nullptr) && (left ? b : a).Integer(&count)) {
      return Repeat(left ? a : b, count, context);
    }
  }
  return Arithmetic(op, a, b, context);
}

bool Compare(Operator op, const Value& a, const Value& b, Context* context) {
  switch (op) {
    case Operator::kEqual:
      return context->Equal(a, b);
    case Operator::kNotEqual:
      return !context->Equal(a, b);
    case Operator::kIn:
      return context->Contains(b, a);
    case Operator::kNotIn:
      return !context->Contains(b, a);
    default:
      break;
  }
  const int order = context->Order(a, b);
  if (op == Operator::kLess) return order < 0;
  if (op == Operator::kLessEqual) return order <= 0;
  if (op == Operator::kGreater) return order > 0;
  return order >= 0;
}

Value Negate(const Value& value, Context* context) {
  if (value.real() != nullptr) return -*value.real();
  return Arithmetic(Operator::kSubtract, int64_t{0}, value, context);
}

Value Attribute(const Value& object, std::string_view name, Context* context) {
  if (object.undefined() != nullptr) return context->FailType("", object);
  if (const Function* method = FindMethod(object, name)) return Callable{method, object};
  if (object.loop() != nullptr) return LoopAttribute(*object.loop(), name);
  const Dict* dict = object.name_space() != nullptr ? object.name_space() : object.dict();
  const Value* value = nullptr;
  if (dict != nullptr && context->Charge(dict->entries.size())) value = dict->FindName(name);
  return value != nullptr ? *value : Undefined{std::string(name)};
}

Value Item(const Value& object, const Value& index, Context* context) {
  if (object.undefined() != nullptr) return context->FailType("", object);
  if (const Dict* dict = object.dict()) {
    if (!context->Charge(dict->entries.size())) return {};
    if (const Value* value = dict->Find(index)) return *value;
  }
  if (index.text() != nullptr) return Attribute(object, index.text()->bytes(), context);
  int64_t i = 0;
  const bool indexable = object.text() != nullptr ||
                         (object.list() != nullptr && object.list()->kind <= List::Kind::kView);
  if (!indexable || !index.Integer(&i)) return Undefined{"item"};
  std::vector<size_t> offsets;
  if (object.text() != nullptr) {
    if (!context->Charge(object.text()->size())) return {};
    offsets = CharacterOffsets(object.text()->bytes());
  }
  const int64_t n = object.list() != nullptr ? static_cast<int64_t>(object.list()->items.size())
                                             : static_cast<int64_t>(offsets.size()) - 1;
  if (i < 0) i += n;
  if (i < 0 || i >= n) return Undefined{"item out of range"};
  if (object.list() != nullptr) return object.list()->items[i];
  return object.text()->Part(offsets[i], offsets[i + 1]);
}

Value Slice(std::span<const Value> args, Context* context) {
  const Value& object = args[0];
  const bool is_text = object.text() != nullptr;
  if (!is_text && (object.list() == nullptr || object.list()->kind > List::Kind::kView)) {
    return context->FailType("cannot slice", object);
  }
  if (is_text && !context->Charge(object.text()->size())) return {};
  const std::vector<size_t> offsets =
      is_text ? CharacterOffsets(object.text()->bytes()) : std::vector<size_t>();
  const auto n = static_cast<int64_t>(is_text ? offsets.size() - 1 : object.list()->items.size());
  Range range;
  if (!SliceRange(args.subspan(1), n, &range, context)) return {};
  Text text;
  text.set_safe(is_text && object.text()->safe());
  std::vector<Value> items;
  for (int64_t i = range.begin; range.step > 0 ? i < range.end : i > range.end; i += range.step) {
    if (!context->Charge(1)) return {};
    if (is_text) {
      text.AppendPart(*object.text(), offsets[i], offsets[i + 1]);
    } else {
      items.push_back(object.list()->items[i]);
    }
  }
  return is_text ? Value(std::move(text))
                 : context->MakeList(std::move(items), object.list()->kind);
}

}  // namespace acuity::engine::jinja
