#include "kernels/layer_ops.h"

#include <algorithm>

#include "kernels/cpu/layer_ops_kernels.h"

namespace acuity::kernels {
namespace {

// Floats that a task reads at least: some 10 us of work, against under one to start a region. A few
// decode rows are one task, which runs on the caller's thread.
constexpr int64_t kTaskFloats = int64_t{32} << 10;

// Calls row_function(row) for each row, several to a task.
template <typename Function>
void ForEachRow(int64_t rows, int64_t row_floats, const ParallelFor& parallel,
                Function row_function) {
  if (rows <= 0) return;
  const int64_t per_task = std::max<int64_t>(kTaskFloats / std::max<int64_t>(row_floats, 1), 1);
  parallel((rows + per_task - 1) / per_task, [&](int64_t task) {
    const int64_t end = std::min(rows, (task + 1) * per_task);
    for (int64_t row = task * per_task; row < end; ++row) row_function(row);
  });
}

const LayerOpsKernels& Active() { return LayerOpsKernelsFor(ActiveIsa()); }

}  // namespace

const LayerOpsKernels& LayerOpsKernelsFor(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return kLayerOpsAvx512;
    case Isa::kAvx2:
      return kLayerOpsAvx2;
    case Isa::kPortable:
      break;
  }
  return kLayerOpsPortable;
}

void Norm(const float* x, const NormParams& params, int64_t rows, int64_t dim, float* out,
          const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  ForEachRow(rows, dim, parallel,
             [&](int64_t row) { kernels.norm(x + row * dim, params, dim, out + row * dim); });
}

void NormGroups(float* x, int64_t x_stride, const NormParams& params, bool own_weights,
                int64_t rows, int64_t groups, int64_t dim, const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  ForEachRow(rows, groups * dim, parallel, [&](int64_t row) {
    NormParams group = params;
    for (int64_t g = 0; g < groups; ++g) {
      float* values = x + row * x_stride + g * dim;
      if (own_weights) group.weight = params.weight + g * dim;
      kernels.norm(values, group, dim, values);
    }
  });
}

void Activate(Activation activation, bool gated, const float* in, int64_t rows, int64_t dim,
              float* out, const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  const int64_t width = gated ? 2 * dim : dim;
  ForEachRow(rows, width, parallel, [&](int64_t row) {
    const float* gate = in + row * width;
    kernels.activate(activation, gate, gated ? gate + dim : nullptr, dim, out + row * dim);
  });
}

void AddScaled(const float* x, float scale, int64_t rows, int64_t dim, float* y,
               const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  ForEachRow(rows, dim, parallel,
             [&](int64_t row) { kernels.add_scaled(x + row * dim, scale, dim, y + row * dim); });
}

void ScaleAndCap(float scale, float cap, int64_t rows, int64_t dim, float* x,
                 const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  ForEachRow(rows, dim, parallel,
             [&](int64_t row) { kernels.scale_and_cap(scale, cap, dim, x + row * dim); });
}

void RopeAppend(const RopeAppendParams& params, const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  const AttentionShape& shape = params.shape;
  const int64_t row_floats =
      int64_t{shape.num_heads + 2 * shape.num_kv_heads} * int64_t{shape.head_dim};
  ForEachRow(params.rows, row_floats, parallel,
             [&](int64_t row) { kernels.rope_append(params, row); });
}

}  // namespace acuity::kernels
