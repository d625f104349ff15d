#include "engine/tokenizer/template_context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_text.h"

namespace acuity::engine::jinja {
namespace {

// Lists and mappings in each other. The request's JSON may have kMaxJsonDepth, a template adds a
// few levels; destroying, printing and comparing recurse this deep.
constexpr int kMaxValueDepth = 100;

}  // namespace

bool Context::Charge(size_t units) {
  if (failed()) return false;
  if (units > static_cast<size_t>(fuel_)) {
    Fail(absl::StrCat("takes too many steps (the limit is ", bounds_.fuel, ")"),
         absl::StatusCode::kResourceExhausted);
    return false;
  }
  fuel_ -= static_cast<int64_t>(units);
  return true;
}

bool Context::CheckSize(size_t bytes) {
  if (bytes > bounds_.output_bytes) {
    Fail(absl::StrCat("makes more than ", bounds_.output_bytes, " bytes"),
         absl::StatusCode::kResourceExhausted);
  }
  return !failed();
}

Value Context::Fail(const std::string& message, absl::StatusCode code) {
  if (!failed()) {
    status_ = absl::Status(code, absl::StrCat("chat template, line ", line_, ": ", message));
  }
  return {};
}

Value Context::FailType(const std::string& operation, const Value& value) {
  if (value.undefined() != nullptr) {
    return Fail(absl::StrCat("'", value.undefined()->name, "' is undefined"));
  }
  return Fail(absl::StrCat(operation, " a ", value.TypeName()));
}

Text Context::Print(const Value& value) {
  if (const Text* text = value.text()) {
    if (!Charge(text->size())) return {};
    Text plain = *text;
    plain.set_safe(false);
    return plain;
  }
  Text out;
  if (value.undefined() == nullptr) Repr(value, &out);
  return out;
}

void Context::Repr(const Value& value, Text* out) {
  if (!Charge(16) || !CheckSize(out->size())) return;
  if (const Text* text = value.text()) {
    if (Charge(4 * text->size())) AppendRepr(*text, out);
  } else if (value.none()) {
    out->Append("None", kTrusted);
  } else if (const bool* b = value.boolean()) {
    out->Append(*b ? "True" : "False", kTrusted);
  } else if (const double* d = value.real()) {
    out->Append(FloatRepr(*d), kTrusted);
  } else if (int64_t i = 0; value.Integer(&i)) {
    out->Append(std::to_string(i), kTrusted);
  } else if (value.undefined() != nullptr) {
    out->Append("Undefined", kTrusted);
  } else if (value.list() != nullptr && value.list()->kind <= List::Kind::kTuple) {
    const bool tuple = value.list()->kind == List::Kind::kTuple;
    out->Append(tuple ? "(" : "[", kTrusted);
    const std::vector<Value>& items = value.list()->items;
    for (size_t k = 0; k < items.size() && !failed(); ++k) {
      if (k > 0) out->Append(", ", kTrusted);
      Repr(items[k], out);
    }
    out->Append(tuple ? (items.size() == 1 ? ",)" : ")") : "]", kTrusted);
  } else if (value.dict() != nullptr) {
    out->Append("{", kTrusted);
    bool first = true;
    for (const auto& [key, item] : value.dict()->entries) {
      if (failed()) return;
      if (!first) out->Append(", ", kTrusted);
      first = false;
      Repr(key, out);
      out->Append(": ", kTrusted);
      Repr(item, out);
    }
    out->Append("}", kTrusted);
  } else {
    FailType("cannot print", value);
  }
}

bool Context::Equal(const Value& a, const Value& b) {
  if (!Charge(4)) return false;
  if (a.text() != nullptr && b.text() != nullptr) {
    if (a.text()->size() != b.text()->size() || !Charge(a.text()->size())) return false;
    return a.text()->bytes() == b.text()->bytes();
  }
  if (int64_t x = 0, y = 0; a.Integer(&x) && b.Integer(&y)) return x == y;
  if (double x = 0, y = 0; a.Number(&x) && b.Number(&y)) return x == y;
  if (a.list() != nullptr && b.list() != nullptr) {
    const auto &x = a.list()->items, &y = b.list()->items;
    return a.list()->kind == b.list()->kind && x.size() == y.size() &&
           std::equal(x.begin(), x.end(), y.begin(), [&](auto& i, auto& j) { return Equal(i, j); });
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    const auto &x = a.dict()->entries, &y = b.dict()->entries;
    return x.size() == y.size() && std::all_of(x.begin(), x.end(), [&](const auto& entry) {
             if (!Charge(y.size())) return false;
             const Value* other = b.dict()->Find(entry.first);
             return other != nullptr && Equal(entry.second, *other);
           });
  }
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  if (a.callable() != nullptr) return a.callable() == b.callable();
  return (a.none() && b.none()) || (a.undefined() != nullptr && b.undefined() != nullptr);
}

int Context::Order(const Value& a, const Value& b) {
  if (double x = 0, y = 0; a.Number(&x) && b.Number(&y)) {
    int64_t i = 0, j = 0;
    if (a.Integer(&i) && b.Integer(&j)) return (i > j) - (i < j);
    return (x > y) - (x < y);
  }
  if (a.text() != nullptr && b.text() != nullptr) {
    if (!Charge(std::min(a.text()->size(), b.text()->size()))) return 0;
    return a.text()->bytes().compare(b.text()->bytes());  // UTF-8 sorts as its characters do
  }
  if (a.undefined() != nullptr || b.undefined() != nullptr) {
    FailType("", a.undefined() != nullptr ? a : b);
  } else {
    Fail(absl::StrCat("cannot order a ", a.TypeName(), " and a ", b.TypeName()));
  }
  return 0;
}

bool Context::Contains(const Value& haystack, const Value& needle) {
  if (const Text* text = haystack.text()) {
    const Text* part = needle.text();
    if (part == nullptr) {
      FailType("cannot find in a string", needle);
      return false;
    }
    return Charge(text->size() + part->size()) &&
           Find(text->bytes(), part->bytes(), 0) != std::string_view::npos;
  }
  if (const Dict* dict = haystack.dict()) {
    if (needle.Depth() != 0) FailType("unhashable:", needle);
    return Charge(dict->entries.size()) && dict->Find(needle) != nullptr;
  }
  for (const Value& item : Iterate(haystack)) {
    if (Equal(item, needle)) return true;
  }
  return false;
}

int64_t Context::Length(const Value& value) {
  if (value.undefined() != nullptr) return 0;
  if (const Text* text = value.text()) {
    if (!Charge(text->size())) return -1;
    return static_cast<int64_t>(CharacterOffsets(text->bytes()).size() - 1);
  }
  if (value.list() != nullptr && value.list()->kind != List::Kind::kIterator) {
    return static_cast<int64_t>(value.list()->items.size());
  }
  if (value.dict() != nullptr) return static_cast<int64_t>(value.dict()->entries.size());
  FailType("no length:", value);
  return -1;
}

// The depth of what holds `value` and has `depth` without it.
int Context::CheckDepth(const Value& value, int depth) {
  const int inner = value.Depth();
  if (inner < 0)
    Fail(absl::StrCat("a ", value.TypeName(), " in a list or mapping is not supported"));
  if (inner + 1 > kMaxValueDepth) {
    Fail(absl::StrCat("lists and mappings nest deeper than ", kMaxValueDepth),
         absl::StatusCode::kResourceExhausted);
  }
  return std::max(depth, inner + 1);
}

Value Context::MakeList(std::vector<Value> items, List::Kind kind) {
  // A list keeps memory alive, so each item costs some fuel.
  if (!Charge(items.size() * sizeof(Value))) return {};
  List list;
  list.kind = kind;
  for (const Value& item : items) list.depth = CheckDepth(item, list.depth);
  if (failed()) return {};
  list.items = std::move(items);
  return list;
}

Value Context::MakeDict(Dict dict) {
  if (!Charge(dict.entries.size() * 2 * sizeof(Value))) return {};
  for (const auto& [key, value] : dict.entries) {
    if (key.Depth() != 0 || key.undefined() != nullptr) FailType("unhashable key:", key);
    dict.depth = CheckDepth(value, dict.depth);
  }
  if (failed()) return {};
  return dict;
}

std::vector<Value> Context::Iterate(const Value& value) {
  std::vector<Value> items;
  if (value.list() != nullptr) {
    if (Charge(value.list()->items.size())) items = value.list()->items;
  } else if (const Dict* dict = value.dict()) {
    if (!Charge(dict->entries.size())) return items;
    for (const auto& [key, unused] : dict->entries) items.push_back(key);
  } else if (const Text* text = value.text()) {
    if (!Charge(text->size() * sizeof(Text))) return items;
    const std::vector<size_t> offsets = CharacterOffsets(text->bytes());
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      items.push_back(text->Part(offsets[i], offsets[i + 1]));
    }
  } else if (value.undefined() == nullptr) {
    FailType("cannot iterate over", value);
  }
  return items;
}

}  // namespace acuity::engine::jinja
