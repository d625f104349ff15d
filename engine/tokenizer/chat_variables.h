// A chat's input as the variables of its template.
#pragma once

#include "absl/status/statusor.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/template_value.h"

namespace acuity::engine {

// messages, tools, documents, add_generation_prompt and those of variables_json. InvalidArgument
// names the field.
absl::StatusOr<jinja::Dict> ToVariables(const ChatInput& input);

}  // namespace acuity::engine
