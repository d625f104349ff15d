#include "kernels/cuda/layer_ops.h"

#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/embed.cuh"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/pages.cuh"
#include "kernels/cuda/qkv_append.cuh"
#include "kernels/cuda/scale_and_cap.cuh"

namespace acuity::kernels::cuda {
namespace {

constexpr int64_t kMaxBlocksX = 0x7fffffff;
constexpr int64_t kMaxBlocksYZ = 65535;

bool Aligned(std::initializer_list<const void*> pointers, uintptr_t bytes = 16) {
  uintptr_t bits = 0;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  return bits % bytes == 0;
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
  if (!Is16Bit(p.dtype)) return "QkvAppend: dtype must be kBFloat16 or kFloat16";
  if (shape.kv_dtype != p.dtype && shape.kv_dtype != DType::kFloat8) {
    return "QkvAppend: kv_dtype must be dtype or kFloat8";
  }
  if (shape.num_heads < 1 || shape.num_kv_heads < 1 || shape.block_size < 1) {
    return "QkvAppend: num_heads, num_kv_heads and block_size must be at least 1";
  }
  const int unit = p.rope.style == RopeStyle::kHalf ? 16 : 2;
  if (p.rope.rotary_dim < 0 || p.rope.rotary_dim > d || p.rope.rotary_dim % unit != 0) {
    return "QkvAppend: rotary_dim must be at most head_dim and a multiple of 16 (kInterleaved: of "
           "2)";
  }
  if (p.rope.inv_frequency_beyond != nullptr && p.rope.knee < 1) {
    return "QkvAppend: rope.inv_frequency_beyond needs a rope.knee of at least 1";
  }
  if ((p.q_norm == nullptr) != (p.k_norm == nullptr)) {
    return "QkvAppend: q_norm and k_norm must both be given or both be null";
  }
  if (p.q_norm != nullptr && p.whole_norm && p.own_weights) {
    return "QkvAppend: own_weights is of single heads, not of a whole_norm";
  }
  return nullptr;
}

}  // namespace

const char* EmbedRows(const EmbedRowsParams& p, void* stream) {
  if (!Is16Bit(p.dtype)) return "EmbedRows: dtype must be kBFloat16 or kFloat16";
  constexpr int kBlock = EmbedRowsKernel<DType::kBFloat16>::kBlockElements;
  if (p.dim < 1 || p.dim > kBlock * kMaxBlocksYZ) {
    return "EmbedRows: dim must be within 1 and 67107840";
  }
  if (p.rows < 0 || p.rows > kMaxBlocksX) return "EmbedRows: rows must be within 0 and 2^31 - 1";
  if (p.position_table != nullptr && p.positions == nullptr) {
    return "EmbedRows: position_table needs positions";
  }
  const bool aligned = p.dim % kChunk == 0 && Aligned({p.table, p.position_table, p.residual});
  return LaunchAs<EmbedRowsKernel>(p.dtype, {Blocks(p.rows, 1), Blocks(p.dim, kBlock), 1}, 0, p,
                                   aligned, stream);
}

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
  if (!Aligned({p.qkv, p.q, p.k_pages, p.v_pages})) {
    return "QkvAppend: qkv, q, k_pages and v_pages must be aligned to 16 bytes";
  }
  const int64_t query_width = int64_t{p.shape.num_heads} * p.shape.head_dim;
  if (p.q != nullptr && (p.q_stride < query_width || p.q_stride % 4 != 0)) {
    return "QkvAppend: q_stride must be a multiple of 4, at least num_heads * head_dim";
  }
  if (p.rows < 0 || p.rows > kMaxBlocksX) return "QkvAppend: rows must be within 0 and 2^31 - 1";
  using Kernel = QkvAppendKernel<DType::kBFloat16>;
  const int heads = p.shape.num_heads + 2 * p.shape.num_kv_heads;
  const int per_block = Kernel::kThreads / (p.shape.head_dim / kChunk);
  const bool one_block = p.q_norm != nullptr && p.whole_norm;
  return LaunchAs<QkvAppendKernel>(p.dtype,
                                   {Blocks(p.rows, 1), one_block ? 1 : Blocks(heads, per_block), 1},
                                   Kernel::kSharedBytes, p, Aligned({p.q_norm, p.k_norm}), stream);
}

const char* GatherRows(const GatherRowsParams& p, void* stream) {
  constexpr int64_t kBlock = GatherRowsKernel<uint32_t>::kBlockUnits;
  if (p.row_bytes < 4 || p.row_bytes % 4 != 0 || p.row_bytes > kBlock * 4 * kMaxBlocksYZ) {
    return "GatherRows: row_bytes must be a multiple of 4, at least 4 and at most 134215680";
  }
  if (p.count < 0 || p.count > kMaxBlocksX) {
    return "GatherRows: count must be within 0 and 2^31 - 1";
  }
  if (!Aligned({p.in, p.out}, 4)) return "GatherRows: in and out must be aligned to 4 bytes";
  if (p.row_bytes % 16 == 0 && Aligned({p.in, p.out})) {
    return prim::Launch<GatherRowsKernel<prim::Bits128>>(
        {Blocks(p.count, 1), Blocks(p.row_bytes, kBlock * 16), 1}, 0, p, stream);
  }
  return prim::Launch<GatherRowsKernel<uint32_t>>(
      {Blocks(p.count, 1), Blocks(p.row_bytes, kBlock * 4), 1}, 0, p, stream);
}

const char* ScaleAndCap(const ScaleAndCapParams& p, void* stream) {
  constexpr int64_t kBlock = ScaleAndCapKernel<DType::kFloat32>::kBlockElements;
  if (p.dim < 1 || p.dim > kBlock * kMaxBlocksYZ) {
    return "ScaleAndCap: dim must be within 1 and 67107840";
  }
  if (p.out_stride < p.dim) return "ScaleAndCap: out_stride must be at least dim";
  if (!(p.cap >= 0)) return "ScaleAndCap: cap must be at least 0";
  if (p.rows < 0 || p.rows > kMaxBlocksX) return "ScaleAndCap: rows must be within 0 and 2^31 - 1";
  if (p.in == p.out && (p.dtype != DType::kFloat32 || p.out_stride != p.dim) && p.in != nullptr) {
    return "ScaleAndCap: in place needs kFloat32 and an out_stride of dim";
  }
  const bool aligned = p.dim % kChunk == 0 && p.out_stride % 4 == 0 && Aligned({p.in, p.out});
  const prim::Dim3 grid = {Blocks(p.rows, 1), Blocks(p.dim, kBlock), 1};
  if (p.dtype == DType::kFloat32) {
    return prim::Launch<ScaleAndCapKernel<DType::kFloat32>>(grid, 0, {p, aligned}, stream);
  }
  return LaunchAs<ScaleAndCapKernel>(p.dtype, grid, 0, p, aligned, stream);
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
