// prim.h on a GPU: one PTX instruction for most functions. sm_80 and later. Include prim.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::prim {

template <typename T>
class Shared {
 public:
  Shared() = default;
  ACUITY_DEVICE explicit Shared(T* address) : address_(address) {}
  template <typename U, typename = std::enable_if_t<std::is_convertible_v<U*, T*>>>
  ACUITY_DEVICE Shared(Shared<U> other) : address_(other.address()) {}

  ACUITY_DEVICE T& operator[](int i) const { return address_[i]; }
  ACUITY_DEVICE Shared operator+(int i) const { return Shared(address_ + i); }
  // The same address as another type.
  template <typename U>
  ACUITY_DEVICE Shared<U> As() const {
    return Shared<U>(reinterpret_cast<U*>(address_));
  }
  ACUITY_DEVICE T* address() const { return address_; }
  // What PTX calls the shared state space.
  ACUITY_DEVICE uint32_t offset() const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(address_));
  }

 private:
  T* address_;
};

template <typename T>
ACUITY_DEVICE Shared<T> SharedMemory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return Shared<T>(reinterpret_cast<T*>(memory));
}

ACUITY_DEVICE int ThreadIndex() { return static_cast<int>(threadIdx.x); }
ACUITY_DEVICE Dim3 BlockIndex() { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
ACUITY_DEVICE Dim3 GridSize() { return {gridDim.x, gridDim.y, gridDim.z}; }
ACUITY_DEVICE int LaneIndex() { return static_cast<int>(threadIdx.x % kWarpSize); }
ACUITY_DEVICE int WarpIndex() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x / kWarpSize), 0);
}

ACUITY_DEVICE void BlockSync() { __syncthreads(); }
ACUITY_DEVICE void WarpSync() { __syncwarp(); }

template <typename T>
ACUITY_DEVICE T Shuffle(T value, int from_lane) {
  static_assert(sizeof(T) == 4);
  return __shfl_sync(0xffffffffu, value, from_lane);
}
template <typename T>
ACUITY_DEVICE T ShuffleXor(T value, int lane_mask) {
  static_assert(sizeof(T) == 4);
  return __shfl_xor_sync(0xffffffffu, value, lane_mask);
}
ACUITY_DEVICE uint32_t Ballot(bool value) { return __ballot_sync(0xffffffffu, value); }

ACUITY_DEVICE void LoadMatrix4(Shared<const uint16_t> row, uint32_t (&word)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(row.offset())
               : "memory");
}
ACUITY_DEVICE void LoadMatrix4Transposed(Shared<const uint16_t> row, uint32_t (&word)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(row.offset())
               : "memory");
}

template <DType kType>
ACUITY_DEVICE void Mma(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  if constexpr (kType == DType::kBFloat16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
          "r"(b.word[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
          "r"(b.word[1]));
  }
}

template <DType kType>
ACUITY_DEVICE uint32_t Pack(float low, float high) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  uint32_t word;  // the instruction names the upper half first
  if constexpr (kType == DType::kBFloat16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  }
  return word;
}

template <DType kType>
ACUITY_DEVICE void Unpack(uint32_t word, float& low, float& high) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  if constexpr (kType == DType::kBFloat16) {
    low = __uint_as_float(word << 16);
    high = __uint_as_float(word & 0xffff0000u);
  } else {
    asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(low), "=f"(high)
        : "r"(word));
  }
}

ACUITY_DEVICE void CopyAsync(Shared<Bits128> to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to.offset()),
               "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
               : "memory");
}
ACUITY_DEVICE void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
ACUITY_DEVICE void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// In PTX: the compiler takes four words apart where another path moves only some of them.
ACUITY_DEVICE Bits128 Load128(const void* from) {
  Bits128 bits;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bits.word[0]), "=r"(bits.word[1]), "=r"(bits.word[2]), "=r"(bits.word[3])
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return bits;
}
ACUITY_DEVICE void Store128(void* to, const Bits128& bits) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(bits.word[0]), "r"(bits.word[1]), "r"(bits.word[2]), "r"(bits.word[3])
               : "memory");
}
ACUITY_DEVICE int32_t AtomicAdd(int32_t* to, int32_t value) { return atomicAdd(to, value); }
ACUITY_DEVICE uint64_t AtomicAdd(uint64_t* to, uint64_t value) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(to), value);
}

ACUITY_DEVICE float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
ACUITY_DEVICE float Log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
ACUITY_DEVICE float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
ACUITY_DEVICE float Max(float x, float y) { return fmaxf(x, y); }
ACUITY_DEVICE float FusedMultiplyAdd(float x, float y, float z) { return __fmaf_rn(x, y, z); }
ACUITY_DEVICE float Multiply(float x, float y) { return __fmul_rn(x, y); }

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kMinBlocksPerSm)
    Entry(const __grid_constant__ typename Kernel::Args args) {
  Kernel::Run(args);
}

template <typename Kernel>
const char* Launch(Dim3 grid, int shared_bytes, const typename Kernel::Args& args, Stream stream) {
  static_assert(std::is_trivially_copyable_v<typename Kernel::Args>);
  static_assert(Kernel::kThreads % kWarpSize == 0);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return nullptr;
  constexpr int kDefaultSharedBytes = 48 << 10;  // more must be asked for
  cudaError_t status = cudaSuccess;
  if (shared_bytes > kDefaultSharedBytes) {
    status = cudaFuncSetAttribute(Entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes);
  }
  if (status == cudaSuccess) {
    Entry<Kernel><<<dim3(grid.x, grid.y, grid.z), Kernel::kThreads, shared_bytes,
                    static_cast<cudaStream_t>(stream)>>>(args);
    status = cudaGetLastError();
  }
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace acuity::kernels::prim
