// `acuity inspect MODEL`: what a model on disk is, and whether acuityd would serve it. Asks no
// daemon and reads no weights.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "clients/cpp/json.h"
#include "engine/opened_model.h"

namespace acuity::client {

// As engine::OpenModel, and refuses besides what the attention kernels cannot do: acuityd's errors,
// in acuityd's words.
absl::StatusOr<engine::OpenedModel> OpenToInspect(const std::string& path,
                                                  const std::string& attention_policy);

// Memory is in bytes. Weights: matrices in the type that they are served in, vectors in float32,
// without the padding (a few percent) of the packed form. KV: keys and values of all layers.
Json ToJson(const engine::OpenedModel& model);

// The same as text, the tensors at the end.
std::string ToText(const engine::OpenedModel& model);

}  // namespace acuity::client
