#include "kernels/cpu/layer_ops_elementwise.h"
#include "kernels/cpu/layer_ops_row.h"

namespace acuity::kernels {

const LayerOpsKernels kLayerOpsAvx2 = {&NormRow, &ActivateRow, &AddScaledRow, &ScaleAndCapRow,
                                       &RopeAppendRow};

}  // namespace acuity::kernels
