// Marks functions that kernels run on both sides.
#pragma once

#ifdef __CUDACC__
#define ACUITY_HOST_DEVICE __host__ __device__
#else
#define ACUITY_HOST_DEVICE
#endif
