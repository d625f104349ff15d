// What a kernel for sm_90a may use beyond prim.h: barriers in shared memory that copies arrive at,
// and matrix products that a warpgroup starts and waits for. The same contract for the same two
// machines; what the emulation checks, it says here.
//
// Kernels of this kind order accesses of shared memory by barriers between some of the warps, not
// by BlockSync. The emulation follows what each warp has come to know by Arrive, WaitBarrier,
// WarpgroupSync and WaitProducts, so that an access that no chain of those orders is found by any
// schedule that runs it (checked).
//
// Sources: PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions",
// "mbarrier" and "Async proxy".
#pragma once

#include <cstdint>

#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::prim {

// Four warps, the first a multiple of four. `warpgroup` below: all 128 lanes at the same place
// (checked).
inline constexpr int kWarpgroupWarps = 4;
inline constexpr int kWarpgroupSize = kWarpgroupWarps * kWarpSize;

// ---- Barriers in shared memory (mbarrier): 8 bytes each ----
// A barrier counts arrivals. The last one of a phase completes it and begins the next; phases are
// counted from 0.

// By one thread; for others after a BlockSync (checked).
ACUITY_DEVICE void InitBarrier(Shared<uint64_t> barrier, int arrivals);
// warp; one arrival. What the warp did before comes before what others do after their wait.
ACUITY_DEVICE void Arrive(Shared<uint64_t> barrier);
// warp; 32 arrivals, each once all that its lane started with CopyAsync is there, who does not wait
// (cp.async.mbarrier.arrive.noinc). CommitCopies is not for these copies.
ACUITY_DEVICE void ArriveWhenCopied(Shared<uint64_t> barrier);
// warp; until the latest phase of this parity is complete: at once if a phase of the other one is
// under way, and so at once for parity 1 of a new barrier.
ACUITY_DEVICE void WaitBarrier(Shared<uint64_t> barrier, uint32_t parity);

// warpgroup; what __syncthreads is to a block.
ACUITY_DEVICE void WarpgroupSync();

// warp; products read shared memory by another path (the async proxy). They see what the warp
// wrote, and what it knows of through barriers, once it has called this (checked).
ACUITY_DEVICE void FenceAsyncProxy();

// warpgroup; the registers that each of its threads may use from here on, a multiple of 8 in
// [24, 256]: fewer, or as many more as the others gave back. The emulation has enough.
template <int kRegisters>
ACUITY_DEVICE void GiveBackRegisters();
template <int kRegisters>
ACUITY_DEVICE void TakeRegisters();

// ---- Products (wgmma): D [64 x columns] (+)= A [64 x 16] B [16 x columns] ----
// Warp w of the group holds rows 16 w on: of A as a FragmentA, of D as columns / 8 FragmentC.
//
// In shared memory a matrix is panels of 64 elements, 128 bytes, by any number of rows: row r of a
// panel begins r * 128 bytes behind it, and bits 4 to 6 of an element's address are XORed with
// bits 7 to 9 (128-byte swizzle): 16-byte chunk c of row r lies at c ^ (r & 7). A panel begins at
// a multiple of 1024 bytes of the block's shared memory.

// Chunk c of row r of a matrix whose panels have `rows` rows: in elements from its beginning.
constexpr int PanelOffset(int rows, int r, int c) {
  return (c / 8 * rows + r) * 64 + ((c ^ r) & 7) * 8;
}

// Where a product begins to read: a byte of the block's shared memory, as the instruction takes it.
// `panel_bytes`: from a panel to the next; used only for B of MultiplyAdd.
ACUITY_DEVICE uint64_t MatrixAt(Shared<const uint16_t> start, int panel_bytes);
// Its fields: address, from panel to panel ("leading") and from eight rows to the next ("stride"),
// in units of 16 bytes; 1 for the 128-byte swizzle.
constexpr uint64_t EncodeMatrix(uint32_t address, int panel_bytes) {
  return ((address >> 4) & 0x3fff) | static_cast<uint64_t>(panel_bytes >> 4) << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
// The same, `bytes` further on, a multiple of 16.
constexpr uint64_t Advance(uint64_t matrix, int bytes) {
  return matrix + static_cast<uint64_t>(bytes >> 4);
}

// warpgroup; starts D = A B^T, or D += A B^T. `a`: 64 rows of 16 elements, `b`: `columns` rows of
// 16, each within a panel.
template <DType kType, int kColumns>
ACUITY_DEVICE void Multiply(FragmentC (&d)[kColumns / 8], uint64_t a, uint64_t b, bool add);
// warpgroup; starts D += A B. `b`: 16 rows of `columns` elements, over one panel or several.
template <DType kType, int kColumns>
ACUITY_DEVICE void MultiplyAdd(FragmentC (&d)[kColumns / 8], const FragmentA& a, uint64_t b);

// Registers that products read or write (`a` and `d` above; arrays of fragments) stay where they
// are, untouched, from the product's start to WaitProducts (checked). FenceProducts comes between
// code that used them and the first product behind it (checked); both name those that it concerns.
template <typename... Fragments>
ACUITY_DEVICE void FenceProducts(Fragments&... fragments);  // warpgroup
// Closes the warpgroup's current group of products.
ACUITY_DEVICE void CommitProducts();  // warpgroup
// Waits until at most the last kPending groups are under way.
template <int kPending, typename... Fragments>
ACUITY_DEVICE void WaitProducts(Fragments&... fragments);  // warpgroup

}  // namespace acuity::kernels::prim

#ifdef __CUDACC__
#include "kernels/cuda/prim/warpgroup_cuda.h"
#else
#include "kernels/cuda/prim/warpgroup_host.h"
#endif
