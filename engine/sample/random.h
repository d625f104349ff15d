// Counter-based uniform numbers, keyed on (seed, position) and nothing else. The definition is
// below the engine, so that a token drawn on a GPU is the one drawn here.
#pragma once

#include "kernels/sampling_math.h"

namespace acuity::engine {

using kernels::UniformAt;

}  // namespace acuity::engine
