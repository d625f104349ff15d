#include "kernels/cpu/layer_ops_row.h"

namespace acuity::kernels {

const LayerOpsKernels kLayerOpsAvx2 = {&RmsNormRow, &SiluMulRow, &RopeAppendRow};

}  // namespace acuity::kernels
