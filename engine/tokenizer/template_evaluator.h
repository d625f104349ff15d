// Runs a parsed template.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "engine/tokenizer/template_ast.h"

namespace acuity::engine::jinja {

struct Bounds {
  int64_t fuel = 0;         // see Context::Charge
  size_t output_bytes = 0;  // also of every string on the way
};

// What the template prints with `globals` as its variables. ResourceExhausted at a bound, else
// InvalidArgument with the line. No I/O. REQUIRES: `block` comes from Parse, which bounds its
// depth.
absl::StatusOr<Text> Evaluate(const Block& block, const Map& globals, Bounds bounds);

}  // namespace acuity::engine::jinja
