// Internal: what one instruction set provides to layer_ops.h. Tests call every table that the
// machine can run.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/layer_ops.h"

namespace acuity::kernels {

struct LayerOpsKernels {
  // One row; arguments as in layer_ops.h.
  void (*norm)(const float* x, const NormParams& params, int64_t dim, float* out) = nullptr;
  // `up` is null without a gate.
  void (*activate)(Activation activation, const float* gate, const float* up, int64_t dim,
                   float* out) = nullptr;
  void (*add_scaled)(const float* x, float scale, int64_t dim, float* y) = nullptr;
  void (*scale_and_cap)(float scale, float cap, int64_t dim, float* x) = nullptr;
  void (*rope_append)(const RopeAppendParams& params, int64_t row) = nullptr;
};

extern const LayerOpsKernels kLayerOpsPortable;
extern const LayerOpsKernels kLayerOpsAvx2;
extern const LayerOpsKernels kLayerOpsAvx512;

const LayerOpsKernels& LayerOpsKernelsFor(Isa isa);

}  // namespace acuity::kernels
