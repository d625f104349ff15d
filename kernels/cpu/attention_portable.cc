#include "kernels/cpu/attention_impl.h"

namespace acuity::kernels {

const AttentionKernels kAttentionPortable = {RunTask, RunMerge};

}  // namespace acuity::kernels
