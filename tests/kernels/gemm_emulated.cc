// The 16-lane tiles without AVX-512 instructions: their row, panel and tail logic is tested on
// every machine.
#include "kernels/cpu/gemm_block.h"

namespace acuity::kernels {

extern const GemmKernels kGemmEmulated16;
const GemmKernels kGemmEmulated16 = {kMaxRows, kRowBlockBytes, kTaskWeightBytes, &RunBlock};

}  // namespace acuity::kernels
