// attention_test.cc and attention_traps_test.cc on the emulated kernels.
#include <string>
#include <vector>

#include "tests/kernels/attention_matrix.h"
#include "tests/kernels/cuda/emulated_attention.h"

namespace acuity::kernels {

AttentionMatrix Matrix() {
  return {{DType::kBFloat16, DType::kFloat16, DType::kFloat8},
          {64, 128},
          {256},
          {1, 3, 8},
          {32, 128, 1024}};
}

std::vector<AttentionBackend> Backends() {
  // Another schedule each time, the same ones in each run of a test.
  static uint64_t seed = 0;
  const auto run = [](const AttentionParams& params) {
    if (const char* reason = cuda::Supports(params.shape)) return std::string(reason);
    return cuda::RunEmulated(params, ++seed);
  };
  return {{"emulated cuda", run, RoundedTolerance}};
}

}  // namespace acuity::kernels
