// Conversations in the JSON that people have: an array of {"role", "content", "tool_calls", ...}.
#pragma once

#include <string>

#include "acuity/v1/acuity.pb.h"

namespace acuity::client {

// Appends the messages of `json`. Tool calls may be {"id", "type", "function": {"name",
// "arguments"}} or {"name", "arguments"}; arguments that are a string go on as a string. Members
// that v1::ChatMessage does not have become extra_json. Throws std::runtime_error naming the
// message.
void AddMessages(const std::string& json, v1::Chat* chat);

}  // namespace acuity::client
