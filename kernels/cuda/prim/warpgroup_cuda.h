// warpgroup.h on a GPU: sm_90a. Include warpgroup.h.
#pragma once

#include "kernels/cuda/prim/warpgroup.h"

namespace acuity::kernels::prim {

ACUITY_DEVICE void InitBarrier(Shared<uint64_t> barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier.offset()), "r"(arrivals)
               : "memory");
}
ACUITY_DEVICE void Arrive(Shared<uint64_t> barrier) {
  __syncwarp();
  if (LaneIndex() == 0) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier.offset()) : "memory");
  }
}
ACUITY_DEVICE void ArriveWhenCopied(Shared<uint64_t> barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier.offset())
               : "memory");
}
ACUITY_DEVICE void WaitBarrier(Shared<uint64_t> barrier, uint32_t parity) {
  uint32_t complete;
  do {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p; }"
        : "=r"(complete)
        : "r"(barrier.offset()), "r"(parity)
        : "memory");
  } while (complete == 0);
  __syncwarp();
}

// Hardware barrier 0 is __syncthreads'.
ACUITY_DEVICE void WarpgroupSync() {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + WarpIndex() / kWarpgroupWarps), "n"(kWarpgroupSize)
               : "memory");
}
ACUITY_DEVICE void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int kRegisters>
ACUITY_DEVICE void GiveBackRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
ACUITY_DEVICE void TakeRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

ACUITY_DEVICE uint64_t MatrixAt(Shared<const uint16_t> start, int panel_bytes) {
  return EncodeMatrix(start.offset(), panel_bytes);
}

// The accumulators of 64 columns as operands %0 to %31, of 128 as %0 to %63.
#define ACUITY_D1(j) \
  "+f"(d[j].value[0]), "+f"(d[j].value[1]), "+f"(d[j].value[2]), "+f"(d[j].value[3])
#define ACUITY_D4(j) ACUITY_D1(j), ACUITY_D1(j + 1), ACUITY_D1(j + 2), ACUITY_D1(j + 3)
#define ACUITY_D64 ACUITY_D4(0), ACUITY_D4(4)
#define ACUITY_D128 ACUITY_D64, ACUITY_D4(8), ACUITY_D4(12)
#define ACUITY_NAMES64                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ACUITY_NAMES128                                                              \
  ACUITY_NAMES64                                                                     \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// The predicate tells whether D counts; then the signs of A and B, then what is transposed: nothing
// here (rows of 16 elements lie together), B there (columns do).
#define ACUITY_MULTIPLY(type)                                                                    \
  asm volatile(                                                                                  \
      "{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." type \
      "." type " {" ACUITY_NAMES128 "}, %64, %65, p, 1, 1, 0, 0; }"                              \
      : ACUITY_D128                                                                              \
      : "l"(a), "l"(b), "r"(add ? 1 : 0))
#define ACUITY_MULTIPLY_ADD(columns, type, operands, names, sources)                            \
  asm volatile("{ .reg .pred p; setp.eq.b32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n" columns \
               "k16.f32." type "." type " {" names "}, " sources ", p, 1, 1, 1; }"              \
               : operands                                                                       \
               : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "l"(b))

template <DType kType, int kColumns>
ACUITY_DEVICE void Multiply(FragmentC (&d)[kColumns / 8], uint64_t a, uint64_t b, bool add) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  static_assert(kColumns == 128);
  if constexpr (kType == DType::kBFloat16) {
    ACUITY_MULTIPLY("bf16");
  } else {
    ACUITY_MULTIPLY("f16");
  }
}
template <DType kType, int kColumns>
ACUITY_DEVICE void MultiplyAdd(FragmentC (&d)[kColumns / 8], const FragmentA& a, uint64_t b) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  static_assert(kColumns == 64 || kColumns == 128);
  if constexpr (kColumns == 64) {
    if constexpr (kType == DType::kBFloat16) {
      ACUITY_MULTIPLY_ADD("64", "bf16", ACUITY_D64, ACUITY_NAMES64, "{%32, %33, %34, %35}, %36");
    } else {
      ACUITY_MULTIPLY_ADD("64", "f16", ACUITY_D64, ACUITY_NAMES64, "{%32, %33, %34, %35}, %36");
    }
  } else {
    if constexpr (kType == DType::kBFloat16) {
      ACUITY_MULTIPLY_ADD("128", "bf16", ACUITY_D128, ACUITY_NAMES128, "{%64, %65, %66, %67}, %68");
    } else {
      ACUITY_MULTIPLY_ADD("128", "f16", ACUITY_D128, ACUITY_NAMES128, "{%64, %65, %66, %67}, %68");
    }
  }
}

#undef ACUITY_MULTIPLY_ADD
#undef ACUITY_MULTIPLY
#undef ACUITY_NAMES128
#undef ACUITY_NAMES64
#undef ACUITY_D128
#undef ACUITY_D64
#undef ACUITY_D4
#undef ACUITY_D1

// Keeps what comes before in the source before, and what comes behind behind: to the compiler, an
// asm statement that waits has nothing to do with registers that it does not name.
template <int kCount>
ACUITY_DEVICE void Pin(FragmentC (&fragments)[kCount]) {
  ACUITY_UNROLL for (int j = 0; j < kCount; ++j) {
    ACUITY_UNROLL for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(fragments[j].value[i]));
  }
}
template <int kCount>
ACUITY_DEVICE void Pin(FragmentA (&fragments)[kCount]) {
  ACUITY_UNROLL for (int j = 0; j < kCount; ++j) {
    ACUITY_UNROLL for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(fragments[j].word[i]));
  }
}

template <typename... Fragments>
ACUITY_DEVICE void FenceProducts(Fragments&... fragments) {
  (Pin(fragments), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
ACUITY_DEVICE void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending, typename... Fragments>
ACUITY_DEVICE void WaitProducts(Fragments&... fragments) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  (Pin(fragments), ...);
}

}  // namespace acuity::kernels::prim
