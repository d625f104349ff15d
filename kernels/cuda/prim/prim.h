// What a CUDA kernel of this project may use, and nothing else: the contract between the kernels'
// sources (*.cuh) and two machines that run them. nvcc takes cuda.h (PTX, sm_80 and later); any
// other compiler takes host.h, which runs every CUDA thread as a fiber, so that the same source is
// tested on every build without a GPU.
//
// A kernel is a struct of static members:
//
//   struct Example {
//     struct Args { const float* x; float* y; int n; };    // trivially copyable, passed by value
//     static constexpr int kThreads = 128;                 // of a block: a multiple of 32, one row
//     static constexpr int kMinBlocksPerSm = 2;            // for the register allocator
//     ACUITY_DEVICE static void Run(const Args& args);     // what each thread does
//   };
//   if (const char* error = Launch<Example>({blocks, 1, 1}, shared_bytes, args, stream)) ...
//
// Rules, which host.h enforces where it says "checked":
// - Every function below marked `warp` is called by all 32 lanes of a warp at the same place
//   (checked); BlockSync by all threads of the block (checked). A thread that returned takes part
//   in nothing any more (checked).
// - A warp's lanes and a block's warps are in no order except through WarpSync, BlockSync and
//   WaitCopies; shuffles, votes and mma exchange registers but do not order shared memory. Two
//   accesses of shared memory that are not ordered, one of them a write, are an error (checked, for
//   accesses through Shared).
// - Shared memory holds garbage (NaN) at the start. Accesses are aligned to their size and inside
//   the launch's shared_bytes (checked). Copies in flight own their destination.
// - Blocks of a launch are in no order and may only meet through atomics.
// - No static storage, no exceptions, no destructors that matter, no allocation.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/dtype.h"

#ifdef __CUDACC__
#define ACUITY_DEVICE __device__ __forceinline__
#define ACUITY_UNROLL _Pragma("unroll")
#define ACUITY_NO_UNROLL _Pragma("unroll 1")
#else
#define ACUITY_DEVICE inline
#define ACUITY_UNROLL
#define ACUITY_NO_UNROLL
#endif

namespace acuity::kernels::prim {

inline constexpr int kWarpSize = 32;

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

// A cudaStream_t; null is the default one, where the emulation runs at once (or: host_stream.h).
using Stream = void*;

// 16 bytes that are loaded, stored and copied as one.
struct alignas(16) Bits128 {
  uint32_t word[4];
};

// ---- Fragments of mma.m16n8k16; lane = 4 g + t, g in [0, 8), t in [0, 4) ----
// A word holds two 16-bit elements, the lower index in the lower half.

// A [16 x 16]: word 0 is (row g, columns 2t, 2t+1), 1 is (g+8, same), 2 is (g, 2t+8, 2t+9), 3 is
// (g+8, 2t+8, 2t+9).
struct FragmentA {
  uint32_t word[4];
};
// B [16 x 8]: word 0 is (rows 2t, 2t+1; column g), 1 is (rows 2t+8, 2t+9; column g).
struct FragmentB {
  uint32_t word[2];
};
// C [16 x 8] in float32: 0 and 1 are (row g; columns 2t, 2t+1), 2 and 3 are (row g+8; same).
struct FragmentC {
  float value[4];
};

// ---- Shared memory ----

// A typed address in the block's shared memory. `p[i]` is a T& on a GPU and a checked reference in
// the emulation: read it into a T, assign to it, or both.
template <typename T>
class Shared;

// The block's dynamic shared memory, aligned to 1024 bytes.
template <typename T>
ACUITY_DEVICE Shared<T> SharedMemory();

// ---- Where a thread is ----

ACUITY_DEVICE int ThreadIndex();  // in the block
ACUITY_DEVICE Dim3 BlockIndex();
ACUITY_DEVICE Dim3 GridSize();  // in blocks
ACUITY_DEVICE int LaneIndex();  // ThreadIndex() % 32
ACUITY_DEVICE int WarpIndex();  // ThreadIndex() / 32, known to be the same in all lanes

// ---- Order ----

ACUITY_DEVICE void BlockSync();  // __syncthreads
ACUITY_DEVICE void WarpSync();   // warp; __syncwarp

// ---- Warp exchanges: `T` has 4 bytes ----

template <typename T>
ACUITY_DEVICE T Shuffle(T value, int from_lane);  // warp
template <typename T>
ACUITY_DEVICE T ShuffleXor(T value, int lane_mask);  // warp
ACUITY_DEVICE uint32_t Ballot(bool value);           // warp; bit i is lane i's

// ---- Tensor cores ----

// warp; four 8 x 8 matrices of 16-bit elements. Lane 8 j + i passes the address of row i of matrix
// j, 16 bytes aligned to 16. word[j] is then (row g; columns 2t, 2t+1) of matrix j; Transposed:
// (rows 2t, 2t+1; column g).
ACUITY_DEVICE void LoadMatrix4(Shared<const uint16_t> row, uint32_t (&word)[4]);
ACUITY_DEVICE void LoadMatrix4Transposed(Shared<const uint16_t> row, uint32_t (&word)[4]);

// warp; c += a b for elements of kBFloat16 or kFloat16. The GPU's order and width of the sixteen
// additions are not specified; the emulation adds exact products in float32, by ascending k.
template <DType kType>
ACUITY_DEVICE void Mma(FragmentC& c, const FragmentA& a, const FragmentB& b);

// Two floats rounded to nearest, `low` in the lower half.
template <DType kType>
ACUITY_DEVICE uint32_t Pack(float low, float high);
// And back, exactly.
template <DType kType>
ACUITY_DEVICE void Unpack(uint32_t word, float& low, float& high);

// ---- Asynchronous copies, global to shared memory (cp.async) ----

// Copies 16 bytes, or writes 16 zero bytes if not `valid` (`from` is then not read). The bytes are
// there once WaitCopies covered them, for this thread; for others after a BlockSync behind that.
ACUITY_DEVICE void CopyAsync(Shared<Bits128> to, const void* from, bool valid);
// Closes this thread's current group of copies, be it empty.
ACUITY_DEVICE void CommitCopies();
// Waits until at most the last kPending groups are in flight.
template <int kPending>
ACUITY_DEVICE void WaitCopies();

// ---- Global memory ----

ACUITY_DEVICE Bits128 Load128(const void* from);  // aligned to 16
ACUITY_DEVICE void Store128(void* to, const Bits128& bits);
// Relaxed and device-wide; integer sums do not depend on the order. Returns the value before.
ACUITY_DEVICE int32_t AtomicAdd(int32_t* to, int32_t value);
ACUITY_DEVICE uint64_t AtomicAdd(uint64_t* to, uint64_t value);

// ---- Arithmetic of the special function unit ----
// Within 2 ulp over the ranges that attention uses; subnormal results are 0 (checked by tests).

ACUITY_DEVICE float Exp2(float x);
ACUITY_DEVICE float Log2(float x);
ACUITY_DEVICE float Reciprocal(float x);
ACUITY_DEVICE float Max(float x, float y);                        // the other one if one is NaN
ACUITY_DEVICE float FusedMultiplyAdd(float x, float y, float z);  // x y + z, rounded once
ACUITY_DEVICE float Multiply(float x, float y);  // rounded: never fused with an addition

// ---- Launch (host code) ----

// Runs Kernel::Run on grid x Kernel::kThreads threads. Null, or a static sentence that says why it
// could not start; what goes wrong later is reported by the stream's next synchronisation (the
// emulation reports it here). An empty grid is no error and runs nothing.
template <typename Kernel>
[[nodiscard]] const char* Launch(Dim3 grid, int shared_bytes, const typename Kernel::Args& args,
                                 Stream stream);

}  // namespace acuity::kernels::prim

#ifdef __CUDACC__
#include "kernels/cuda/prim/cuda.h"
#else
#include "kernels/cuda/prim/host.h"
#endif
