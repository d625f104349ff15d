#include "kernels/cpu/layer_ops_row.h"

namespace acuity::kernels {

const LayerOpsKernels kLayerOpsAvx512 = {&RmsNormRow, &SiluMulRow, &RopeAppendRow};

}  // namespace acuity::kernels
