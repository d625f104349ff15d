// Runs a batch as a GPU's caller would: plan, write, launch; under a schedule drawn from a seed.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/attention.h"
#include "tests/kernels/attention_fixture.h"

namespace acuity::kernels::cuda {

// RunAttention, or a kernel with a planted bug.
using Launcher = std::function<const char*(const AttentionParams&, const PlanCapacity&,
                                           const void* plan, float* workspace)>;
const char* LaunchReal(const AttentionParams& params, const PlanCapacity& capacity,
                       const void* plan, float* workspace);

// The emulation's memory is the host's. `spare` blocks more than the plan needs are launched.
// "" or why it failed.
std::string RunEmulated(const AttentionParams& params, uint64_t seed, int32_t spare = 0,
                        const Launcher& launch = LaunchReal,
                        PrefillWith prefill_with = PrefillWith::kWarps);

}  // namespace acuity::kernels::cuda
