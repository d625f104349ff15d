#include "engine/gpu/cuda/cuda.h"
#include "tests/engine/gpu/runner_under_test.h"

namespace acuity::engine {

RunnerFactory RunnerUnderTest() { return CudaRunner(); }

}  // namespace acuity::engine
