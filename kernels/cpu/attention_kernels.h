// Between attention.cc, which is compiled for every machine, and the per-ISA translation units.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/attention_stats.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/isa.h"

namespace acuity::kernels {

// What a task needs to know about one packed row.
struct PackedRow {
  float scale;                 // log2(e) * RowScale * softmax_scale: c_i
  int32_t key_begin, key_end;  // the keys it sees, absolute
};

// One thread's scratch memory; every array is aligned to 64 bytes and has at least the size noted.
// R = packed rows of a tile.
struct AttentionScratch {
  PackedRow* rows;      // [R]
  SoftmaxState* part;   // [R] of the current split
  SoftmaxState* total;  // [R] of the splits before it
  float* q;             // [R, head_dim]
  float* part_out;      // [R, head_dim] not yet divided by l
  float* total_out;     // [R, head_dim]
  float* logits;        // [R, kKeyTile], then probabilities
  float* k_tile;        // [head_dim / panel, head_dim, panel] packed: keys side by side
  float* v_tile;        // [head_dim / panel, kKeyTile, panel] packed: dimensions side by side
};

// The functions of one instruction set. `rows` of the scratch is filled by the caller.
struct AttentionKernels {
  void (*run_task)(const AttentionParams& params, const AttentionTask& task,
                   const AttentionScratch& scratch, float* workspace);
  void (*run_merge)(const AttentionParams& params, const MergeTask& merge, float* workspace);
};

extern const AttentionKernels kAttentionPortable;
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;

// Those of an instruction set, which the machine must have to run them.
const AttentionKernels& AttentionKernelsOf(Isa isa);

// RunAttention with chosen functions.
void RunAttentionWith(const AttentionKernels& kernels, const AttentionParams& params,
                      const AttentionPlan& plan, float* workspace, const ParallelFor& parallel);

}  // namespace acuity::kernels
