// Values of the template language. Text remembers for every byte whether it is trusted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace acuity::engine::jinja {

// Where a byte came from.
enum Mark : char {
  kUntrusted = 0,  // a message, a tool, a variable of the request
  kTrusted = 1,    // the template, the model's own tokens
  kFinal = 2,      // untrusted, and of the message that is to be continued
};

// Bytes and their marks. Every operation carries the marks along, so that no concatenation or slice
// turns a user's text into the template's.
class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, Mark mark) : bytes_(bytes), marks_(bytes.size(), mark) {}

  void Append(std::string_view bytes, Mark mark) {
    bytes_.append(bytes);
    marks_.append(bytes.size(), mark);
  }
  void Append(const Text& other) { AppendPart(other, 0, other.size()); }
  void AppendPart(const Text& other, size_t begin, size_t end) {
    bytes_.append(other.bytes_, begin, end - begin);
    marks_.append(other.marks_, begin, end - begin);
  }
  Text Part(size_t begin, size_t end) const {
    Text part;
    part.AppendPart(*this, begin, end);
    part.safe_ = safe_;
    return part;
  }

  size_t size() const { return bytes_.size(); }
  std::string_view bytes() const { return bytes_; }
  Mark mark(size_t i) const { return static_cast<Mark>(marks_[i]); }
  // The end of the run of equally marked bytes that begins at `begin`.
  size_t RunEnd(size_t begin) const;
  // One past the last byte of that mark; 0 if there is none.
  size_t EndOfLast(Mark mark) const { return marks_.rfind(mark) + 1; }

  // What the filter `safe` gives: adding to it escapes the other side as HTML.
  bool safe() const { return safe_; }
  void set_safe(bool safe) { safe_ = safe; }

 private:
  std::string bytes_;
  std::string marks_;  // a Mark for every byte
  bool safe_ = false;
};

class Value;
struct Callable;  // template_functions.h
struct List;
struct Dict;
struct Loop;

struct Undefined {
  std::string
      name;  // of the variable or attribute that is not there, for messages; "": an argument
};
struct None {};

// Immutable and shared, except namespaces and loops, which therefore cannot be put into anything:
// there are no cycles.
class Value {
 public:
  Value() : v_(Undefined{}) {}
  Value(Undefined u) : v_(std::move(u)) {}
  Value(None n) : v_(n) {}
  Value(bool b) : v_(b) {}
  Value(const char*) = delete;  // would be true
  Value(int64_t i) : v_(i) {}
  Value(double d) : v_(d) {}
  Value(Text text) : v_(std::make_shared<const Text>(std::move(text))) {}
  Value(List list);
  Value(Dict dict);
  Value(Callable callable);
  Value(std::shared_ptr<const Loop> loop) : v_(std::move(loop)) {}
  static Value Trusted(std::string_view text) { return Value(Text(text, kTrusted)); }
  static Value Namespace(Dict dict);

  const Undefined* undefined() const { return std::get_if<Undefined>(&v_); }
  bool missing() const { return undefined() != nullptr && undefined()->name.empty(); }
  bool none() const { return std::holds_alternative<None>(v_); }
  const bool* boolean() const { return std::get_if<bool>(&v_); }
  const double* real() const { return std::get_if<double>(&v_); }
  // Booleans are integers too, and integers are numbers, as in Python.
  bool Integer(int64_t* out) const;
  bool Number(double* out) const;
  const Text* text() const { return Get<const Text>(); }
  const List* list() const { return Get<const List>(); }
  const Dict* dict() const { return Get<const Dict>(); }
  const Callable* callable() const { return Get<const Callable>(); }
  const Loop* loop() const { return Get<const Loop>(); }
  Dict* name_space() const;

  bool Truthy() const;
  const char* TypeName() const;
  // How deep lists and mappings nest in it; -1: it cannot be put into one.
  int Depth() const;

 private:
  struct NamespaceBox;
  template <typename T>
  const T* Get() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&v_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>,
               std::shared_ptr<const Callable>, std::shared_ptr<const Loop>,
               std::shared_ptr<NamespaceBox>>
      v_;
};

struct List {
  enum class Kind : uint8_t {
    kList,
    kTuple,
    kView,      // of a mapping, or a range: has a length, but is not JSON
    kIterator,  // what most filters give: can only be iterated over
  };
  std::vector<Value> items;
  Kind kind = Kind::kList;
  int depth = 1;
};

// In order of insertion, searched from the front: mappings are small.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // keys: strings, numbers, booleans, none
  int depth = 1;

  const Value* Find(const Value& key) const;
  const Value* FindName(std::string_view name) const;
  // Replaces the value of a key that is there.
  void Set(Value key, Value value);
};

// The variable `loop`.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;  // of the round
  int depth = 1;     // this and the loops around it are not counted: only recursive loops nest
};

}  // namespace acuity::engine::jinja
