// The JSON that programs rely on: acuity.v1 messages in the client's documented form.
#pragma once

#include <nlohmann/json.hpp>

#include "acuity/v1/acuity.pb.h"

namespace acuity::client {

using Json = nlohmann::ordered_json;

// {"layers": [{"layer", "policy", "buckets": [...], "heads": [...]}]}, or null for a report that
// was not made.
Json ToJson(const v1::AttentionReport& report);
// {"rows", "layers": [{"layer", "heads": [{"head", "mass": [of each span], "normalized_entropy",
// "effective_context", "max_probability"}]}]}, or null for a report that was not made.
Json ToJson(const v1::SpanReport& report);
Json ToJson(const v1::Usage& usage);
Json ToJson(const v1::Timings& timings);
Json ToJson(const v1::Model& model);
Json ToJson(const v1::TokenLogprobs& logprobs);

// One line on stdout; bytes that are not UTF-8 are replaced.
void Print(const Json& json);

}  // namespace acuity::client
