// What engine_check.cc compares with the CPU: whoever links it says.
#pragma once

#include "engine/model/model_runner.h"

namespace acuity::engine {

RunnerFactory RunnerUnderTest();

}  // namespace acuity::engine
