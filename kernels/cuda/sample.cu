#include "kernels/cuda/sample.h"

#include "kernels/cuda/sample.cuh"

namespace acuity::kernels::cuda {

const char* Sample(const SampleParams& p, void* stream) {
  constexpr int kMaxVocab = 1 << 30;
  if (p.vocab < 1 || p.vocab > kMaxVocab) return "Sample: vocab must be within 1 and 2^30";
  if (p.stride < p.vocab) return "Sample: stride must be at least vocab";
  if (p.rows < 0 || p.rows > 0x7fffffff) return "Sample: rows must be within 0 and 2^31 - 1";
  return prim::Launch<SampleKernel>({static_cast<uint32_t>(p.rows), 1, 1},
                                    SampleKernel::kSharedBytes, p, stream);
}

}  // namespace acuity::kernels::cuda
