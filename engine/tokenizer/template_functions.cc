#include "engine/tokenizer/template_functions.h"

#include <string.h>

#include <algorithm>
#include <array>
#include <string>

#include "absl/strings/str_cat.h"

namespace acuity::engine::jinja {
namespace {

using Args = std::span<const Value>;

// Linear in the text for every needle: std::string_view::find is so for short ones, memmem for all,
// but AddressSanitizer makes each call of memmem read the whole text.
size_t Find(std::string_view text, std::string_view needle, size_t from) {
  if (needle.size() > text.size() - from) return std::string_view::npos;
  if (needle.size() <= 16) return text.find(needle, from);
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found == nullptr ? std::string_view::npos : static_cast<const char*>(found) - text.data();
}

// The subject's text, charged for; null and an error if it is not a string.
const Text* TextArg(Args args, size_t i, Context* context) {
  const Text* text = args[i].text();
  if (text == nullptr) {
    context->Fail(absl::StrCat("expected a string, got a ", args[i].TypeName()));
  } else if (!context->Charge(text->size())) {
    return nullptr;
  }
  return text;
}

bool IsMissing(const Value& value) { return value.undefined() != nullptr || value.none(); }

Value Strip(Args args, bool left, bool right, Context* context) {
  const Text printed = args[0].text() == nullptr ? context->Print(args[0]) : Text();
  const Text* text = args[0].text() == nullptr ? &printed : TextArg(args, 0, context);
  if (text == nullptr) return {};
  std::string_view set;
  if (!IsMissing(args[1])) {
    const Text* characters = TextArg(args, 1, context);
    // Each character of the text is looked for among these.
    if (characters == nullptr || !context->Charge(text->size() * (characters->size() / 16)))
      return {};
    set = characters->bytes();
  }
  const auto [begin, end] =
      StripBounds(text->bytes(), IsMissing(args[1]) ? nullptr : &set, left, right);
  return text->Part(begin, end);
}
Value StripBoth(Args args, Context* context) { return Strip(args, true, true, context); }
Value StripLeft(Args args, Context* context) { return Strip(args, true, false, context); }
Value StripRight(Args args, Context* context) { return Strip(args, false, true, context); }

template <typename Change>
Value MapAscii(Args args, Context* context, Change change) {
  const Text* text = TextArg(args, 0, context);
  if (text == nullptr) return {};
  Text result;
  std::string bytes(text->bytes());
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = change(bytes[i], i);
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = text->RunEnd(begin);
    result.Append(std::string_view(bytes).substr(begin, end - begin), text->trusted(begin));
    begin = end;
  }
  return result;
}
char ToUpper(char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; }
char ToLower(char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }
Value Upper(Args args, Context* context) {
  return MapAscii(args, context, [](char c, size_t) { return ToUpper(c); });
}
Value Lower(Args args, Context* context) {
  return MapAscii(args, context, [](char c, size_t) { return ToLower(c); });
}
Value Capitalize(Args args, Context* context) {
  return MapAscii(args, context, [](char c, size_t i) { return i == 0 ? ToUpper(c) : ToLower(c); });
}

Value Length(Args args, Context* context) {
  if (args[0].undefined() != nullptr) return int64_t{0};
  if (args[0].list() != nullptr) return static_cast<int64_t>(args[0].list()->items.size());
  if (args[0].map() != nullptr) return static_cast<int64_t>(args[0].map()->size());
  if (args[0].text() == nullptr) {
    return context->Fail(absl::StrCat("a ", args[0].TypeName(), " has no length"));
  }
  const Text* text = TextArg(args, 0, context);
  if (text == nullptr) return {};
  return static_cast<int64_t>(CharacterOffsets(text->bytes()).size() - 1);
}

Value Default(Args args, Context*) {
  const bool replace = args[0].undefined() != nullptr || (args[2].Truthy() && !args[0].Truthy());
  if (!replace) return args[0];
  return args[1].undefined() != nullptr ? Value::Trusted("") : args[1];
}

Value End(Args args, bool last, Context* context) {
  if (args[0].text() != nullptr) {
    const Text* text = TextArg(args, 0, context);
    if (text == nullptr || text->size() == 0) return Undefined{"character of nothing"};
    const std::vector<size_t> offsets = CharacterOffsets(text->bytes());
    const size_t i = last ? offsets.size() - 2 : 0;
    return text->Part(offsets[i], offsets[i + 1]);
  }
  const std::vector<Value> items = context->Iterate(args[0]);
  if (items.empty()) return Undefined{"item of nothing"};
  return last ? items.back() : items.front();
}
Value First(Args args, Context* context) { return End(args, false, context); }
Value Last(Args args, Context* context) { return End(args, true, context); }
Value ToList(Args args, Context* context) { return context->MakeList(context->Iterate(args[0])); }

Value Join(Args args, Context* context) {
  const Text separator = context->Print(args[1]);
  Text result;
  bool first = true;
  for (const Value& item : context->Iterate(args[0])) {
    if (!first && context->Charge(separator.size())) result.Append(separator);
    first = false;
    result.Append(context->Print(item));
    if (context->failed()) return {};
  }
  return result;
}

Value Replace(Args args, Context* context) {
  const Text *text = TextArg(args, 0, context), *from = TextArg(args, 1, context),
             *to = TextArg(args, 2, context);
  if (context->failed()) return {};
  if (from->size() == 0) return context->Fail("replacing the empty string is not supported");
  Text result;
  for (size_t pos = 0;;) {
    const size_t found = Find(text->bytes(), from->bytes(), pos);
    if (found == std::string_view::npos) {
      result.AppendPart(*text, pos, text->size());
      return result;
    }
    if (!context->Charge(found - pos + to->size())) return {};
    result.AppendPart(*text, pos, found);
    result.Append(*to);
    pos = found + from->size();
  }
}

Value ToString(Args args, Context* context) { return context->Print(args[0]); }
Value Same(Args args, Context*) { return args[0]; }

Value ToInteger(Args args, Context* context) {
  int64_t value = 0;
  if (args[0].Integer(&value)) return value;
  return context->Fail(absl::StrCat("int of a ", args[0].TypeName(), " is not supported"));
}

void AppendJsonString(const Text& text, Text* out) {
  out->Append("\"", true);
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text.bytes()[i];
    static constexpr std::string_view kFrom = "\"\\\n\r\t\b\f", kTo = "\"\\nrtbf";
    if (const size_t k = kFrom.find(c); k != std::string_view::npos) {
      const char escape[] = {'\\', kTo[k]};
      out->Append(std::string_view(escape, 2), text.trusted(i));
    } else if (static_cast<uint8_t>(c) < 0x20) {
      out->Append(absl::StrCat("\\u", absl::Hex(c, absl::kZeroPad4)), text.trusted(i));
    } else {
      out->AppendPart(text, i, i + 1);
    }
  }
  out->Append("\"", true);
}

// As json.dumps(value, ensure_ascii=False). Depth is bounded by MakeList.
void AppendJson(const Value& value, Context* context, Text* out) {
  if (!context->Charge(16)) return;
  if (const Text* text = value.text()) {
    if (context->Charge(6 * text->size())) AppendJsonString(*text, out);
  } else if (value.none()) {
    out->Append("null", true);
  } else if (const bool* b = value.boolean()) {
    out->Append(*b ? "true" : "false", true);
  } else if (const List* list = value.list()) {
    out->Append("[", true);
    for (size_t i = 0; i < list->items.size() && !context->failed(); ++i) {
      if (i > 0) out->Append(", ", true);
      AppendJson(list->items[i], context, out);
    }
    out->Append("]", true);
  } else if (const Map* map = value.map()) {
    out->Append("{", true);
    for (size_t i = 0; i < map->size() && !context->failed(); ++i) {
      if (i > 0) out->Append(", ", true);
      AppendJsonString(Text((*map)[i].first, true), out);
      out->Append(": ", true);
      AppendJson((*map)[i].second, context, out);
    }
    out->Append("}", true);
  } else if (int64_t i; value.Integer(&i)) {
    out->Append(std::to_string(i), true);
  } else {
    context->Fail(absl::StrCat("tojson of a ", value.TypeName(), " is not supported"));
  }
}
Value ToJson(Args args, Context* context) {
  Text out;
  AppendJson(args[0], context, &out);
  return out;
}

Value Select(Args args, bool wanted, Context* context) {
  const Text* attribute = TextArg(args, 1, context);
  const Function* test = nullptr;
  if (args[2].undefined() == nullptr) {
    const Text* name = TextArg(args, 2, context);
    test = name == nullptr ? nullptr : FindTest(name->bytes());
    if (test == nullptr) return context->Fail("selectattr, rejectattr: unknown test");
  }
  std::vector<Value> kept;
  if (attribute == nullptr) return {};
  for (const Value& item : context->Iterate(args[0])) {
    if (!context->Charge(16)) return {};
    const std::array<Value, 2> test_args = {item.Attribute(attribute->bytes()), args[3]};
    const Value result = test == nullptr ? test_args[0] : test->call(test_args, context);
    if (result.Truthy() == wanted) kept.push_back(item);
  }
  return context->MakeList(std::move(kept));
}
Value SelectAttr(Args args, Context* context) { return Select(args, true, context); }
Value RejectAttr(Args args, Context* context) { return Select(args, false, context); }

bool IsInteger(const Value& value) {
  int64_t unused;
  return value.Integer(&unused);
}
Value Parity(const Value& value, int64_t wanted, Context* context) {
  int64_t i = 0;
  if (!value.Integer(&i)) return context->Fail("odd and even need an integer");
  return (i & 1) == wanted;
}
bool IsIterable(const Value& v) {
  return v.text() != nullptr || v.list() != nullptr || v.map() != nullptr ||
         v.undefined() != nullptr;
}

Value StartsWith(Args args, Context* context) {
  const Text *text = TextArg(args, 0, context), *prefix = TextArg(args, 1, context);
  if (context->failed()) return {};
  return text->bytes().substr(0, prefix->size()) == prefix->bytes();
}
Value EndsWith(Args args, Context* context) {
  const Text *text = TextArg(args, 0, context), *suffix = TextArg(args, 1, context);
  if (context->failed()) return {};
  return text->size() >= suffix->size() &&
         text->bytes().substr(text->size() - suffix->size()) == suffix->bytes();
}

// Python's str.split: by `separator`, or by runs of spaces if there is none.
Value Split(Args args, Context* context) {
  const Text* text = TextArg(args, 0, context);
  int64_t limit = -1;
  if (!IsMissing(args[2]) && !args[2].Integer(&limit)) return context->Fail("maxsplit: no integer");
  if (text == nullptr) return {};
  const bool by_space = IsMissing(args[1]);
  const Text* separator = by_space ? nullptr : TextArg(args, 1, context);
  if (context->failed()) return {};
  if (!by_space && separator->size() == 0) return context->Fail("empty separator");
  std::vector<Value> parts;
  const std::string_view bytes = text->bytes();
  size_t pos = 0;
  if (by_space) {
    const std::vector<size_t> offsets = CharacterOffsets(bytes);
    const auto is_space = [&](size_t i) {
      const std::string_view c = bytes.substr(offsets[i], offsets[i + 1] - offsets[i]);
      return StripBounds(c, nullptr, true, false).first == c.size();
    };
    for (size_t i = 0; i + 1 < offsets.size();) {
      if (is_space(i)) {
        ++i;
        continue;
      }
      const size_t begin = offsets[i];
      const bool rest = limit >= 0 && parts.size() == static_cast<size_t>(limit);
      while (i + 1 < offsets.size() && (rest || !is_space(i))) ++i;
      if (!context->Charge(sizeof(Text))) return {};
      parts.push_back(text->Part(begin, offsets[i]));
    }
    return context->MakeList(std::move(parts));
  }
  while (limit < 0 || parts.size() < static_cast<size_t>(limit)) {
    const size_t found = Find(bytes, separator->bytes(), pos);
    if (found == std::string_view::npos) break;
    if (!context->Charge(sizeof(Text))) return {};
    parts.push_back(text->Part(pos, found));
    pos = found + separator->size();
  }
  parts.push_back(text->Part(pos, text->size()));
  return context->MakeList(std::move(parts));
}

const Map* MapArg(Args args, Context* context) {
  if (args[0].map() == nullptr) {
    context->Fail(absl::StrCat("expected a mapping, got a ", args[0].TypeName()));
  }
  return args[0].map();
}
Value Items(Args args, Context* context) {
  std::vector<Value> items;
  if (const Map* map = MapArg(args, context)) {
    for (const auto& [key, value] : *map) {
      items.push_back(context->MakeList({Value::Trusted(key), value}));
    }
  }
  return context->MakeList(std::move(items));
}
Value Get(Args args, Context* context) {
  const Text* key = TextArg(args, 1, context);
  if (MapArg(args, context) == nullptr || key == nullptr) return {};
  const Value value = args[0].Attribute(key->bytes());
  if (value.undefined() == nullptr) return value;
  return args[2].undefined() != nullptr ? Value(None{}) : args[2];
}

constexpr Function kFilters[] = {
    {"capitalize", 0, {}, Capitalize},
    {"count", 0, {}, Length},
    {"d", 0, {"default_value", "boolean"}, Default},
    {"default", 0, {"default_value", "boolean"}, Default},
    {"first", 0, {}, First},
    {"int", 0, {}, ToInteger},
    {"items", 0, {}, Items},
    {"join", 0, {"d"}, Join},
    {"last", 0, {}, Last},
    {"length", 0, {}, Length},
    {"list", 0, {}, ToList},
    {"lower", 0, {}, Lower},
    {"rejectattr", 1, {"attribute", "test", "value"}, RejectAttr},
    {"replace", 2, {"old", "new"}, Replace},
    {"safe", 0, {}, Same},
    {"selectattr", 1, {"attribute", "test", "value"}, SelectAttr},
    {"string", 0, {}, ToString},
    {"tojson", 0, {}, ToJson},
    {"trim", 0, {"chars"}, StripBoth},
    {"upper", 0, {}, Upper},
};

constexpr Function kTests[] = {
    {"boolean", 0, {}, [](Args a, Context*) { return Value(a[0].boolean() != nullptr); }},
    {"defined", 0, {}, [](Args a, Context*) { return Value(a[0].undefined() == nullptr); }},
    {"eq", 1, {"other"}, [](Args a, Context* c) { return Value(c->Equal(a[0], a[1])); }},
    {"equalto", 1, {"other"}, [](Args a, Context* c) { return Value(c->Equal(a[0], a[1])); }},
    {"even", 0, {}, [](Args a, Context* c) { return Parity(a[0], 0, c); }},
    {"false", 0, {}, [](Args a, Context*) { return Value(a[0].boolean() && !*a[0].boolean()); }},
    {"in", 1, {"seq"}, [](Args a, Context* c) { return Value(Contains(a[1], a[0], c)); }},
    {"integer",
     0,
     {},
     [](Args a, Context*) { return Value(IsInteger(a[0]) && a[0].boolean() == nullptr); }},
    {"iterable", 0, {}, [](Args a, Context*) { return Value(IsIterable(a[0])); }},
    {"mapping", 0, {}, [](Args a, Context*) { return Value(a[0].map() != nullptr); }},
    {"ne", 1, {"other"}, [](Args a, Context* c) { return Value(!c->Equal(a[0], a[1])); }},
    {"none", 0, {}, [](Args a, Context*) { return Value(a[0].none()); }},
    {"number", 0, {}, [](Args a, Context*) { return Value(IsInteger(a[0])); }},
    {"odd", 0, {}, [](Args a, Context* c) { return Parity(a[0], 1, c); }},
    {"sequence", 0, {}, [](Args a, Context*) { return Value(IsIterable(a[0])); }},
    {"string", 0, {}, [](Args a, Context*) { return Value(a[0].text() != nullptr); }},
    {"true", 0, {}, [](Args a, Context*) { return Value(a[0].boolean() && *a[0].boolean()); }},
    {"undefined", 0, {}, [](Args a, Context*) { return Value(a[0].undefined() != nullptr); }},
};

constexpr Function kMethods[] = {
    {"capitalize", 0, {}, Capitalize},
    {"endswith", 1, {"suffix"}, EndsWith},
    {"get", 1, {"key", "default"}, Get},
    {"items", 0, {}, Items},
    {"lower", 0, {}, Lower},
    {"lstrip", 0, {"chars"}, StripLeft},
    {"replace", 2, {"old", "new"}, Replace},
    {"rstrip", 0, {"chars"}, StripRight},
    {"split", 0, {"sep", "maxsplit"}, Split},
    {"startswith", 1, {"prefix"}, StartsWith},
    {"strip", 0, {"chars"}, StripBoth},
    {"upper", 0, {}, Upper},
};

const Function* FindIn(std::span<const Function> table, std::string_view name) {
  const auto it =
      std::find_if(table.begin(), table.end(), [&](const Function& f) { return name == f.name; });
  return it == table.end() ? nullptr : &*it;
}

}  // namespace

int Function::num_parameters() const {
  int n = 0;
  while (n < kMaxParameters && parameters[n] != nullptr) ++n;
  return n;
}

const Function* FindFilter(std::string_view name) { return FindIn(kFilters, name); }
const Function* FindTest(std::string_view name) { return FindIn(kTests, name); }
const Function* FindMethod(std::string_view name) { return FindIn(kMethods, name); }

bool Contains(const Value& haystack, const Value& needle, Context* context) {
  if (haystack.text() != nullptr) {
    const Value args[] = {haystack, needle};
    const Text *text = TextArg(args, 0, context), *part = TextArg(args, 1, context);
    return text != nullptr && part != nullptr &&
           Find(text->bytes(), part->bytes(), 0) != std::string_view::npos;
  }
  if (const Map* map = haystack.map()) {
    return needle.text() != nullptr &&
           std::any_of(map->begin(), map->end(),
                       [&](const auto& entry) { return entry.first == needle.text()->bytes(); });
  }
  for (const Value& item : context->Iterate(haystack)) {
    if (context->Equal(item, needle)) return true;
  }
  return false;
}

}  // namespace acuity::engine::jinja
