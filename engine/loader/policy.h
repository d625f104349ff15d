// `--attention MODEL=POLICY` and the sidecar file: which logit policy each layer and head of a
// model gets.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/loader/model_spec.h"

namespace acuity::engine {

// Applies a policy to every layer of `spec`. Grammar (InvalidArgument quotes the text and the
// allowed forms):
//   softmax
//   ssmax:s=0.17[,b=0.1]     any finite s, b
//   ssmax:auto               s = 1 / mean of ln n over the trained length 1..max_context (Nakanishi
//   2025, section 3.4) logn:L                   L > 1 llama4:scale=0.1,floor=8192
//   ministral:beta=0.1,context=16384
//   file:PATH                the sidecar below
absl::Status ApplyPolicy(std::string_view policy, ModelSpec* spec);

// Applies a sidecar, JSON text of the form
//   {"attention": {"policy": "ssmax", "s": S, "b": B}}   S, B: a number, [layers] or
//   [layers][heads] numbers; B optional
// Unknown keys, wrong lengths and non-finite numbers are InvalidArgument naming the key.
absl::Status ApplyPolicySidecar(std::string_view json, ModelSpec* spec);

}  // namespace acuity::engine
