#include "kernels/cpu/gemm_block.h"

namespace acuity::kernels {

const GemmKernels kGemmPortable = {kMaxRows, kRowBlockBytes, kTaskWeightBytes, &RunBlock};

}  // namespace acuity::kernels
