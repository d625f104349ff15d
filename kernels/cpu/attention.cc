#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/attention.h"
#include "kernels/cpu/attention_kernels.h"

namespace acuity::kernels {
namespace {

constexpr size_t kAlignment = 64;

// Hands out aligned arrays from one block of memory; without a block it only measures.
class Arena {
 public:
  explicit Arena(std::byte* base) : base_(base) {}

  template <typename T>
  T* Take(size_t count) {
    T* result = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return result;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

AttentionScratch Layout(const AttentionShape& shape, Arena& arena) {
  const size_t rows = static_cast<size_t>(RowsPerTile(shape)) * GroupSize(shape);
  const size_t dim = shape.head_dim;
  AttentionScratch scratch;
  scratch.rows = arena.Take<PackedRow>(rows);
  scratch.part = arena.Take<SoftmaxState>(rows);
  scratch.total = arena.Take<SoftmaxState>(rows);
  scratch.q = arena.Take<float>(rows * dim);
  scratch.part_out = arena.Take<float>(rows * dim);
  scratch.total_out = arena.Take<float>(rows * dim);
  scratch.logits = arena.Take<float>(rows * kKeyTile);
  scratch.k_tile = arena.Take<float>(kKeyTile * dim);
  scratch.v_tile = arena.Take<float>(kKeyTile * dim);
  return scratch;
}

// Grows to the largest shape that the thread has met and stays there: a steady state allocates
// nothing.
AttentionScratch ThreadScratch(const AttentionShape& shape) {
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<std::byte, Free> memory;
  thread_local size_t capacity = 0;
  Arena measure(nullptr);
  Layout(shape, measure);
  if (measure.used() > capacity) {
    memory.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, measure.used())));
    if (memory == nullptr) throw std::bad_alloc();
    capacity = measure.used();
  }
  Arena arena(memory.get());
  return Layout(shape, arena);
}

void FillRows(const AttentionParams& params, const AttentionTask& task, PackedRow* rows) {
  const RaggedBatch& batch = params.batch;
  const int group = GroupSize(params.shape);
  const int32_t new_rows = batch.qo_indptr[task.seq + 1] - batch.qo_indptr[task.seq];
  const int32_t first_position = batch.kv_len[task.seq] - new_rows;
  for (int32_t row = task.row_begin; row < task.row_end; ++row) {
    const int32_t position = first_position + row;
    const int32_t end = position + 1;
    const int32_t begin = params.window > 0 && end > params.window ? end - params.window : 0;
    for (int g = 0; g < group; ++g) {
      const int head = task.kv_head * group + g;
      const float scale = RowScale(params.policy, head, end - begin, position);
      *rows++ = {kLog2E * scale * params.softmax_scale, begin, end};
    }
  }
}

}  // namespace

const AttentionKernels& AttentionKernelsOf(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return kAttentionAvx512;
    case Isa::kAvx2:
      return kAttentionAvx2;
    case Isa::kPortable:
      break;
  }
  return kAttentionPortable;
}

void RunAttentionWith(const AttentionKernels& kernels, const AttentionParams& params,
                      const AttentionPlan& plan, float* workspace, const ParallelFor& parallel) {
  parallel(static_cast<int64_t>(plan.tasks.size()), [&](int64_t i) {
    const AttentionScratch scratch = ThreadScratch(params.shape);
    FillRows(params, plan.tasks[i], scratch.rows);
    kernels.run_task(params, plan.tasks[i], scratch, workspace);
  });
  parallel(static_cast<int64_t>(plan.merges.size()),
           [&](int64_t i) { kernels.run_merge(params, plan.merges[i], workspace); });
}

void RunAttention(const AttentionParams& params, const AttentionPlan& plan, float* workspace,
                  const ParallelFor& parallel) {
  RunAttentionWith(AttentionKernelsOf(ActiveIsa()), params, plan, workspace, parallel);
}

}  // namespace acuity::kernels
