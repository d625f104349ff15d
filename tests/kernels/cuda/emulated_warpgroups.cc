// The same with prompts on the emulated warpgroups: fewer head dimensions, groups and page sizes of
// what the kernels share, and no soft-cap.
#include <string>
#include <vector>

#include "tests/kernels/attention_matrix.h"
#include "tests/kernels/cuda/emulated_attention.h"

namespace acuity::kernels {

AttentionMatrix Matrix() {
  return {{DType::kBFloat16, DType::kFloat16}, {64, 128}, {128}, {3}, {128}, false};
}

std::vector<AttentionBackend> Backends() {
  // Another schedule each time, the same ones in each run of a test.
  static uint64_t seed = 0;
  const auto run = [](const AttentionParams& params) {
    if (const char* reason = cuda::SupportsWarpgroups(params.shape, params.logit_softcap)) {
      return std::string(reason);
    }
    return cuda::RunEmulated(params, ++seed, 0, cuda::LaunchReal, cuda::PrefillWith::kWarpgroups);
  };
  return {{"emulated warpgroups", run, RoundedTolerance}};
}

}  // namespace acuity::kernels
