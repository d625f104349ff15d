#include "engine/gpu/cuda/cuda.h"
#include "tests/bench/step_bench.h"

namespace acuity::engine {

RunnerFactory RunnerToMeasure() { return CudaRunner(); }

}  // namespace acuity::engine
