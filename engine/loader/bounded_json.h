// JSON that strangers wrote. For sources only, as it brings in the JSON library.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace acuity::engine {

// Parses with bounded depth and no key twice in one object; nlohmann alone would take both.
// InvalidArgument says what is wrong.
absl::StatusOr<nlohmann::json> ParseBoundedJson(std::string_view text, int max_depth);

}  // namespace acuity::engine
