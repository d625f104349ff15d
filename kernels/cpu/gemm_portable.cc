#include "kernels/cpu/gemm_tile.h"

namespace acuity::kernels {

const GemmKernels kGemmPortable = {kMaxRows, &RunBlock};

}  // namespace acuity::kernels
