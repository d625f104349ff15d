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

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows, int64_t dim,
             float* out, const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  ForEachRow(rows, dim, parallel, [&](int64_t row) {
    kernels.rms_norm(x + row * dim, weight, epsilon, dim, out + row * dim);
  });
}

void SiluMul(const float* gate_up, int64_t rows, int64_t dim, float* out,
             const ParallelFor& parallel) {
  const LayerOpsKernels& kernels = Active();
  ForEachRow(rows, 2 * dim, parallel, [&](int64_t row) {
    const float* gate = gate_up + row * 2 * dim;
    kernels.silu_mul(gate, gate + dim, dim, out + row * dim);
  });
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
