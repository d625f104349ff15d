#include "kernels/cpu/gemm_block.h"

namespace acuity::kernels {

const GemmKernels kGemmPortable = {kMaxRows, &RunBlock};

}  // namespace acuity::kernels
