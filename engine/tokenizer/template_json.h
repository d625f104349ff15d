// JSON to template values and back.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/tokenizer/template_context.h"

namespace acuity::engine::jinja {

inline constexpr int kMaxJsonDepth = 64;
// Numbers, strings, lists, mappings of one document: each takes up to 100 bytes.
inline constexpr int kMaxJsonValues = 100'000;

// Every string, keys included, is untrusted. Numbers stay integers or become floats, as Python
// reads them; of equal keys the last counts. InvalidArgument with the byte if it is not JSON, has
// integers beyond 64 bits, or exceeds a limit above.
absl::StatusOr<Value> ParseJson(std::string_view json);

struct JsonStyle {
  bool pretty = false;  // with `indent` at every level, in lines
  Text indent;
  Text item_separator = Text(", ", kTrusted), key_separator = Text(": ", kTrusted);
  bool ensure_ascii = false, sort_keys = false;
};
// As json.dumps(value): an error for what is not JSON.
Text ToJson(const Value& value, const JsonStyle& style, Context* context);

}  // namespace acuity::engine::jinja
