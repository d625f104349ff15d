#include "tests/kernels/simd_probe_impl.h"

namespace acuity::kernels {

const SimdProbe kSimdPortable = kProbe;

}  // namespace acuity::kernels
