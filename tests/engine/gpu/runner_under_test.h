// What engine_check.cc compares with the CPU and tests/bench/step_bench.cc measures: whoever links
// them says, with one of runner_*.cc or its own.
#pragma once

#include "engine/model/model_runner.h"

namespace acuity::engine {

RunnerFactory RunnerUnderTest();

}  // namespace acuity::engine
