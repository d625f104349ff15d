// `--attention MODEL=POLICY` and the sidecar file: which logit policy each layer and head of a
// model gets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/loader/model_spec.h"

namespace acuity::engine {

// Applies a policy to every layer of `spec`. Grammar (InvalidArgument quotes the text and the
// allowed forms):
//   softmax
//   ssmax:s=0.17[,b=0.1]     any finite s, b
//   ssmax:auto[:L]           s = 1 / mean of ln n over the trained length 1..L (Nakanishi 2025,
//                            section 3.4); L >= 2, by default max_context
//   logn:L                   L > 1
//   llama4:scale=0.1,floor=8192
//   ministral:beta=0.1,context=16384
//   sharpen:length=8192,s=0.2[,b=0.1]    1 + b + s ln(n / length) beyond length, else 1
//   file:PATH                the sidecar below
absl::Status ApplyPolicy(std::string_view policy, ModelSpec* spec);

// Ministral 3's: logits of position p times 1 + beta ln(1 + floor(p / context)).
LayerPolicy MinistralPolicy(float beta, float context);

inline constexpr uint64_t kMaxSidecarBytes = 4 << 20;  // two parameters of 128k heads

// Applies a sidecar, JSON text of at least one of these members:
//   "attention": {"policy": "ssmax", "s": S, "b": B}
//              | {"policy": "sharpen", "length": L, "s": S, "b": B}
//       S, B: a number, [layers] or [layers][heads] numbers; B optional
//   "rope": {"theta": T, "factors": [F...], "knee": P, "slopes": [K...]}
//       over what the checkpoint says, as RopeSpec; each optional but knee with slopes. For layers
//       that attend to everything; those with a window keep theirs.
//   "context": N            max_context, the trained length or more; not with learned positions
// Unknown keys, wrong lengths and non-finite numbers are InvalidArgument naming the key; the spec
// is then unchanged.
absl::Status ApplyPolicySidecar(std::string_view json, ModelSpec* spec);

// A policy of parameters per head, named after them. `kind` is kSsmax, or kSharpen with its length;
// b may be empty.
LayerPolicy PerHeadPolicy(kernels::RowScaleKind kind, float length, std::vector<float> s,
                          std::vector<float> b);

}  // namespace acuity::engine
