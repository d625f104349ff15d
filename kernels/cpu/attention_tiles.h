// How attention is cut on the CPU: shared by the planner and the kernels.
#pragma once

#include <cstdint>

#include "kernels/attention.h"

namespace acuity::kernels {

// Keys per online-softmax step, at absolute multiples: a K tile of head_dim 128 is 32 KiB, so that
// one panel of it stays in L1 and K, V, the rows and their outputs together in L2.
inline constexpr int kKeyTile = 64;

// Every row restarts its online softmax at absolute multiples of this many keys and merges the
// partial results in order, whether one task does that or many: bits do not depend on the tasks.
// 512 keys of head_dim 128 are 256 KiB of bfloat16 K and V: half an L2, tens of microseconds,
// against which handing out a task costs nothing; a merge is 1/512 of the work.
inline constexpr int kSplitKeys = 512;

// Rows x heads of a group that share a packed K and V tile: packing is then below 5 % of the
// multiplications, and the buffers of 96 rows still fit L2. A multiple of the usual group sizes and
// of the register blocks of 4 and 6 rows.
inline constexpr int kPackedRows = 96;

// A sequence that gives fewer (row tile, kv head) tasks than this has its keys split as well.
inline constexpr int kMinTasks = 16;

// Head dims are multiples of this, and at most the second.
inline constexpr int kHeadDimStep = 16;
inline constexpr int kMaxHeadDim = 256;

// Rows of a tile; a group of more than kPackedRows heads makes a tile of one row.
constexpr int RowsPerTile(const AttentionShape& shape) {
  const int rows = kPackedRows / GroupSize(shape);
  return rows > 0 ? rows : 1;
}

// A workspace slot: m, l, t, unused, then the output before division by l.
inline constexpr int kSlotStateFloats = 4;
constexpr int64_t SlotFloats(const AttentionShape& shape) {
  return kSlotStateFloats + shape.head_dim;
}

}  // namespace acuity::kernels
