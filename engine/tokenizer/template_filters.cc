// The filters. `value | f(x)`: args[0] is the value.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/tokenizer/template_functions.h"
#include "engine/tokenizer/template_json.h"
#include "engine/tokenizer/template_operators.h"
#include "engine/tokenizer/template_text.h"

namespace acuity::engine::jinja {
namespace {

constexpr auto kIterator = List::Kind::kIterator;

// The subject as text: printed unless it is a string.
Text Subject(Args args, Context* context) {
  if (args[0].text() == nullptr) return context->Print(args[0]);
  const Text* text = TextArg(args, 0, context);
  return text != nullptr ? *text : Text();
}

template <Case to>
Value ChangedCase(Args args, Context* context) {
  return ChangeCase(Subject(args, context), to);
}

Value Trim(Args args, Context* context) {
  return Strip(Subject(args, context), args[1], true, true, context);
}

Value Replace(Args args, Context* context) {
  const Text text = context->Print(args[0]), from = context->Print(args[1]),
             to = context->Print(args[2]);
  const int64_t count = IntegerArg(args, 3, -1, context);
  return context->failed() ? Value() : ReplaceAll(text, from, to, count, context);
}

Value ToString(Args args, Context* context) { return Subject(args, context); }

Value Safe(Args args, Context* context) {
  Text text = context->Print(args[0]);
  text.set_safe(true);
  return text;
}

Value Length(Args args, Context* context) { return context->Length(args[0]); }

Value Default(Args args, Context*) {
  const bool replace = args[0].undefined() != nullptr || (args[2].Truthy() && !args[0].Truthy());
  if (!replace) return args[0];
  return args[1].missing() ? Value::Trusted("") : args[1];
}

Value First(Args args, Context* context) {
  if (const Text* text = args[0].text()) {
    if (text->size() == 0 || !context->Charge(1)) return Undefined{"item of nothing"};
    return text->Part(0, CharacterOffsets(text->bytes().substr(0, 4))[1]);
  }
  const std::vector<Value> items = context->Iterate(args[0]);
  return items.empty() ? Value(Undefined{"item of nothing"}) : items.front();
}

Value Last(Args args, Context* context) {
  if (args[0].list() != nullptr && args[0].list()->kind == kIterator) {
    return context->Fail("last of an iterator");
  }
  if (args[0].text() != nullptr) return Item(args[0], int64_t{-1}, context);
  const std::vector<Value> items = context->Iterate(args[0]);
  return items.empty() ? Value(Undefined{"item of nothing"}) : items.back();
}

Value ToList(Args args, Context* context) { return context->MakeList(context->Iterate(args[0])); }

Value Reverse(Args args, Context* context) {
  std::vector<Value> items = context->Iterate(args[0]);
  std::reverse(items.begin(), items.end());
  if (args[0].text() == nullptr) return context->MakeList(std::move(items), kIterator);
  Text text;
  for (const Value& item : items) text.Append(*item.text());
  return text;
}

// --- by attribute ---

// item.a.0.b, the argument of `attribute=`; `otherwise` where a part is not there.
Value ByPath(const Value& item, const Value& path, const Value& otherwise, Context* context) {
  if (path.missing() || path.none()) return item;
  if (path.text() == nullptr) return Item(item, path, context);
  const std::string_view names = path.text()->bytes();
  Value value = item;
  for (size_t begin = 0; begin <= names.size();) {
    const size_t end = std::min(names.find('.', begin), names.size());
    const std::string_view name = names.substr(begin, end - begin);
    int64_t index = 0;
    const auto number = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool digits = !name.empty() && name[0] != '-' && number.ec == std::errc() &&
                        number.ptr == name.data() + name.size();
    value = Item(value, digits ? Value(index) : Value::Trusted(name), context);
    if (value.undefined() != nullptr && !otherwise.missing()) value = otherwise;
    if (context->failed()) return {};
    begin = end + 1;
  }
  return value;
}

Value Join(Args args, Context* context) {
  const Text separator = context->Print(args[1]);
  Text result;
  bool first = true;
  for (const Value& item : context->Iterate(args[0])) {
    if (!first && context->Charge(separator.size())) result.Append(separator);
    first = false;
    result.Append(context->Print(ByPath(item, args[2], {}, context)));
    if (context->failed() || !context->CheckSize(result.size())) return {};
  }
  return result;
}

const Function* FunctionArg(const Function* (*find)(std::string_view), const Value& name,
                            Context* context) {
  const Text* text = TextArg({&name, 1}, 0, context);
  const Function* function = text == nullptr ? nullptr : find(text->bytes());
  if (function == nullptr) {
    context->Fail(absl::StrCat("no filter or test of the name ",
                               text == nullptr ? "" : std::string(text->bytes())));
  }
  return function;
}

// args[1]: a list of the filter's name and arguments; args[2]: named ones, or attribute and
// default.
Value Map(Args args, Context* context) {
  if (!args[0].Truthy()) return context->MakeList({}, kIterator);  // none too, as in Jinja
  const std::vector<Value>& names = args[1].list()->items;
  const Dict& named = *args[2].dict();
  const Function* filter = names.empty() ? nullptr : FunctionArg(FindFilter, names[0], context);
  const Value *path = named.FindName("attribute"), *otherwise = named.FindName("default");
  if (names.empty() && path == nullptr) return context->Fail("map: needs a filter or an attribute");
  if (!names.empty() && !named.entries.empty()) return context->Fail("map: too many arguments");
  std::vector<Value> results;
  for (const Value& item : context->Iterate(args[0])) {
    if (context->failed() || !context->Charge(16)) return {};
    results.push_back(
        filter == nullptr
            ? ByPath(item, *path, otherwise == nullptr ? Value() : *otherwise, context)
            : Invoke(*filter, item, std::span(names).subspan(1), {}, context));
  }
  return context->MakeList(std::move(results), kIterator);
}

// select, reject, selectattr, rejectattr. args[1]: a list of the attribute, the test and its
// arguments.
template <bool wanted, bool by_attribute>
Value Select(Args args, Context* context) {
  if (!args[0].Truthy()) return context->MakeList({}, kIterator);  // none too, as in Jinja
  const std::span<const Value> rest(args[1].list()->items);
  if (by_attribute && rest.empty())
    return context->Fail("selectattr: needs the argument attribute");
  const size_t at = by_attribute ? 1 : 0;
  const Function* test = rest.size() <= at ? nullptr : FunctionArg(FindTest, rest[at], context);
  std::vector<Value> kept;
  for (const Value& item : context->Iterate(args[0])) {
    if (context->failed() || !context->Charge(16)) return {};
    const Value subject = by_attribute ? ByPath(item, rest[0], {}, context) : item;
    const Value result =
        test == nullptr ? subject : Invoke(*test, subject, rest.subspan(at + 1), {}, context);
    if (result.Truthy() == wanted) kept.push_back(item);
  }
  return context->MakeList(std::move(kept), kIterator);
}

// --- order ---

struct Keyed {
  Value key, value;
};

// Case does not count unless `case_sensitive`.
Value SortKey(const Value& value, bool case_sensitive) {
  return case_sensitive || value.text() == nullptr ? value
                                                   : Value(ChangeCase(*value.text(), Case::kLower));
}

std::vector<Keyed> KeyedItems(const Value& subject, const Value& path, bool case_sensitive,
                              Context* context) {
  std::vector<Keyed> items;
  for (const Value& item : context->Iterate(subject)) {
    if (context->failed() || !context->Charge(sizeof(Keyed))) return {};
    items.push_back({SortKey(ByPath(item, path, {}, context), case_sensitive), item});
  }
  return items;
}

// Stable, also in reverse. A merge sort of our own stops at the first error, as an order that is
// none would break std::sort.
Value Sorted(std::vector<Keyed> items, bool reverse, Context* context) {
  std::vector<Keyed> other(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size());
      const size_t end = std::min(middle + width, items.size());
      for (size_t i = begin, j = middle, k = begin; k < end; ++k) {
        if (!context->Charge(16)) return {};
        const int order = i < middle && j < end ? context->Order(items[i].key, items[j].key)
                                                : (i < middle ? 0 : 1);
        const bool left = j >= end || (i < middle && (reverse ? order >= 0 : order <= 0));
        if (context->failed()) return {};
        other[k] = std::move(left ? items[i++] : items[j++]);
      }
    }
    std::swap(items, other);
  }
  std::vector<Value> values;
  for (Keyed& item : items) values.push_back(std::move(item.value));
  return context->MakeList(std::move(values));
}

Value Sort(Args args, Context* context) {
  return Sorted(KeyedItems(args[0], args[3], args[2].Truthy(), context), args[1].Truthy(), context);
}

Value DictSort(Args args, Context* context) {
  if (args[0].dict() == nullptr) return context->FailType("dictsort of", args[0]);
  const bool by_value = args[2].text() != nullptr && args[2].text()->bytes() == "value";
  if (!by_value && !args[2].missing() &&
      (args[2].text() == nullptr || args[2].text()->bytes() != "key")) {
    return context->Fail("dictsort: by is neither 'key' nor 'value'");
  }
  const Value items = MapItems(*args[0].dict(), context, List::Kind::kList);
  if (context->failed()) return {};
  return Sorted(KeyedItems(items, int64_t{by_value}, args[1].Truthy(), context), args[3].Truthy(),
                context);
}

Value Unique(Args args, Context* context) {
  std::vector<Value> kept, seen;
  for (Keyed& item : KeyedItems(args[0], args[2], args[1].Truthy(), context)) {
    const bool known = std::any_of(seen.begin(), seen.end(),
                                   [&](const Value& key) { return context->Equal(key, item.key); });
    if (known) continue;
    seen.push_back(std::move(item.key));
    kept.push_back(std::move(item.value));
  }
  return context->MakeList(std::move(kept), kIterator);
}

template <int sign>
Value Extreme(Args args, Context* context) {
  std::vector<Keyed> items = KeyedItems(args[0], args[2], args[1].Truthy(), context);
  if (items.empty()) return Undefined{"item of nothing"};
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    if (sign * context->Order(items[i].key, items[best].key) > 0) best = i;
  }
  return items[best].value;
}

Value Sum(Args args, Context* context) {
  Value sum = args[2].missing() ? Value(int64_t{0}) : args[2];
  for (const Value& item : context->Iterate(args[0])) {
    sum = Binary(Operator::kAdd, sum, ByPath(item, args[1], {}, context), context);
    if (context->failed()) return {};
  }
  return sum;
}

// --- numbers ---

// Text as Python's int() and float() read it: spaces around, and _ between digits.
std::string NumberText(const Text& text) {
  const auto [begin, end] = StripBounds(text.bytes(), nullptr, true, true);
  std::string digits;
  for (size_t i = begin; i < end; ++i) {
    const bool between = i > begin && i + 1 < end && absl::ascii_isdigit(text.bytes()[i - 1]) &&
                         absl::ascii_isdigit(text.bytes()[i + 1]);
    if (text.bytes()[i] != '_' || !between) digits.push_back(text.bytes()[i]);
  }
  return digits;
}

std::optional<double> ReadFloat(const Value& value) {
  double number = 0;
  if (value.Number(&number)) return number;
  if (value.text() == nullptr || !absl::SimpleAtod(NumberText(*value.text()), &number)) {
    return std::nullopt;
  }
  return number;
}

Value ToInteger(Args args, Context* context) {
  if (args[0].undefined() != nullptr) return context->FailType("", args[0]);
  if (IntegerArg(args, 2, 10, context) != 10) return context->Fail("int: base other than 10");
  int64_t value = 0;
  if (args[0].Integer(&value)) return value;
  if (args[0].text() != nullptr && context->Charge(args[0].text()->size()) &&
      absl::SimpleAtoi(NumberText(*args[0].text()), &value)) {
    return value;
  }
  const std::optional<double> number = ReadFloat(args[0]);
  if (!number || std::isnan(*number)) return args[1].missing() ? Value(int64_t{0}) : args[1];
  if (std::abs(*number) >= 9.2e18) return context->Fail("int: beyond 64 bits");
  return static_cast<int64_t>(*number);
}

Value ToFloat(Args args, Context* context) {
  if (args[0].undefined() != nullptr) return context->FailType("", args[0]);
  const std::optional<double> number = ReadFloat(args[0]);
  if (number) return *number;
  return args[1].missing() ? Value(0.0) : args[1];
}

Value Abs(Args args, Context* context) {
  if (args[0].real() != nullptr) return std::abs(*args[0].real());
  int64_t value = 0;
  if (!args[0].Integer(&value)) return context->FailType("abs of", args[0]);
  return value < 0 ? Negate(value, context) : Value(value);
}

// Half to even, on the exact binary value, as Python does: which is what printf does.
Value Round(Args args, Context* context) {
  const int64_t precision = IntegerArg(args, 1, 0, context);
  const std::string_view method = args[2].text() == nullptr ? "common" : args[2].text()->bytes();
  double value = 0;
  if (!args[0].Number(&value)) return context->FailType("round of", args[0]);
  if (precision < 0 || precision > 300) {
    return context->Fail(absl::StrCat("round: precision ", precision, " is not within 0 to 300"));
  }
  if (method == "common") {
    if (args[0].real() == nullptr) return args[0];
    double rounded = 0;
    (void)absl::SimpleAtod(absl::StrFormat("%.*f", static_cast<int>(precision), value), &rounded);
    return rounded;
  }
  if (method != "ceil" && method != "floor") return context->Fail("round: unknown method");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return (method == "ceil" ? std::ceil(value * scale) : std::floor(value * scale)) / scale;
}

// --- text ---

Value Indent(Args args, Context* context) {
  const Text* subject = TextArg(args, 0, context);
  if (subject == nullptr) return {};
  const Text* given = args[1].text();
  const int64_t width = given != nullptr ? 0 : IntegerArg(args, 1, 4, context);
  if (!context->CheckSize(static_cast<size_t>(std::max<int64_t>(width, 0)))) return {};
  const Text indent =
      given != nullptr
          ? *given
          : Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '), kTrusted);
  Text result;
  Text closed = *subject;
  closed.Append("\n", kTrusted);
  const std::vector<Text> lines = SplitLines(closed);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!context->Charge(indent.size() + lines[i].size())) return {};
    if (!context->CheckSize(result.size() + indent.size())) return {};
    if (i > 0) result.Append("\n", kTrusted);
    const bool indented = i == 0 ? args[2].Truthy() : args[3].Truthy() || lines[i].size() > 0;
    if (indented) result.Append(indent);
    result.Append(lines[i]);
  }
  return result;
}

Value ToJsonFilter(Args args, Context* context) {
  JsonStyle style;
  style.ensure_ascii = args[1].Truthy();
  style.sort_keys = args[4].Truthy();
  style.pretty = !args[2].missing() && !args[2].none();
  if (style.pretty) {
    style.item_separator = Text(",", kTrusted);
    if (args[2].text() != nullptr) {
      style.indent = *args[2].text();
    } else {
      const int64_t width = std::clamp<int64_t>(IntegerArg(args, 2, 0, context), 0, 64);
      style.indent = Text(std::string(static_cast<size_t>(width), ' '), kTrusted);
    }
  }
  if (const List* separators = args[3].list()) {
    if (separators->items.size() != 2) return context->Fail("tojson: needs two separators");
    style.item_separator = context->Print(separators->items[0]);
    style.key_separator = context->Print(separators->items[1]);
  }
  return ToJson(args[0], style, context);
}

Value Items(Args args, Context* context) {
  if (args[0].undefined() != nullptr) return context->MakeList({}, kIterator);
  if (args[0].dict() == nullptr) return context->FailType("items of", args[0]);
  return MapItems(*args[0].dict(), context, kIterator);
}

constexpr Function kFilters[] = {
    {"abs", 0, {}, Abs},
    {"capitalize", 0, {}, ChangedCase<Case::kCapitalize>},
    {"count", 0, {}, Length},
    {"d", 0, {"default_value", "boolean"}, Default},
    {"default", 0, {"default_value", "boolean"}, Default},
    {"dictsort", 0, {"case_sensitive", "by", "reverse"}, DictSort},
    {"first", 0, {}, First},
    {"float", 0, {"default"}, ToFloat},
    {"indent", 0, {"width", "first", "blank"}, Indent},
    {"int", 0, {"default", "base"}, ToInteger},
    {"items", 0, {}, Items},
    {"join", 0, {"d", "attribute"}, Join},
    {"last", 0, {}, Last},
    {"length", 0, {}, Length},
    {"list", 0, {}, ToList},
    {"lower", 0, {}, ChangedCase<Case::kLower>},
    {"map", 0, {}, Map, Function::kAll},
    {"max", 0, {"case_sensitive", "attribute"}, Extreme<1>},
    {"min", 0, {"case_sensitive", "attribute"}, Extreme<-1>},
    {"reject", 0, {}, Select<false, false>, Function::kPositional},
    {"rejectattr", 0, {}, Select<false, true>, Function::kPositional},
    {"replace", 2, {"old", "new", "count"}, Replace},
    {"reverse", 0, {}, Reverse},
    {"round", 0, {"precision", "method"}, Round},
    {"safe", 0, {}, Safe},
    {"select", 0, {}, Select<true, false>, Function::kPositional},
    {"selectattr", 0, {}, Select<true, true>, Function::kPositional},
    {"sort", 0, {"reverse", "case_sensitive", "attribute"}, Sort},
    {"string", 0, {}, ToString},
    {"sum", 0, {"attribute", "start"}, Sum},
    {"title", 0, {}, ChangedCase<Case::kTitle>},
    {"tojson", 0, {"ensure_ascii", "indent", "separators", "sort_keys"}, ToJsonFilter},
    {"trim", 0, {"chars"}, Trim},
    {"unique", 0, {"case_sensitive", "attribute"}, Unique},
    {"upper", 0, {}, ChangedCase<Case::kUpper>},
};

}  // namespace

const Function* FindFilter(std::string_view name) {
  const auto* it = std::find_if(std::begin(kFilters), std::end(kFilters),
                                [&](const Function& f) { return name == f.name; });
  return it == std::end(kFilters) ? nullptr : it;
}

}  // namespace acuity::engine::jinja
