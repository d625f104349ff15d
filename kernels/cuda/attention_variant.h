// What the CUDA attention kernels are compiled for, and how their work is cut. Shared by the
// planner, the kernels and the launch table.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/dtype.h"

namespace acuity::kernels::cuda {

// A bug planted by the tests, to show that they would see it; kNone in every kernel that ships.
enum class Mutation : uint8_t {
  kNone,
  kNoScaleClamp,     // a scale of 0 times a masked logit is 0: masked keys count
  kNoSignFold,       // the maximum of unscaled logits under a negative scale
  kNoMovedMaximum,   // T <- a T + ..., without D l
  kSwappedMatrices,  // ldmatrix addresses of the wrong lanes
  kMissingBarrier,
  kMissingCopyWait,
  // Of 8-bit pages only.
  kWrongOrder,     // elements in the order that widening leaves, taken for their own
  kUnitForgotten,  // logits of keys as they are multiplied, 2^-8 their value
  // Of the kernel on warpgroups only.
  kNoFreeWait,      // tiles overwritten without asking
  kNoFullWait,      // tiles read before their copies landed
  kWrongParity,     // of the wait for a tile
  kWrongArrivals,   // a barrier that expects one copying warp less
  kEarlyRelease,    // a tile given back before the product that reads it is done
  kNoProductWait,   // logits used before their product is done
  kNoProductFence,  // products of registers just written
  kNoProxyFence,    // products of shared memory just written
  kNoQueryBarrier,  // queries read before the other warps wrote theirs
  kWrongSwizzle,    // of what a product reads
  kPlainCopy,       // tiles written without any
  kWrongPanel,      // from one panel of V to the next
};

// One compiled kernel. Everything else (causal or windowed, sinks, group, page size, policy) is
// known at run time only: per row or per tile, never per logit.
struct Variant {
  int head_dim = 128;             // 64, 128, 256
  DType type = DType::kBFloat16;  // of K and V: or kFloat16, or kFloat8
  bool stats = true;              // T accumulated and RowStats written
  bool softcap = false;           // logits go through cap * tanh(z / cap)
  Mutation mutation = Mutation::kNone;
  bool widened = false;  // 8-bit tiles became float16 before products read them
};
constexpr Variant Widened(Variant variant) {
  variant.widened = true;
  return variant;
}

// Of the products' operands. 8-bit elements become float16 in registers (float8.cuh), 2^-8 their
// value; what undoes that is one multiplication a row, of the logits' scale and of the output's
// factor.
constexpr DType OperandOf(DType pages) { return pages == DType::kFloat8 ? DType::kFloat16 : pages; }
// Of tiles as products read them from shared memory.
constexpr DType TileType(const Variant& variant) {
  return variant.widened ? OperandOf(variant.type) : variant.type;
}
constexpr float UnitOf(DType pages) { return pages == DType::kFloat8 ? 256 : 1; }

// Rows of the matrix products that one warp owns: mma's M.
inline constexpr int kWarpRows = 16;
// Keys per step of the online softmax, at absolute multiples.
inline constexpr int kTileKeys = 64;

// Decoding: up to 16 packed rows (row x head of the group) and one split of the keys a block; its
// four warps take 16 keys of every tile each, which a page always holds whole.
inline constexpr int kDecodeRows = kWarpRows;
inline constexpr int kDecodeWarps = 4;
inline constexpr int kStripKeys = kTileKeys / kDecodeWarps;
// Keys are split at absolute multiples of this. 512 keys of head_dim 128 are 256 KiB, some 11 us
// of one SM's share of an H100's memory; a partial result written and read is below 1/16 of that.
inline constexpr int kDecodeSplitKeys = 512;

// Prefill: up to 64 packed rows a block, 16 a warp, all against the same tile of keys.
inline constexpr int kPrefillWarps = 4;
inline constexpr int kPrefillRows = kPrefillWarps * kWarpRows;
// Where fewer blocks than this would run, long key ranges are split: half of an H100's 132 SMs.
inline constexpr int kMinPrefillTasks = 64;
inline constexpr int kPrefillSplitKeys = 1024;

// Prefill on sm_90a: two warpgroups of 64 packed rows each against tiles of 128 keys that a third
// one copies.
inline constexpr int kConsumers = 2;
inline constexpr int kConsumerRows = 64;
inline constexpr int kWarpgroupPrefillRows = kConsumers * kConsumerRows;
inline constexpr int kWarpgroupTileKeys = 128;
inline constexpr int kWarpgroupStages = 2;
// Queries, then the stages of K, then those of V, then a barrier for "full" and one for "free" of
// each: 160 KiB at head_dim 128.
constexpr int WarpgroupPrefillSharedBytes(int head_dim) {
  return (kWarpgroupPrefillRows + 2 * kWarpgroupStages * kWarpgroupTileKeys) * head_dim * 2 +
         4 * kWarpgroupStages * 8;
}

// Tiles in shared memory at once: 64 KiB a block, 128 KiB for head_dim 256; half of that for 8-bit
// pages. Decoding wants bytes in flight; some 32 KiB a SM hide the latency of an H100's memory.
constexpr int DecodeStages(int head_dim) { return head_dim == 64 ? 4 : head_dim == 128 ? 3 : 2; }
inline constexpr int kPrefillStages = 2;

constexpr int TileBytes(int head_dim, DType type) {  // K and V
  return 2 * kTileKeys * head_dim * static_cast<int>(SizeOf(type));
}
// head_dim 256 keeps each warp's queries in shared memory, behind the ring of tiles.
constexpr int QueryBytes(int head_dim, int warps) {
  return head_dim > 128 ? warps * kWarpRows * head_dim * 2 : 0;
}
constexpr int DecodeRingBytes(int head_dim, DType type) {
  return DecodeStages(head_dim) * TileBytes(head_dim, type);
}
// 8-bit pages: one tile as it was copied, and one widened.
constexpr int PrefillRingBytes(int head_dim, DType type) {
  return type == DType::kFloat8 ? TileBytes(head_dim, type) + TileBytes(head_dim, OperandOf(type))
                                : kPrefillStages * TileBytes(head_dim, type);
}
constexpr int DecodeSharedBytes(int head_dim, DType type) {
  return DecodeRingBytes(head_dim, type) + QueryBytes(head_dim, kDecodeWarps);
}
constexpr int PrefillSharedBytes(int head_dim, DType type) {
  return PrefillRingBytes(head_dim, type) + QueryBytes(head_dim, kPrefillWarps);
}

// A workspace slot: m, l, t, peak, then the output before division by l, all relative to 2^m. peak
// is 2^(greatest logit - m): 1, but for the rounding of m.
inline constexpr int kSlotStateFloats = 4;
constexpr int64_t SlotFloats(int head_dim) { return kSlotStateFloats + head_dim; }

// What every attention kernel is launched with. All pointers, those in params too, are the
// device's.
struct AttentionArgs {
  AttentionParams params;
  const AttentionTask* tasks = nullptr;  // block i runs tasks[i]
  const MergeTask* merges = nullptr;     // block i merges merges[i]
  const int32_t* count = nullptr;        // of them; blocks beyond it do nothing
  float* workspace = nullptr;
  int page_shift = 0;  // log2 of the page size
};

}  // namespace acuity::kernels::cuda
