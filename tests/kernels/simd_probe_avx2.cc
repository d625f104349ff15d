#include "tests/kernels/simd_probe_impl.h"

namespace acuity::kernels {

const SimdProbe kSimdAvx2 = kProbe;

}  // namespace acuity::kernels
