#include "kernels/cpu/layer_ops_row.h"

namespace acuity::kernels {

const LayerOpsKernels kLayerOpsPortable = {&RmsNormRow, &SiluMulRow, &RopeAppendRow};

}  // namespace acuity::kernels
