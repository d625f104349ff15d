#include "kernels/cpu/gemm_block.h"

namespace acuity::kernels {

const GemmKernels kGemmAvx2 = {kMaxRows, kRowBlockBytes, kTaskWeightBytes, &RunBlock};

}  // namespace acuity::kernels
