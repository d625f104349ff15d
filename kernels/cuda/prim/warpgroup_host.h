// warpgroup.h without a GPU. Include warpgroup.h.
//
// Copies land, and products are computed, at random moments between their start and the wait that
// covers them. Until then a copy's destination and a product's accumulators hold NaN, and a
// product's operands in registers must not change. A product reads what its descriptors say, byte
// by byte, at the moment at which it is computed; it may read what all four warps know to be
// written and have fenced.
//
// Not modelled: that warps of a warpgroup start a product at different times, and what setmaxnreg
// waits for.
#pragma once

#include "kernels/cuda/prim/warpgroup.h"

namespace acuity::kernels::prim {

namespace emulation {

// What a lane brings to a product: D (+)= A B.
struct Product {
  DType type = DType::kBFloat16;
  int columns = 0;
  bool add = false;
  const FragmentA* a = nullptr;  // null: a_matrix, and B is transposed
  uint64_t a_matrix = 0, b_matrix = 0;
  FragmentC* d = nullptr;

  bool SameAs(const Product& other) const {
    return type == other.type && columns == other.columns && add == other.add &&
           (a == nullptr) == (other.a == nullptr) && a_matrix == other.a_matrix &&
           b_matrix == other.b_matrix;
  }
};

void InitBarrierAt(const void* barrier, int arrivals);
void MeetAt(Collective collective, const void* what, uint32_t value);
uint32_t OffsetOf(const void* address);  // in the block's shared memory

}  // namespace emulation

inline void InitBarrier(Shared<uint64_t> barrier, int arrivals) {
  emulation::InitBarrierAt(barrier.address(), arrivals);
}
inline void Arrive(Shared<uint64_t> barrier) {
  emulation::MeetAt(emulation::Collective::kArrive, barrier.address(), 0);
}
inline void ArriveWhenCopied(Shared<uint64_t> barrier) {
  emulation::MeetAt(emulation::Collective::kArriveWhenCopied, barrier.address(), 0);
}
inline void WaitBarrier(Shared<uint64_t> barrier, uint32_t parity) {
  emulation::MeetAt(emulation::Collective::kWaitBarrier, barrier.address(), parity);
}
inline void WarpgroupSync() {
  emulation::MeetAt(emulation::Collective::kWarpgroupSync, nullptr, 0);
}
inline void FenceAsyncProxy() {
  emulation::MeetAt(emulation::Collective::kFenceAsyncProxy, nullptr, 0);
}
template <int kRegisters>
void GiveBackRegisters() {}
template <int kRegisters>
void TakeRegisters() {}

inline uint64_t MatrixAt(Shared<const uint16_t> start, int panel_bytes) {
  return EncodeMatrix(emulation::OffsetOf(start.address()), panel_bytes);
}

template <DType kType, int kColumns>
void Multiply(FragmentC (&d)[kColumns / 8], uint64_t a, uint64_t b, bool add) {
  const emulation::Product product = {kType, kColumns, add, nullptr, a, b, d};
  emulation::MeetAt(emulation::Collective::kMultiply, &product, 0);
}
template <DType kType, int kColumns>
void MultiplyAdd(FragmentC (&d)[kColumns / 8], const FragmentA& a, uint64_t b) {
  const emulation::Product product = {kType, kColumns, true, &a, 0, b, d};
  emulation::MeetAt(emulation::Collective::kMultiply, &product, 0);
}

template <typename... Fragments>
void FenceProducts(Fragments&...) {
  emulation::MeetAt(emulation::Collective::kFenceProducts, nullptr, 0);
}
inline void CommitProducts() {
  emulation::MeetAt(emulation::Collective::kCommitProducts, nullptr, 0);
}
template <int kPending, typename... Fragments>
void WaitProducts(Fragments&...) {
  emulation::MeetAt(emulation::Collective::kWaitProducts, nullptr, kPending);
}

}  // namespace acuity::kernels::prim
