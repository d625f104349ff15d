// The frequencies that kernels::RopeParams takes, of a RopeSpec.
#pragma once

#include <vector>

#include "engine/loader/model_spec.h"

namespace acuity::engine {

// In float32, as Hugging Face computes it: theta^(-2i / d), divided by the checkpoint's factors if
// it has any. [rotary_dim / 2]
std::vector<float> InverseFrequencies(const RopeSpec& rope);
// The same beyond the knee; empty if there is none.
std::vector<float> FrequenciesBeyond(const RopeSpec& rope);

}  // namespace acuity::engine
