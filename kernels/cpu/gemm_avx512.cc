#include "kernels/cpu/gemm_block.h"

namespace acuity::kernels {

const GemmKernels kGemmAvx512 = {kMaxRows, kRowBlockBytes, kTaskWeightBytes, &RunBlock};

}  // namespace acuity::kernels
