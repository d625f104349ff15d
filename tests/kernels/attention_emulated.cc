// The 16-lane kernel in plain code, for machines without AVX-512.
#include "kernels/cpu/attention_impl.h"

namespace acuity::kernels {

extern const AttentionKernels kAttentionEmulated;
const AttentionKernels kAttentionEmulated = {RunTask, RunMerge};

}  // namespace acuity::kernels
