#include "engine/tokenizer/template_value.h"

#include <algorithm>

#include "engine/tokenizer/template_functions.h"

namespace acuity::engine::jinja {
namespace {

// As Python's dictionaries compare keys: 1, 1.0 and True are the same.
bool SameKey(const Value& a, const Value& b) {
  if (a.text() != nullptr) return b.text() != nullptr && a.text()->bytes() == b.text()->bytes();
  if (a.none()) return b.none();
  double x = 0, y = 0;
  return a.Number(&x) && b.Number(&y) && x == y;
}

}  // namespace

struct Value::NamespaceBox {
  Dict dict;
};

size_t Text::RunEnd(size_t begin) const {
  const size_t end = marks_.find_first_not_of(marks_[begin], begin);
  return end == std::string::npos ? marks_.size() : end;
}

Value::Value(List list) : v_(std::make_shared<const List>(std::move(list))) {}
Value::Value(Dict dict) : v_(std::make_shared<const Dict>(std::move(dict))) {}
Value::Value(Callable callable) : v_(std::make_shared<const Callable>(std::move(callable))) {}

Value Value::Namespace(Dict dict) {
  Value value;
  value.v_ = std::make_shared<NamespaceBox>(NamespaceBox{std::move(dict)});
  return value;
}

Dict* Value::name_space() const {
  const auto* pointer = std::get_if<std::shared_ptr<NamespaceBox>>(&v_);
  return pointer == nullptr ? nullptr : &(*pointer)->dict;
}

bool Value::Integer(int64_t* out) const {
  if (boolean() != nullptr) {
    *out = *boolean();
    return true;
  }
  if (const int64_t* i = std::get_if<int64_t>(&v_)) {
    *out = *i;
    return true;
  }
  return false;
}

bool Value::Number(double* out) const {
  if (real() != nullptr) {
    *out = *real();
    return true;
  }
  int64_t i = 0;
  if (!Integer(&i)) return false;
  *out = static_cast<double>(i);
  return true;
}

bool Value::Truthy() const {
  if (undefined() != nullptr || none()) return false;
  if (double d = 0; Number(&d)) return d != 0;
  if (text() != nullptr) return text()->size() > 0;
  if (list() != nullptr) return list()->kind == List::Kind::kIterator || !list()->items.empty();
  if (dict() != nullptr) return !dict()->entries.empty();
  return true;
}

const char* Value::TypeName() const {
  constexpr const char* kNames[] = {"undefined", "none",   "boolean",  "integer",
                                    "float",     "string", "list",     "mapping",
                                    "function",  "loop",   "namespace"};
  return kNames[v_.index()];
}

int Value::Depth() const {
  if (list() != nullptr) return list()->depth;
  if (dict() != nullptr) return dict()->depth;
  return callable() != nullptr || loop() != nullptr || name_space() != nullptr ? -1 : 0;
}

const Value* Dict::Find(const Value& key) const {
  for (const auto& [k, value] : entries) {
    if (SameKey(k, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::FindName(std::string_view name) const {
  for (const auto& [k, value] : entries) {
    if (k.text() != nullptr && k.text()->bytes() == name) return &value;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  const auto it = std::find_if(entries.begin(), entries.end(),
                               [&](const auto& entry) { return SameKey(entry.first, key); });
  if (it != entries.end()) {
    it->second = std::move(value);
  } else {
    entries.emplace_back(std::move(key), std::move(value));
  }
}

}  // namespace acuity::engine::jinja
