// What step_bench.cc measures the engine on: whoever links it says.
#pragma once

#include "engine/model/model_runner.h"

namespace acuity::engine {

RunnerFactory RunnerToMeasure();

}  // namespace acuity::engine
