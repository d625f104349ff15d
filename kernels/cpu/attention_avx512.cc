#include "kernels/cpu/attention_impl.h"

namespace acuity::kernels {

const AttentionKernels kAttentionAvx512 = {RunTask, RunMerge};

}  // namespace acuity::kernels
