#include "kernels/cuda/layer_ops.h"

#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/pages.cuh"
#include "kernels/cuda/qkv_append.cuh"

namespace acuity::kernels::cuda {
namespace {

constexpr int64_t kMaxBlocksX = 0x7fffffff;
constexpr int64_t kMaxBlocksYZ = 65535;

bool Aligned(std::initializer_list<const void*> pointers) {
  uintptr_t bits = 0;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  return bits % 16 == 0;
}

bool Is16Bit(DType dtype) { return dtype == DType::kBFloat16 || dtype == DType::kFloat16; }

uint32_t Blocks(int64_t size, int64_t of_each) {
  return static_cast<uint32_t>((size + of_each - 1) / of_each);
}

// Launches Kernel<kBFloat16> or Kernel<kFloat16>.
template <template <DType> typename Kernel, typename Params>
const char* LaunchAs(DType dtype, prim::Dim3 grid, int shared_bytes, const Params& params,
                     bool aligned, void* stream) {
  if (dtype == DType::kBFloat16) {
    return prim::Launch<Kernel<DType::kBFloat16>>(grid, shared_bytes, {params, aligned}, stream);
  }
  return prim::Launch<Kernel<DType::kFloat16>>(grid, shared_bytes, {params, aligned}, stream);
}

const char* RefusedHeads(const QkvAppendParams& p) {
  const AttentionShape& shape = p.shape;
  const int d = shape.head_dim;
  if (d != 16 && d != 32 && d != 64 && d != 128 && d != 256) {
    return "QkvAppend: head_dim must be 16, 32, 64, 128 or 256";
  }
  if (!Is16Bit(shape.kv_dtype)) return "QkvAppend: kv_dtype must be kBFloat16 or kFloat16";
  if (shape.num_heads < 1 || shape.num_kv_heads < 1 || shape.block_size < 1) {
    return "QkvAppend: num_heads, num_kv_heads and block_size must be at least 1";
  }
  const int unit = p.rope.style == RopeStyle::kHalf ? 16 : 2;
  if (p.rope.rotary_dim < 0 || p.rope.rotary_dim > d || p.rope.rotary_dim % unit != 0) {
    return "QkvAppend: rotary_dim must be at most head_dim and a multiple of 16 (kInterleaved: of "
           "2)";
  }
  if (p.rope.inv_frequency_beyond != nullptr) {
    return "QkvAppend: rope.inv_frequency_beyond must be null: a knee is the CPU's alone";
  }
  if ((p.q_norm == nullptr) != (p.k_norm == nullptr)) {
    return "QkvAppend: q_norm and k_norm must both be given or both be null";
  }
  return nullptr;
}

}  // namespace

const char* AddNorm(const AddNormParams& p, void* stream) {
  if (!Is16Bit(p.dtype)) return "AddNorm: dtype must be kBFloat16 or kFloat16";
  if (p.dim < 1) return "AddNorm: dim must be at least 1";
  if (p.out == nullptr && p.norm.weight != nullptr) return "AddNorm: out must be given with a norm";
  if (p.rows < 0 || p.rows > kMaxBlocksX) return "AddNorm: rows must be within 0 and 2^31 - 1";
  const bool aligned =
      p.dim % kChunk == 0 && Aligned({p.residual, p.delta, p.out, p.norm.weight, p.norm.bias});
  return LaunchAs<AddNormKernel>(p.dtype, {Blocks(p.rows, 1), 1, 1},
                                 AddNormKernel<DType::kBFloat16>::kSharedBytes, p, aligned, stream);
}

const char* Activate(const ActivateParams& p, void* stream) {
  if (!Is16Bit(p.dtype)) return "Activate: dtype must be kBFloat16 or kFloat16";
  if (p.activation == Activation::kClampedSwiglu && !p.gated) {
    return "Activate: kClampedSwiglu needs a gate";
  }
  if (p.rows < 0 || p.rows > kMaxBlocksX) return "Activate: rows must be within 0 and 2^31 - 1";
  constexpr int64_t kBlock = ActivateKernel<DType::kBFloat16>::kBlockElements;
  if (p.dim < 1 || p.dim > kBlock * kMaxBlocksYZ)
    return "Activate: dim must be within 1 and 67107840";
  const bool aligned = p.dim % kChunk == 0 && Aligned({p.in, p.out});
  return LaunchAs<ActivateKernel>(p.dtype, {Blocks(p.rows, 1), Blocks(p.dim, kBlock), 1}, 0, p,
                                  aligned, stream);
}

const char* QkvAppend(const QkvAppendParams& p, void* stream) {
  if (const char* refused = RefusedHeads(p)) return refused;
  if (!Aligned({p.qkv, p.k_pages, p.v_pages})) {
    return "QkvAppend: qkv, k_pages and v_pages must be aligned to 16 bytes";
  }
  if (p.rows < 0 || p.rows > kMaxBlocksX) return "QkvAppend: rows must be within 0 and 2^31 - 1";
  const int heads = p.shape.num_heads + 2 * p.shape.num_kv_heads;
  const int per_block = QkvAppendKernel<DType::kBFloat16>::kThreads / (p.shape.head_dim / kChunk);
  return LaunchAs<QkvAppendKernel>(p.shape.kv_dtype,
                                   {Blocks(p.rows, 1), Blocks(heads, per_block), 1}, 0, p,
                                   Aligned({p.q_norm, p.k_norm}), stream);
}

const char* FillPages(const PagesParams& p, void* stream) {
  constexpr int64_t kBlock = FillPagesKernel::kBlockBytes;
  if (p.page_bytes < 16 || p.page_bytes % 16 != 0 || p.page_bytes > kBlock * kMaxBlocksYZ) {
    return "FillPages: page_bytes must be a multiple of 16, at least 16 and below 2^30";
  }
  if (p.num_pools < 0 || p.num_pools > kMaxBlocksYZ) {
    return "FillPages: num_pools must be within 0 and 65535";
  }
  if (p.count < 0 || p.count > kMaxBlocksX) return "FillPages: count must be within 0 and 2^31 - 1";
  return prim::Launch<FillPagesKernel>(
      {Blocks(p.count, 1), static_cast<uint32_t>(p.num_pools), Blocks(p.page_bytes, kBlock)}, 0, p,
      stream);
}

}  // namespace acuity::kernels::cuda
