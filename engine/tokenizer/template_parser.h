// Parses the tokens of a template.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/tokenizer/template_ast.h"

namespace acuity::engine::jinja {

// InvalidArgument with the line and the construct if the template is wrong, nests too deeply or
// uses a tag, filter, test or method that is not supported. Depths of the result are bounded, so
// that recursing over it is safe.
absl::StatusOr<Block> Parse(std::string_view source);

}  // namespace acuity::engine::jinja
