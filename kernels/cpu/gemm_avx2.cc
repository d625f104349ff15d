#include "kernels/cpu/gemm_tile.h"

namespace acuity::kernels {

const GemmKernels kGemmAvx2 = {kMaxRows, &RunBlock};

}  // namespace acuity::kernels
