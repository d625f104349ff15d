#include "engine/gpu/cuda/cuda.h"
#include "tests/engine/gpu/engine_check.h"

namespace acuity::engine {

RunnerFactory RunnerUnderTest() { return CudaRunner(); }

}  // namespace acuity::engine
