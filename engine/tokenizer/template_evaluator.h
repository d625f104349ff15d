// Runs a parsed template.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/tokenizer/template_ast.h"
#include "engine/tokenizer/template_context.h"

namespace acuity::engine::jinja {

// What the template prints with `globals` (keys are strings) as its variables at the time `now`.
// ResourceExhausted with line and limit at a bound, else InvalidArgument with the line. No I/O.
// REQUIRES: `block` comes from Parse, which bounds its depth.
absl::StatusOr<Text> Evaluate(const Block& block, const Dict& globals, Bounds bounds,
                              absl::Time now);

}  // namespace acuity::engine::jinja
