#include "engine/tokenizer/template_value.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine::jinja {
namespace {

// Lists in lists: templates use one or two levels; destroying a value recurses this deep.
constexpr int kMaxListDepth = 16;

}  // namespace

size_t Text::RunEnd(size_t begin) const {
  const size_t end = marks_.find(marks_[begin] != 0 ? '\0' : '\1', begin);
  return end == std::string::npos ? marks_.size() : end;
}

Value Value::Namespace(Map map) {
  Value value;
  value.v_ = std::make_shared<NamespaceBox>(NamespaceBox{std::move(map)});
  return value;
}

Map* Value::name_space() const {
  const auto* pointer = std::get_if<std::shared_ptr<NamespaceBox>>(&v_);
  return pointer == nullptr ? nullptr : &(*pointer)->map;
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

bool Value::Truthy() const {
  if (undefined() != nullptr || none()) return false;
  if (int64_t i; Integer(&i)) return i != 0;
  if (text() != nullptr) return text()->size() > 0;
  if (list() != nullptr) return !list()->items.empty();
  if (map() != nullptr) return !map()->empty();
  return true;
}

const char* Value::TypeName() const {
  constexpr const char* kNames[] = {"undefined", "none", "boolean", "integer",
                                    "string",    "list", "mapping", "namespace"};
  return kNames[v_.index()];
}

Value Value::Attribute(std::string_view name) const {
  const Map* entries = map() != nullptr ? map() : name_space();
  if (entries != nullptr) {
    for (const auto& [key, value] : *entries) {
      if (key == name) return value;
    }
  }
  return Undefined{std::string(name)};
}

bool Context::Charge(size_t units) {
  if (failed()) return false;
  if (units > static_cast<size_t>(fuel_)) {
    Fail("takes too many steps", absl::StatusCode::kResourceExhausted);
    return false;
  }
  fuel_ -= static_cast<int64_t>(units);
  return true;
}

Value Context::Fail(const std::string& message, absl::StatusCode code) {
  if (!failed()) {
    status_ = absl::Status(code, absl::StrCat("chat template, line ", line_, ": ", message));
  }
  return {};
}

Text Context::Print(const Value& value) {
  if (const Text* text = value.text()) {
    if (!Charge(text->size())) return {};
    return *text;
  }
  if (value.undefined() != nullptr) return {};
  if (value.none()) return Text("None", true);
  if (const bool* b = value.boolean()) return Text(*b ? "True" : "False", true);
  if (int64_t i; value.Integer(&i)) return Text(std::to_string(i), true);
  Fail(absl::StrCat("printing a ", value.TypeName(), " is not supported"));
  return {};
}

bool Context::Equal(const Value& a, const Value& b) {
  if (!Charge(1)) return false;
  if (a.text() != nullptr && b.text() != nullptr) {
    if (a.text()->size() != b.text()->size() || !Charge(a.text()->size())) return false;
    return a.text()->bytes() == b.text()->bytes();
  }
  if (int64_t x, y; a.Integer(&x) && b.Integer(&y)) return x == y;
  if (a.list() != nullptr && b.list() != nullptr) {
    const auto &x = a.list()->items, &y = b.list()->items;
    return x.size() == y.size() &&
           std::equal(x.begin(), x.end(), y.begin(), [&](auto& i, auto& j) { return Equal(i, j); });
  }
  if (a.map() != nullptr) return a.map() == b.map();
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  return (a.none() && b.none()) || (a.undefined() != nullptr && b.undefined() != nullptr);
}

Value Context::MakeList(std::vector<Value> items) {
  // A list keeps memory alive, so each item costs some fuel.
  if (!Charge(items.size() * sizeof(Value))) return {};
  List list;
  for (const Value& item : items) {
    if (item.name_space() != nullptr) return Fail("a namespace in a list is not supported");
    list.depth = std::max(list.depth, item.Depth() + 1);
  }
  if (list.depth > kMaxListDepth) {
    return Fail(absl::StrCat("lists nest deeper than ", kMaxListDepth),
                absl::StatusCode::kResourceExhausted);
  }
  list.items = std::move(items);
  return list;
}

std::vector<Value> Context::Iterate(const Value& value) {
  std::vector<Value> items;
  if (value.list() != nullptr) {
    if (Charge(value.list()->items.size())) items = value.list()->items;
  } else if (const Map* map = value.map()) {
    for (const auto& [key, unused] : *map) items.push_back(Value::Trusted(key));
  } else if (const Text* text = value.text()) {
    if (!Charge(text->size() * sizeof(Text))) return items;
    const std::vector<size_t> offsets = CharacterOffsets(text->bytes());
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      items.push_back(text->Part(offsets[i], offsets[i + 1]));
    }
  } else if (value.undefined() == nullptr) {
    Fail(absl::StrCat("a ", value.TypeName(), " cannot be iterated over"));
  }
  return items;
}

std::pair<size_t, size_t> StripBounds(std::string_view text, const std::string_view* set, bool left,
                                      bool right) {
  const auto strips = [&](std::string_view character) {
    if (set == nullptr) return IsPythonSpace(DecodeUtf8(character).code);
    // UTF-8 is self-synchronising, so finding the bytes finds the character.
    return set->find(character) != std::string_view::npos;
  };
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const size_t length = DecodeUtf8(text.substr(begin, end - begin)).length;
    if (!strips(text.substr(begin, length))) break;
    begin += length;
  }
  while (right && begin < end) {
    size_t start = end - 1;
    while (start > begin && end - start < 4 && (text[start] & 0xC0) == 0x80) --start;
    if (!strips(text.substr(start, end - start))) break;
    end = start;
  }
  return {begin, end};
}

std::vector<size_t> CharacterOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t pos = 0; pos < text.size(); pos += DecodeUtf8(text.substr(pos)).length) {
    offsets.push_back(pos);
  }
  offsets.push_back(text.size());
  return offsets;
}

}  // namespace acuity::engine::jinja
