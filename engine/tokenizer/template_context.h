// What an evaluation may still spend, its first error, and the operations that every part of the
// language needs.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/tokenizer/template_value.h"

namespace acuity::engine::jinja {

struct Bounds {
  int64_t fuel = 0;         // see Context::Charge
  size_t output_bytes = 0;  // also of every string on the way
};

// One evaluation's. After an error, results are undefined values. Not thread-safe.
class Context {
 public:
  Context(Bounds bounds, absl::Time now) : bounds_(bounds), fuel_(bounds.fuel), now_(now) {}

  // False, and an error, once the fuel is used up. One unit is about one byte looked at or made.
  bool Charge(size_t units);
  // False, and an error, if a string of so many bytes may not be made.
  bool CheckSize(size_t bytes);
  // Records an error unless there is one already.
  Value Fail(const std::string& message,
             absl::StatusCode code = absl::StatusCode::kInvalidArgument);
  // "'x' is undefined", or that the operation is not for its type.
  Value FailType(const std::string& operation, const Value& value);
  bool failed() const { return !status_.ok(); }
  const absl::Status& status() const { return status_; }
  void set_line(int line) { line_ = line; }
  int line() const { return line_; }
  absl::Time now() const { return now_; }

  // str(value): how a template prints it. Fails for what has no stable form (functions, iterators).
  Text Print(const Value& value);
  bool Equal(const Value& a, const Value& b);
  // < 0, 0, > 0; 0 and an error if the types have no order.
  int Order(const Value& a, const Value& b);
  // `needle in haystack`.
  bool Contains(const Value& haystack, const Value& needle);
  // Of strings, lists and mappings; -1 and an error for others.
  int64_t Length(const Value& value);
  // An error if they nest too deeply or hold what cannot be put into them.
  Value MakeList(std::vector<Value> items, List::Kind kind = List::Kind::kList);
  Value MakeDict(Dict dict);
  // What {% for %} visits: items, characters or keys.
  std::vector<Value> Iterate(const Value& value);

 private:
  void Repr(const Value& value, Text* out);
  int CheckDepth(const Value& value, int depth);

  const Bounds bounds_;
  int64_t fuel_;
  const absl::Time now_;
  int line_ = 0;
  absl::Status status_;
};

}  // namespace acuity::engine::jinja
