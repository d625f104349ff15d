// Values of the template language. Text remembers for every byte whether it is trusted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace acuity::engine::jinja {

// Bytes and where they came from: trusted (the template, the model's own tokens) or not (a
// message). Every operation carries the mark along, so that no concatenation or slice turns a
// user's text into the template's.
class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, bool trusted)
      : bytes_(bytes), marks_(bytes.size(), static_cast<char>(trusted)) {}

  void Append(std::string_view bytes, bool trusted) {
    bytes_.append(bytes);
    marks_.append(bytes.size(), static_cast<char>(trusted));
  }
  void Append(const Text& other) { AppendPart(other, 0, other.size()); }
  void AppendPart(const Text& other, size_t begin, size_t end) {
    bytes_.append(other.bytes_, begin, end - begin);
    marks_.append(other.marks_, begin, end - begin);
  }
  Text Part(size_t begin, size_t end) const {
    Text part;
    part.AppendPart(*this, begin, end);
    return part;
  }

  size_t size() const { return bytes_.size(); }
  std::string_view bytes() const { return bytes_; }
  bool trusted(size_t i) const { return marks_[i] != 0; }
  // The end of the run of equally trusted bytes that begins at `begin`.
  size_t RunEnd(size_t begin) const;

 private:
  std::string bytes_;
  std::string marks_;  // a 0 or 1 for every byte
};

class Value;

struct Undefined {
  std::string name;  // of the variable or attribute that is not there, for messages
};
struct None {};
struct List {
  std::vector<Value> items;
  int depth = 1;
};
using Map = std::vector<std::pair<std::string, Value>>;  // small: searched from the front

// Immutable and shared, except namespaces.
class Value {
 public:
  Value() : v_(Undefined{}) {}
  Value(Undefined u) : v_(std::move(u)) {}
  Value(None n) : v_(n) {}
  Value(bool b) : v_(b) {}
  Value(int64_t i) : v_(i) {}
  Value(Text text) : v_(std::make_shared<const Text>(std::move(text))) {}
  Value(List list) : v_(std::make_shared<const List>(std::move(list))) {}
  Value(Map map) : v_(std::make_shared<const Map>(std::move(map))) {}
  static Value Trusted(std::string_view text) { return Value(Text(text, true)); }
  static Value Namespace(Map map);

  const Undefined* undefined() const { return std::get_if<Undefined>(&v_); }
  bool none() const { return std::holds_alternative<None>(v_); }
  const bool* boolean() const { return std::get_if<bool>(&v_); }
  // Booleans are integers too, as in Python.
  bool Integer(int64_t* out) const;
  const Text* text() const { return Get<const Text>(); }
  const List* list() const { return Get<const List>(); }
  const Map* map() const { return Get<const Map>(); }
  Map* name_space() const;

  bool Truthy() const;
  const char* TypeName() const;
  int Depth() const { return list() != nullptr ? list()->depth : 0; }
  // The attribute or key, or Undefined.
  Value Attribute(std::string_view name) const;

 private:
  struct NamespaceBox {
    Map map;
  };
  template <typename T>
  const T* Get() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&v_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  std::variant<Undefined, None, bool, int64_t, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Map>,
               std::shared_ptr<NamespaceBox>>
      v_;
};

// What an evaluation may still spend, and its first error. After an error, results are Undefined.
class Context {
 public:
  explicit Context(int64_t fuel) : fuel_(fuel) {}

  // False, and an error, once the fuel is used up. One unit is about one byte looked at or made.
  bool Charge(size_t units);
  // Records an error unless there is one already.
  Value Fail(const std::string& message,
             absl::StatusCode code = absl::StatusCode::kInvalidArgument);
  bool failed() const { return !status_.ok(); }
  const absl::Status& status() const { return status_; }
  void set_line(int line) { line_ = line; }

  // How Jinja prints `value`. Fails for lists, mappings and namespaces.
  Text Print(const Value& value);
  // False if they are of different types, as in Python.
  bool Equal(const Value& a, const Value& b);
  // A list of `items`, or an error if lists nest too deeply or hold a namespace (a possible cycle).
  Value MakeList(std::vector<Value> items);
  // What {% for %} visits: items, characters or keys.
  std::vector<Value> Iterate(const Value& value);

 private:
  int64_t fuel_;
  int line_ = 0;
  absl::Status status_;
};

// The part of `text` without spaces, or without the characters of `set` if that is not null, at its
// ends.
std::pair<size_t, size_t> StripBounds(std::string_view text, const std::string_view* set, bool left,
                                      bool right);
// Byte offsets of the characters of `text`, and its size.
std::vector<size_t> CharacterOffsets(std::string_view text);

}  // namespace acuity::engine::jinja
