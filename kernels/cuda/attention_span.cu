#include <bit>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_span.cuh"

namespace acuity::kernels::cuda {
namespace {

template <DType kType>
const char* LaunchType(const SpanMassParams& p, prim::Dim3 grid, void* stream) {
  using Kernel = SpanMassKernel<kType>;
  const int page_shift = std::countr_zero(static_cast<unsigned>(p.attention.shape.block_size));
  return prim::Launch<Kernel>(grid, Kernel::kSharedBytes, {p, page_shift}, stream);
}

}  // namespace

const char* SpanMass(const SpanMassParams& p, void* stream) {
  const AttentionShape& shape = p.attention.shape;
  if (const char* reason = cuda::Supports(shape)) return reason;
  if (p.attention.stats == nullptr) return "SpanMass: attention.stats must be given";
  if (p.num_spans < 0) return "SpanMass: num_spans must be at least 0";
  constexpr int kBlockKeys = SpanMassKernel<DType::kBFloat16>::kBlockKeys;
  constexpr int32_t kMaxPieces = 65535;
  if (p.longest < 0 || p.longest > kMaxPieces * kBlockKeys) {
    return "SpanMass: longest must be within 0 and 33553920";
  }
  const int32_t pieces = (p.longest + kBlockKeys - 1) / kBlockKeys;
  const prim::Dim3 grid = {static_cast<uint32_t>(p.num_spans),
                           static_cast<uint32_t>(shape.num_heads), static_cast<uint32_t>(pieces)};
  switch (shape.kv_dtype) {
    case DType::kBFloat16:
      return LaunchType<DType::kBFloat16>(p, grid, stream);
    case DType::kFloat16:
      return LaunchType<DType::kFloat16>(p, grid, stream);
    default:
      return LaunchType<DType::kFloat8>(p, grid, stream);
  }
}

}  // namespace acuity::kernels::cuda
