#include "kernels/cpu/layer_ops_elementwise.h"
#include "kernels/cpu/layer_ops_row.h"

namespace acuity::kernels {

const LayerOpsKernels kLayerOpsPortable = {&NormRow, &ActivateRow, &AddScaledRow, &ScaleAndCapRow,
                                           &RopeAppendRow};

}  // namespace acuity::kernels
