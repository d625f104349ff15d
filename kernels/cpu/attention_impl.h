// The CPU attention kernel, once for every instruction set. Include only from per-ISA translation
// units (see simd.h): nothing here may emit a linkable copy of a function that other units share.
//
// For a task, over absolute tiles of kKeyTile keys:
//   logits[r, j] = sum_d q[r, d] k[j, d]            K packed once per tile for all rows
//   z = c_r logits (softcap, mask), m, l, t         see attention_stats.h
//   out[r, d] = a out[r, d] + sum_j p[r, j] v[j, d]
// restarted and merged at absolute multiples of kSplitKeys.
#pragma once

#include "kernels/cpu/attention_blocks.h"
#include "kernels/cpu/attention_direct.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/simd.h"

namespace acuity::kernels {
namespace {

inline int SmallerOf(int a, int b) { return a < b ? a : b; }
inline int LargerOf(int a, int b) { return a > b ? a : b; }

inline TileRange VisibleInTile(const PackedRow& row, int tile_begin) {
  return {LargerOf(row.key_begin - tile_begin, 0), SmallerOf(row.key_end - tile_begin, kKeyTile)};
}

// Merges the state and output of later keys into those of earlier ones; either may be empty (l = 0,
// output 0).
inline void MergeRow(const SoftmaxState& later, const float* later_out, int head_dim,
                     SoftmaxState& state, float* out) {
  SoftmaxState other = later;
  const float m = state.m > other.m ? state.m : other.m;
  const float a = Rescale(state, m), b = Rescale(other, m);
  state.l += other.l;
  state.t += other.t;
  for (int d = 0; d < head_dim; d += kLanes) {
    const Vec scaled = Load(later_out + d) * Broadcast(b);
    Store(out + d, MulAdd(Load(out + d), Broadcast(a), scaled));
  }
}

// Divides by l, a sink's share included, and writes the row of packed index `packed` of the task.
template <typename Task>
inline void FinishRow(const AttentionParams& params, const Task& task, int packed,
                      const SoftmaxState& state, const float* from) {
  const AttentionShape& shape = params.shape;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int64_t row = params.batch.qo_indptr[task.seq] + task.row_begin + packed / group;
  const int head = task.kv_head * group + packed % group;
  SoftmaxState with_sink = state;
  float numerator = 1;
  if (params.sinks != nullptr) {
    const float sink = params.sinks[head] * kLog2E;
    const float m = sink > state.m ? sink : state.m;
    numerator = Rescale(with_sink, m);
    SoftmaxState alone = {sink, 1, 0};
    Rescale(alone, m);
    with_sink.l += alone.l;
  }
  const Vec factor = Broadcast(with_sink.l == 0 ? 0.0f : numerator / with_sink.l);
  float* out = params.out + row * params.out_stride + static_cast<int64_t>(head) * shape.head_dim;
  for (int d = 0; d < shape.head_dim; d += kLanes) Store(out + d, Load(from + d) * factor);
  if (params.stats != nullptr) params.stats[row * shape.num_heads + head] = Finalise(state);
}

// One task's walk over its keys. kHeadDim 0: known at run time only.
template <int kHeadDim, bool kStats>
class TaskRunner {
 public:
  TaskRunner(const AttentionParams& params, const AttentionTask& task,
             const AttentionScratch& scratch, float* workspace)
      : params_(params),
        task_(task),
        scratch_(scratch),
        workspace_(workspace),
        group_(params.shape.num_heads / params.shape.num_kv_heads),
        packed_rows_((task.row_end - task.row_begin) * group_) {}

  void Run() {
    GatherQueries();
    bool first = true;
    for (int begin = task_.key_begin; begin < task_.key_end; first = false) {
      const int end = SmallerOf(task_.key_end, (begin / kSplitKeys + 1) * kSplitKeys);
      RunSplit(begin, end);
      if (first) {
        TakeFirstSplit();
      } else {
        MergeSplit();
      }
      begin = end;
    }
    for (int r = 0; r < packed_rows_; ++r) Emit(r);
  }

 private:
  int head_dim() const { return kHeadDim > 0 ? kHeadDim : params_.shape.head_dim; }

  // Rows of a group side by side: packed row = (row - row_begin) * group + head in group.
  void GatherQueries() {
    float* to = scratch_.q;
    const int64_t first_row = params_.batch.qo_indptr[task_.seq];
    for (int row = task_.row_begin; row < task_.row_end; ++row) {
      const float* from = params_.q + (first_row + row) * params_.q_stride +
                          static_cast<int64_t>(task_.kv_head) * group_ * head_dim();
      const int n = group_ * head_dim();
      for (int i = 0; i < n; i += kLanes) Store(to + i, Load(from + i));
      to += n;
    }
  }

  void RunSplit(int begin, int end) {
    for (int r = 0; r < packed_rows_; ++r) scratch_.part[r] = {kMinusInfinity, 0, 0};
    const int floats = packed_rows_ * head_dim();
    for (int i = 0; i < floats; i += kLanes) Store(scratch_.part_out + i, Vec{});
    for (int tile = begin / kKeyTile * kKeyTile; tile < end; tile += kKeyTile) {
      if (params_.shape.kv_dtype == DType::kFloat32) {
        RunTile<float>(tile, begin, end);
      } else if (params_.shape.kv_dtype == DType::kBFloat16) {
        RunTile<uint16_t>(tile, begin, end);
      } else {
        RunTile<uint8_t>(tile, begin, end);
      }
    }
  }

  // Where the keys and values of a tile are.
  template <typename T>
  struct TilePointers {
    const T* keys[kKeyTile];
    const T* values[kKeyTile];
  };

  // Keys outside [begin, end) may lie in pages that are free, or not be written yet: they are not
  // read.
  template <typename T>
  void Locate(int tile, int begin, int end, TilePointers<T>& at) {
    const AttentionShape& shape = params_.shape;
    const int32_t* table = params_.batch.block_tables +
                           static_cast<int64_t>(task_.seq) * params_.batch.block_table_stride;
    const int shift = __builtin_ctz(static_cast<unsigned>(shape.block_size));
    for (int i = 0; i < kKeyTile; ++i) {
      const int key = tile + i;
      at.keys[i] = at.values[i] = reinterpret_cast<const T*>(kZeroRow);
      if (key < begin || key >= end) continue;
      const int64_t page = static_cast<int64_t>(table[key >> shift]) * shape.num_kv_heads;
      const int64_t slot = ((page + task_.kv_head) << shift) + (key & (shape.block_size - 1));
      at.keys[i] = static_cast<const T*>(params_.k_pages) + slot * head_dim();
      at.values[i] = static_cast<const T*>(params_.v_pages) + slot * head_dim();
    }
  }

  template <typename T>
  void RunTile(int tile, int begin, int end) {
    TilePointers<T> at;
    Locate(tile, begin, end, at);
    if (packed_rows_ <= kDirectRows) return RunDirect(tile, at);
    PackKeys(at.keys, head_dim(), scratch_.k_tile);
    PackValues(at.values, head_dim(), scratch_.v_tile);
    RunPacked(tile);
  }

  // The keys of a tile that any of rows [r, r + rows) sees. Rows ascend, so do their ranges.
  TileRange VisibleToAny(int tile, int r, int rows) const {
    return {VisibleInTile(scratch_.rows[r], tile).begin,
            VisibleInTile(scratch_.rows[r + rows - 1], tile).end};
  }

  template <typename T>
  void RunDirect(int tile, const TilePointers<T>& at) {
    const TileRange any = VisibleToAny(tile, 0, packed_rows_);
    if (any.empty()) return;
    WithRows(packed_rows_, [&]<int kRows>() {
      DirectLogits<kRows>(at.keys, any.begin, any.end, head_dim(), scratch_.q, scratch_.logits);
    });
    RunSoftmax(tile, 0, packed_rows_);
    WithRows(packed_rows_, [&]<int kRows>() {
      DirectOutput<kRows>(at.values, any.begin, any.end, head_dim(), scratch_.logits,
                          scratch_.part_out);
    });
  }

  void RunPacked(int tile) {
    for (int r = 0; r < packed_rows_; r += kBlockRows) {
      const int rows = SmallerOf(kBlockRows, packed_rows_ - r);
      const TileRange any = VisibleToAny(tile, r, rows);
      if (any.empty()) continue;
      RunLogits(r, rows);
      RunSoftmax(tile, r, rows);
      RunOutput(r, rows, any);
    }
  }

  void RunLogits(int r, int rows) {
    RowBlock<false>(rows, kKeyTile,
                    {scratch_.q + r * head_dim(), head_dim(), scratch_.k_tile, kPanel * head_dim(),
                     scratch_.logits + r * kKeyTile, kKeyTile, head_dim()});
  }

  void RunSoftmax(int tile, int begin, int rows) {
    for (int r = begin; r < begin + rows; ++r) {
      const TileRange visible = VisibleInTile(scratch_.rows[r], tile);
      float* logits = scratch_.logits + r * kKeyTile;
      float* out = scratch_.part_out + r * head_dim();
      const float scale = scratch_.rows[r].scale, cap = params_.logit_softcap;
      SoftmaxState& state = scratch_.part[r];
      if (visible.full()) {
        SoftmaxTile<false, kStats>(scale, cap, visible, head_dim(), logits, state, out);
      } else if (visible.empty()) {
        for (int i = 0; i < kKeyTile; i += kLanes) Store(logits + i, Vec{});
      } else {
        SoftmaxTile<true, kStats>(scale, cap, visible, head_dim(), logits, state, out);
      }
    }
  }

  // Probabilities outside `any` are 0 and change no bit.
  void RunOutput(int r, int rows, TileRange any) {
    const int width = head_dim();
    BlockArgs args = {scratch_.logits + r * kKeyTile + any.begin,
                      kKeyTile,
                      scratch_.v_tile,
                      kPanel * kKeyTile,
                      scratch_.part_out + r * width,
                      width,
                      any.end - any.begin};
    const int wide = width / kPanel * kPanel;
    args.b += any.begin * kPanel;
    RowBlock<true>(rows, wide, args);
    if (wide == width) return;
    args.b = scratch_.v_tile + wide * kKeyTile + any.begin * (width - wide);
    args.c += wide;
    RowBlock<true>(rows, width - wide, args);
  }

  void TakeFirstSplit() {
    for (int r = 0; r < packed_rows_; ++r) scratch_.total[r] = scratch_.part[r];
    const int floats = packed_rows_ * head_dim();
    for (int i = 0; i < floats; i += kLanes) {
      Store(scratch_.total_out + i, Load(scratch_.part_out + i));
    }
  }

  void MergeSplit() {
    for (int r = 0; r < packed_rows_; ++r) {
      MergeRow(scratch_.part[r], scratch_.part_out + r * head_dim(), head_dim(), scratch_.total[r],
               scratch_.total_out + r * head_dim());
    }
  }

  // To the output, or to the workspace slot of the row.
  void Emit(int r) {
    const float* out = scratch_.total_out + r * head_dim();
    if (task_.split_slot < 0) return FinishRow(params_, task_, r, scratch_.total[r], out);
    float* slot =
        workspace_ + static_cast<int64_t>(task_.split_slot + r) * (kSlotStateFloats + head_dim());
    slot[0] = scratch_.total[r].m;
    slot[1] = scratch_.total[r].l;
    slot[2] = scratch_.total[r].t;
    for (int d = 0; d < head_dim(); d += kLanes) Store(slot + kSlotStateFloats + d, Load(out + d));
  }

  const AttentionParams& params_;
  const AttentionTask& task_;
  const AttentionScratch& scratch_;
  float* const workspace_;
  const int group_;
  const int packed_rows_;
};

template <int kHeadDim>
void RunTaskOf(const AttentionParams& params, const AttentionTask& task,
               const AttentionScratch& scratch, float* workspace) {
  if (params.stats != nullptr) {
    TaskRunner<kHeadDim, true>(params, task, scratch, workspace).Run();
  } else {
    TaskRunner<kHeadDim, false>(params, task, scratch, workspace).Run();
  }
}

void RunTask(const AttentionParams& params, const AttentionTask& task,
             const AttentionScratch& scratch, float* workspace) {
  switch (params.shape.head_dim) {
    case 64:
      return RunTaskOf<64>(params, task, scratch, workspace);
    case 128:
      return RunTaskOf<128>(params, task, scratch, workspace);
    default:
      return RunTaskOf<0>(params, task, scratch, workspace);
  }
}

// Adds up the partial results of each row, in place in its first slot.
void RunMerge(const AttentionParams& params, const MergeTask& merge, float* workspace) {
  const AttentionShape& shape = params.shape;
  const int packed_rows =
      (merge.row_end - merge.row_begin) * (shape.num_heads / shape.num_kv_heads);
  const int64_t slot_floats = kSlotStateFloats + shape.head_dim;
  for (int r = 0; r < packed_rows; ++r) {
    float* first = workspace + (merge.first_slot + r) * slot_floats;
    SoftmaxState state = {first[0], first[1], first[2]};
    for (int p = 1; p < merge.num_slots; ++p) {
      const float* slot = first + p * packed_rows * slot_floats;
      MergeRow({slot[0], slot[1], slot[2]}, slot + kSlotStateFloats, shape.head_dim, state,
               first + kSlotStateFloats);
    }
    FinishRow(params, merge, r, state, first + kSlotStateFloats);
  }
}

}  // namespace
}  // namespace acuity::kernels
