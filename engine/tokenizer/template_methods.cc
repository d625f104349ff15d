// The tests, the methods of strings, mappings and loops, and the global functions.
#include <stdlib.h>
#include <time.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_functions.h"
#include "engine/tokenizer/template_operators.h"
#include "engine/tokenizer/template_text.h"

namespace acuity::engine::jinja {
namespace {

// --- tests ---

bool IsInteger(const Value& v) {
  int64_t unused = 0;
  return v.Integer(&unused) && v.boolean() == nullptr;
}
bool IsNumber(const Value& v) {
  double unused = 0;
  return v.Number(&unused);
}
// Has a length and items: not what a filter gives.
bool IsSequence(const Value& v) {
  return v.text() != nullptr || v.dict() != nullptr || v.undefined() != nullptr ||
         (v.list() != nullptr && v.list()->kind <= List::Kind::kTuple);
}
Value Divides(const Value& value, int64_t by, int64_t remainder, Context* context) {
  const Value rest = Binary(Operator::kModulo, value, by, context);
  return context->Equal(rest, remainder);
}
template <Operator op>
Value Compares(Args a, Context* context) {
  return Compare(op, a[0], a[1], context);
}
template <Case to>
Value IsCase(Args a, Context* context) {
  const Text text = context->Print(a[0]);
  return ChangeCase(text, to).bytes() == text.bytes() &&
         ChangeCase(text, to == Case::kLower ? Case::kUpper : Case::kLower).bytes() != text.bytes();
}
bool Same(const Value& a, const Value& b, Context* context) {
  return std::string_view(a.TypeName()) == b.TypeName() && context->Equal(a, b);
}

constexpr Function kTests[] = {
    {"!=", 1, {"other"}, Compares<Operator::kNotEqual>},
    {"<", 1, {"other"}, Compares<Operator::kLess>},
    {"<=", 1, {"other"}, Compares<Operator::kLessEqual>},
    {"==", 1, {"other"}, Compares<Operator::kEqual>},
    {">", 1, {"other"}, Compares<Operator::kGreater>},
    {">=", 1, {"other"}, Compares<Operator::kGreaterEqual>},
    {"boolean", 0, {}, [](Args a, Context*) { return Value(a[0].boolean() != nullptr); }},
    {"callable", 0, {}, [](Args a, Context*) { return Value(a[0].callable() != nullptr); }},
    {"defined", 0, {}, [](Args a, Context*) { return Value(a[0].undefined() == nullptr); }},
    {"divisibleby",
     1,
     {"num"},
     [](Args a, Context* c) { return Divides(a[0], IntegerArg(a, 1, 0, c), 0, c); }},
    {"eq", 1, {"other"}, Compares<Operator::kEqual>},
    {"equalto", 1, {"other"}, Compares<Operator::kEqual>},
    {"even", 0, {}, [](Args a, Context* c) { return Divides(a[0], 2, 0, c); }},
    {"false", 0, {}, [](Args a, Context*) { return Value(a[0].boolean() && !*a[0].boolean()); }},
    {"float", 0, {}, [](Args a, Context*) { return Value(a[0].real() != nullptr); }},
    {"ge", 1, {"other"}, Compares<Operator::kGreaterEqual>},
    {"greaterthan", 1, {"other"}, Compares<Operator::kGreater>},
    {"gt", 1, {"other"}, Compares<Operator::kGreater>},
    {"in", 1, {"seq"}, Compares<Operator::kIn>},
    {"integer", 0, {}, [](Args a, Context*) { return Value(IsInteger(a[0])); }},
    {"iterable",
     0,
     {},
     [](Args a, Context*) {
       return Value(IsSequence(a[0]) || a[0].list() != nullptr || a[0].loop() != nullptr);
     }},
    {"le", 1, {"other"}, Compares<Operator::kLessEqual>},
    {"lessthan", 1, {"other"}, Compares<Operator::kLess>},
    {"lower", 0, {}, IsCase<Case::kLower>},
    {"lt", 1, {"other"}, Compares<Operator::kLess>},
    {"mapping", 0, {}, [](Args a, Context*) { return Value(a[0].dict() != nullptr); }},
    {"ne", 1, {"other"}, Compares<Operator::kNotEqual>},
    {"none", 0, {}, [](Args a, Context*) { return Value(a[0].none()); }},
    {"number", 0, {}, [](Args a, Context*) { return Value(IsNumber(a[0])); }},
    {"odd", 0, {}, [](Args a, Context* c) { return Divides(a[0], 2, 1, c); }},
    {"sameas", 1, {"other"}, [](Args a, Context* c) { return Value(Same(a[0], a[1], c)); }},
    {"sequence", 0, {}, [](Args a, Context*) { return Value(IsSequence(a[0])); }},
    {"string", 0, {}, [](Args a, Context*) { return Value(a[0].text() != nullptr); }},
    {"true", 0, {}, [](Args a, Context*) { return Value(a[0].boolean() && *a[0].boolean()); }},
    {"undefined", 0, {}, [](Args a, Context*) { return Value(a[0].undefined() != nullptr); }},
    {"upper", 0, {}, IsCase<Case::kUpper>},
};

// --- methods of strings: args[0] is the string ---

template <Case to>
Value ChangedCase(Args args, Context* context) {
  const Text* text = TextArg(args, 0, context);
  return text == nullptr ? Value() : Value(ChangeCase(*text, to));
}

template <bool left, bool right>
Value StripEnds(Args args, Context* context) {
  const Text* text = TextArg(args, 0, context);
  return text == nullptr ? Value() : Strip(*text, args[1], left, right, context);
}

Value Replace(Args args, Context* context) {
  const Text *text = TextArg(args, 0, context), *from = TextArg(args, 1, context),
             *to = TextArg(args, 2, context);
  const int64_t count = IntegerArg(args, 3, -1, context);
  return context->failed() ? Value() : ReplaceAll(*text, *from, *to, count, context);
}

// startswith and endswith: of a string, or any of a tuple of strings.
template <bool at_end>
Value HasAffix(Args args, Context* context) {
  const Text* text = TextArg(args, 0, context);
  const List* list = args[1].list();
  const bool tuple = list != nullptr && list->kind == List::Kind::kTuple;
  for (const Value& value : tuple ? std::span(list->items) : args.subspan(1, 1)) {
    const Text* affix = TextArg({&value, 1}, 0, context);
    if (context->failed()) return {};
    if (affix->size() > text->size()) continue;
    const size_t from = at_end ? text->size() - affix->size() : 0;
    if (text->bytes().substr(from, affix->size()) == affix->bytes()) return true;
  }
  return false;
}

Value SplitBySpace(const Text& text, int64_t limit, Context* context) {
  std::vector<Value> parts;
  const std::string_view bytes = text.bytes();
  for (size_t pos = 0;;) {
    pos += StripBounds(bytes.substr(pos), nullptr, true, false).first;
    if (pos == bytes.size()) break;
    size_t end = bytes.size();
    if (limit < 0 || parts.size() < static_cast<size_t>(limit)) {
      end = pos;
      while (end < bytes.size() &&
             StripBounds(bytes.substr(end, 4), nullptr, true, false).first == 0) {
        ++end;  // a continuation byte is no space either
      }
    }
    if (!context->Charge(sizeof(Text))) return {};
    parts.push_back(text.Part(pos, end));
    pos = end;
  }
  return context->MakeList(std::move(parts));
}

Value Split(Args args, Context* context) {
  const Text* text = TextArg(args, 0, context);
  const int64_t limit = IntegerArg(args, 2, -1, context);
  if (context->failed()) return {};
  if (args[1].missing() || args[1].none()) return SplitBySpace(*text, limit, context);
  const Text* separator = TextArg(args, 1, context);
  if (context->failed()) return {};
  if (separator->size() == 0) return context->Fail("split: empty separator");
  std::vector<Value> parts;
  size_t pos = 0;
  while (limit < 0 || parts.size() < static_cast<size_t>(limit)) {
    const size_t found = Find(text->bytes(), separator->bytes(), pos);
    if (found == std::string_view::npos) break;
    if (!context->Charge(sizeof(Text))) return {};
    parts.push_back(text->Part(pos, found));
    pos = found + separator->size();
  }
  parts.push_back(text->Part(pos, text->size()));
  return context->MakeList(std::move(parts));
}

Value Lines(Args args, Context* context) {
  const Text* text = TextArg(args, 0, context);
  if (text == nullptr || !context->Charge(text->size() * sizeof(Text) / 4)) return {};
  std::vector<Value> lines;
  for (Text& line : SplitLines(*text)) lines.emplace_back(std::move(line));
  return context->MakeList(std::move(lines));
}

// '{} {1} {name}'.format(...): no attributes, subscripts, conversions or formats.
Value Format(Args args, Context* context) {
  const Text* text = TextArg(args, 0, context);
  if (text == nullptr) return {};
  const std::vector<Value>& positional = args[1].list()->items;
  const std::string_view bytes = text->bytes();
  Text result;
  size_t next = 0;
  for (size_t i = 0; i < bytes.size();) {
    const char c = bytes[i];
    if (c != '{' && c != '}') {
      const size_t end = std::min(bytes.find_first_of("{}", i), bytes.size());
      result.AppendPart(*text, i, end);
      i = end;
      continue;
    }
    if (i + 1 < bytes.size() && bytes[i + 1] == c) {
      result.AppendPart(*text, i, i + 1);
      i += 2;
      continue;
    }
    const size_t close = bytes.find('}', i);
    if (c == '}' || close == std::string_view::npos) return context->Fail("format: lone brace");
    const std::string_view name = bytes.substr(i + 1, close - i - 1);
    size_t index = next;
    const bool number = name.empty() || absl::SimpleAtoi(std::string(name), &index);
    if (name.empty()) ++next;
    const Value* value = number ? (index < positional.size() ? &positional[index] : nullptr)
                                : args[2].dict()->FindName(name);
    if (value == nullptr) {
      return context->Fail(absl::StrCat("format: no argument for {", std::string(name), "}"));
    }
    result.Append(context->Print(*value));
    if (context->failed() || !context->CheckSize(result.size())) return {};
    i = close + 1;
  }
  return result;
}

// --- methods of mappings and loops ---

Value DictItems(Args args, Context* context) {
  return MapItems(*args[0].dict(), context, List::Kind::kView);
}
template <bool keys>
Value DictSide(Args args, Context* context) {
  std::vector<Value> items;
  for (const auto& [key, value] : args[0].dict()->entries) items.push_back(keys ? key : value);
  return context->MakeList(std::move(items), List::Kind::kView);
}
Value Get(Args args, Context* context) {
  const Dict& dict = *args[0].dict();
  if (args[1].Depth() != 0) return context->FailType("unhashable:", args[1]);
  if (!context->Charge(dict.entries.size())) return {};
  if (const Value* value = dict.Find(args[1])) return *value;
  return args[2].missing() ? Value(None{}) : args[2];
}
Value Cycle(Args args, Context* context) {
  const std::vector<Value>& items = args[1].list()->items;
  if (items.empty()) return context->Fail("loop.cycle: no items");
  return items[args[0].loop()->index % items.size()];
}

constexpr Function kTextMethods[] = {
    {"capitalize", 0, {}, ChangedCase<Case::kCapitalize>},
    {"endswith", 1, {"suffix"}, HasAffix<true>},
    {"format", 0, {}, Format, Function::kAll},
    {"lower", 0, {}, ChangedCase<Case::kLower>},
    {"lstrip", 0, {"chars"}, StripEnds<true, false>},
    {"replace", 2, {"old", "new", "count"}, Replace},
    {"rstrip", 0, {"chars"}, StripEnds<false, true>},
    {"split", 0, {"sep", "maxsplit"}, Split},
    {"splitlines", 0, {}, Lines},
    {"startswith", 1, {"prefix"}, HasAffix<false>},
    {"strip", 0, {"chars"}, StripEnds<true, true>},
    {"upper", 0, {}, ChangedCase<Case::kUpper>},
};
constexpr Function kDictMethods[] = {
    {"get", 1, {"key", "default"}, Get},
    {"items", 0, {}, DictItems},
    {"keys", 0, {}, DictSide<true>},
    {"values", 0, {}, DictSide<false>},
};
constexpr Function kLoopMethods[] = {{"cycle", 0, {}, Cycle, Function::kPositional}};

// --- global functions ---

Value RaiseException(Args args, Context* context) {
  return context->Fail(std::string(context->Print(args[1]).bytes()));
}

// Local time, as datetime.now().strftime().
Value StrftimeNow(Args args, Context* context) {
  const Text* format = TextArg(args, 1, context);
  if (format == nullptr) return {};
  char buffer[512];
  if (format->size() > sizeof buffer / 4) return context->Fail("strftime_now: format too long");
  const time_t now = absl::ToTimeT(context->now());
  tm local{};
  localtime_r(&now, &local);
  const std::string copy(format->bytes());
  const size_t size = strftime(buffer, sizeof buffer, copy.c_str(), &local);
  return Value::Trusted(std::string_view(buffer, size));
}

Dict MakeEntries(Args args, Context* context) {
  const std::vector<Value>& positional = args[1].list()->items;
  Dict dict;
  if (positional.size() > 1 || (positional.size() == 1 && positional[0].dict() == nullptr)) {
    context->Fail("dict and namespace take one mapping and named arguments");
  } else if (positional.size() == 1) {
    dict = *positional[0].dict();
  }
  for (const auto& [key, value] : args[2].dict()->entries) dict.Set(key, value);
  return dict;
}
Value MakeNamespace(Args args, Context* context) {
  return Value::Namespace(MakeEntries(args, context));
}
Value MakeDict(Args args, Context* context) {
  return context->MakeDict(MakeEntries(args, context));
}

constexpr int64_t kMaxRange = 100'000;  // as in Jinja's sandbox

Value MakeRange(Args args, Context* context) {
  const bool one = args[2].missing();
  const int64_t begin = one ? 0 : IntegerArg(args, 1, 0, context);
  const int64_t end = IntegerArg(args, one ? 1 : 2, 0, context);
  const int64_t step = IntegerArg(args, 3, 1, context);
  if (context->failed()) return {};
  if (step == 0) return context->Fail("range: step 0");
  std::vector<Value> items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (items.size() >= kMaxRange) {
      return context->Fail(absl::StrCat("range: more than ", kMaxRange, " items"),
                           absl::StatusCode::kResourceExhausted);
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return context->MakeList(std::move(items), List::Kind::kView);
}

constexpr Function kGlobals[] = {
    {"dict", 0, {}, MakeDict, Function::kAll},
    {"namespace", 0, {}, MakeNamespace, Function::kAll},
    {"raise_exception", 1, {"message"}, RaiseException},
    {"range", 1, {"start", "stop", "step"}, MakeRange},
    {"strftime_now", 1, {"format"}, StrftimeNow},
};

const Function* FindIn(std::span<const Function> table, std::string_view name) {
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const Function& f) { return name == f.name; });
  return it == table.end() ? nullptr : &*it;
}

}  // namespace

const Function* FindTest(std::string_view name) { return FindIn(kTests, name); }

const Function* FindMethod(const Value& object, std::string_view name) {
  if (object.text() != nullptr) return FindIn(kTextMethods, name);
  if (object.dict() != nullptr) return FindIn(kDictMethods, name);
  if (object.loop() != nullptr) return FindIn(kLoopMethods, name);
  return nullptr;
}

std::span<const Function> GlobalFunctions() { return kGlobals; }

}  // namespace acuity::engine::jinja
