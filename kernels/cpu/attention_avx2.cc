#include "kernels/cpu/attention_impl.h"

namespace acuity::kernels {

const AttentionKernels kAttentionAvx2 = {RunTask, RunMerge};

}  // namespace acuity::kernels
