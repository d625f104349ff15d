// Rotary embeddings as config.json describes them.
#pragma once

#include "absl/status/status.h"
#include "engine/loader/hf_config.h"
#include "engine/loader/model_spec.h"

namespace acuity::engine {

// Reads rope_theta and partial_rotary_factor (or what `keys` calls them), and rope_scaling or, as
// newer files have it, rope_parameters. REQUIRES spec->head_dim and spec->max_context (what
// max_position_embeddings says). Appends one RopeSpec, and sets spec->max_context to the length
// that the scaling is made for:
//   default, linear, llama3   max_position_embeddings
//   dynamic    the same: transformers scales only beyond it, and no sequence here gets there
//   yarn       the larger of it and original_max_position_embeddings * factor
//   longrope   the same; the long factors at every position if it is above
//              original_max_position_embeddings, else the short ones. (transformers changes from
//              short to long when a sequence outgrows it, which keys that are cached cannot.)
// Sources of the formulas: YaRN, arXiv 2309.00071; LongRoPE, arXiv 2402.13753; Llama 3.1's, and
// all defaults: transformers 4.57, modeling_rope_utils.
struct RopeKeys {
  const char* theta = "rope_theta";
  const char* partial = "partial_rotary_factor";
  float default_theta = 10000;
  float default_partial = 1;
};
absl::Status ReadRope(const HfConfig& config, const RopeKeys& keys, ModelSpec* spec);

}  // namespace acuity::engine
