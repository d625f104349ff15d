#include "kernels/cuda/experts.h"

#include <cstdint>

#include "kernels/cuda/experts.cuh"

namespace acuity::kernels::cuda {
namespace {

constexpr int kMaxExperts = 1024;
constexpr int64_t kMaxRows = 1 << 20;

uint32_t Blocks(int64_t size, int64_t of_each) {
  return static_cast<uint32_t>((size + of_each - 1) / of_each);
}

bool Aligned(const void* a, const void* b) {
  return (reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b)) % 16 == 0;
}

}  // namespace

const char* RouteExperts(const RouteExpertsParams& p, void* stream) {
  if (p.count < 1 || p.count > kMaxExperts) return "RouteExperts: count must be within 1 and 1024";
  if (p.per_token < 1 || p.per_token > p.count || p.per_token > prim::kWarpSize) {
    return "RouteExperts: per_token must be within 1 and 32, and at most count";
  }
  if (p.rows < 0 || p.rows > kMaxRows) return "RouteExperts: rows must be within 0 and 2^20";
  using Choose = ChooseExpertsKernel;
  const char* error = prim::Launch<Choose>({Blocks(p.rows, Choose::kWarps), 1, 1}, 0, p, stream);
  if (error != nullptr) return error;
  return prim::Launch<PlaceSlotsKernel>({static_cast<uint32_t>(p.count), 1, 1},
                                        PlaceSlotsKernel::kSharedBytes, p, stream);
}

const char* CombineExperts(const CombineExpertsParams& p, void* stream) {
  if (p.dtype != DType::kBFloat16 && p.dtype != DType::kFloat16) {
    return "CombineExperts: dtype must be kBFloat16 or kFloat16";
  }
  if (p.per_token < 1) return "CombineExperts: per_token must be at least 1";
  if (p.rows < 0 || p.rows > kMaxRows) return "CombineExperts: rows must be within 0 and 2^20";
  constexpr int kBlock = CombineExpertsKernel<DType::kBFloat16>::kBlockElements;
  constexpr int kMaxDim = kBlock * 65535;
  if (p.dim < 1 || p.dim > kMaxDim) return "CombineExperts: dim must be within 1 and 67107840";
  const bool aligned = p.dim % kChunk == 0 && Aligned(p.routed, p.out);
  const prim::Dim3 grid = {Blocks(p.rows, 1), Blocks(p.dim, kBlock), 1};
  if (p.dtype == DType::kBFloat16) {
    return prim::Launch<CombineExpertsKernel<DType::kBFloat16>>(grid, 0, {p, aligned}, stream);
  }
  return prim::Launch<CombineExpertsKernel<DType::kFloat16>>(grid, 0, {p, aligned}, stream);
}

}  // namespace acuity::kernels::cuda
