#include "engine/gpu/gpu_decoder.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/loader/status_util.h"
#include "engine/model/validation.h"
#include "engine/model/weights.h"
#include "kernels/cuda/layer_ops.h"
#include "kernels/cuda/row_sums.h"
#include "kernels/cuda/sample.h"

namespace acuity::engine {
namespace {

using kernels::cuda::AddNorm;
using kernels::cuda::AddNormParams;

constexpr int64_t kHalf = 2, kFloat = sizeof(float), kInt = sizeof(int32_t);
constexpr int64_t kMaxPosition = int64_t{1} << 20;  // of the rotary kernel's angles

// Left free where the KV pool takes the rest: cuBLAS's workspaces (32 MiB on an H100), graphs (some
// MB each), what attention's workspace grows by, and other users of the device.
constexpr int64_t kReservedBytes = int64_t{1} << 30;

// Null, or why no kernel serves this.
absl::Status CheckSupported(const ModelSpec& spec, const ModelOptions& options,
                            const kernels::AttentionShape& shape) {
  if (options.weight_dtype != kernels::DType::kBFloat16) {
    return InvalidArgument("dtype is not bfloat16, the only one that the GPU engine serves");
  }
  if (options.kv_dtype != kernels::DType::kBFloat16 &&
      options.kv_dtype != kernels::DType::kFloat8) {
    return InvalidArgument("kv_dtype is neither bfloat16 nor float8, which the GPU engine serves");
  }
  if (const char* problem = kernels::cuda::Supports(shape)) {
    return InvalidArgument(problem, ": num_heads is ", shape.num_heads, ", num_kv_heads ",
                           shape.num_kv_heads, ", head_dim ", shape.head_dim, ", block_size ",
                           shape.block_size);
  }
  // RouteExperts' limits; their logits fit where a branch does.
  const int most = std::min(1024, spec.hidden_size);
  if (spec.experts.count > most || spec.experts.per_token > 32) {
    return InvalidArgument("experts are ", spec.experts.count, ", ", spec.experts.per_token,
                           " per token; at most ", most, " and 32 on a GPU");
  }
  if (spec.max_context > kMaxPosition) {
    return InvalidArgument("max_context is ", spec.max_context, "; at most ", kMaxPosition,
                           " on a GPU");
  }
  for (const RopeSpec& rope : spec.ropes) {
    if (rope.style == kernels::RopeStyle::kHalf && rope.rotary_dim % 16 != 0) {
      return InvalidArgument("rotary_dim is ", rope.rotary_dim, "; a multiple of 16 on a GPU");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> GpuDecoder::Create(
    std::unique_ptr<Device> device, const Checkpoint& checkpoint, ModelSpec spec,
    ModelOptions options, const kernels::ParallelFor& parallel) {
  ACUITY_RETURN_IF_ERROR(CheckModel(spec, options));
  std::unique_ptr<GpuDecoder> decoder(
      new GpuDecoder(std::move(device), std::move(spec), std::move(options)));
  ACUITY_RETURN_IF_ERROR(CheckSupported(decoder->spec_, decoder->options_, decoder->shape_));
  {
    // The host keeps them no longer than this.
    ACUITY_ASSIGN_OR_RETURN(const Weights weights,
                            LoadWeights(checkpoint, decoder->spec_, decoder->options_.weight_dtype,
                                        parallel, decoder->options_.on_load));
    ACUITY_ASSIGN_OR_RETURN(decoder->weights_, UploadWeights(weights, decoder->spec_, parallel,
                                                             decoder->device_.get()));
  }
  ACUITY_RETURN_IF_ERROR(decoder->AllocateBuffers());
  ACUITY_RETURN_IF_ERROR(decoder->AllocatePages());
  return std::unique_ptr<ModelRunner>(std::move(decoder));
}

GpuDecoder::GpuDecoder(std::unique_ptr<Device> device, ModelSpec spec, ModelOptions options)
    : device_(std::move(device)),
      spec_(std::move(spec)),
      options_(std::move(options)),
      shape_{spec_.num_heads, spec_.num_kv_heads, spec_.head_dim, options_.block_size,
             options_.kv_dtype} {
  std::vector<int> windows;
  for (const LayerSpec& layer : spec_.layers) {
    const auto same = std::find(windows.begin(), windows.end(), layer.window);
    plan_of_layer_.push_back(static_cast<int>(same - windows.begin()));
    if (same == windows.end()) windows.push_back(layer.window);
  }
  if (spec_.experts.count > 0) {
    graph_status_ = absl::UnimplementedError("a step of a model with experts waits in every layer");
  }
  const int bucket =
      std::min({options_.max_batch_sequences, options_.max_batch_tokens, options_.max_logit_rows});
  for (int i = 0; i < Device::kMarks; ++i) {
    slots_.emplace_back(StepInputs(shape_, spec_.num_layers, windows, bucket));
  }
}

// What is still enqueued uses the memory that ends now.
GpuDecoder::~GpuDecoder() { static_cast<void>(device_->Synchronise()); }

absl::Status GpuDecoder::AllocateBuffers() {
  const int64_t rows = options_.max_batch_tokens, hidden = rows * spec_.hidden_size;
  const int64_t experts = spec_.experts.count, choices = rows * spec_.experts.per_token;
  const int64_t ffn = std::max(rows, choices) * spec_.ffn_size, queries = rows * query_width();
  const int64_t stats = spec_.num_layers * rows * spec_.num_heads;
  struct Buffer {
    DeviceMemory* memory;
    int64_t bytes;
  };
  const Buffer buffers[] = {
      {&residual_, hidden * kFloat},
      {&kept_residual_, hidden * kFloat},
      {&wide_, spec_.post_norm ? hidden * kFloat : 0},
      {&normed_, hidden * kHalf},
      {&branch_, hidden * kHalf},
      {&qkv_, rows * qkv_width() * kHalf},
      {&queries_, queries * kFloat},
      {&attention_, queries * kFloat},
      {&rounded_attention_, queries * kHalf},
      {&kept_attention_, queries * kHalf},
      {&gate_up_, (spec_.gated_ffn ? 2 : 1) * ffn * kHalf},
      {&hidden_, ffn * kHalf},
      {&logits_, int64_t{options_.max_logit_rows} * spec_.vocab_size * kFloat},
      {&tokens_, options_.max_logit_rows * kInt},
      {&stats_, stats * static_cast<int64_t>(sizeof(kernels::RowStats))},
      {&router_logits_, rows * experts * kFloat},
      {&chosen_, choices * kInt},
      {&choice_weights_, choices * kFloat},
      {&choice_slots_, choices * kInt},
      {&slot_rows_, choices * kInt},
      {&slot_begin_, experts > 0 ? (experts + 1) * kInt : 0},
      {&gathered_, choices * spec_.hidden_size * kHalf},
      {&routed_, choices * spec_.hidden_size * kHalf},
  };
  for (const Buffer& buffer : buffers) {
    if (buffer.bytes == 0) continue;
    ACUITY_ASSIGN_OR_RETURN(*buffer.memory,
                            device_->Allocate("activations (max_batch_tokens)", buffer.bytes));
  }
  if (experts == 0) return absl::OkStatus();
  ACUITY_ASSIGN_OR_RETURN(pinned_slot_begin_,
                          device_->AllocatePinned("the experts' rows", slot_begin_.bytes()));
  return absl::OkStatus();
}

absl::Status GpuDecoder::AllocatePages() {
  bytes_per_block_ = int64_t{2} * spec_.num_layers * spec_.num_kv_heads * options_.block_size *
                     spec_.head_dim * static_cast<int64_t>(SizeOf(options_.kv_dtype));
  int64_t bytes = options_.kv_memory_bytes;
  if (bytes == 0) {
    ACUITY_ASSIGN_OR_RETURN(const int64_t free_bytes, device_->FreeBytes());
    bytes = free_bytes - kReservedBytes;
    if (bytes < bytes_per_block_) {
      return absl::ResourceExhaustedError(
          Concat("the GPU has ", free_bytes, " bytes free for the KV cache, ", kReservedBytes,
                 " of them stay free; one block takes ", bytes_per_block_));
    }
  }
  const int64_t blocks = bytes / bytes_per_block_;
  if (blocks < 1) {
    return InvalidArgument("kv_memory_bytes is ", bytes, "; one block of ", options_.block_size,
                           " tokens takes ", bytes_per_block_);
  }
  num_blocks_ = static_cast<int>(std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max()));
  ACUITY_ASSIGN_OR_RETURN(
      pages_, device_->Allocate("the KV cache (kv_memory_bytes)", num_blocks_ * bytes_per_block_));

  std::vector<std::byte*> pools;
  for (int layer = 0; layer < spec_.num_layers; ++layer) {
    pools.push_back(KPages(layer));
    pools.push_back(VPages(layer));
  }
  const auto pool_bytes = static_cast<int64_t>(pools.size() * sizeof(pools[0]));
  ACUITY_ASSIGN_OR_RETURN(pools_, device_->Allocate("the KV cache's table", pool_bytes));
  ACUITY_ASSIGN_OR_RETURN(DeviceMemory pinned,
                          device_->AllocatePinned("the KV cache's table", pool_bytes));
  std::memcpy(pinned.As<void>(), pools.data(), static_cast<size_t>(pool_bytes));
  ACUITY_RETURN_IF_ERROR(device_->CopyToDevice(pools_.As<void>(), pinned.As<void>(), pool_bytes));
  ACUITY_RETURN_IF_ERROR(device_->Synchronise());
  if (options_.kv_dtype != kernels::DType::kFloat8) return absl::OkStatus();
  ACUITY_ASSIGN_OR_RETURN(saturated_,
                          device_->Allocate("the KV cache's counter", sizeof(uint64_t)));
  std::memset(pinned.As<void>(), 0, sizeof(uint64_t));
  ACUITY_RETURN_IF_ERROR(
      device_->CopyToDevice(saturated_.As<void>(), pinned.As<void>(), sizeof(uint64_t)));
  return device_->Synchronise();
}

std::byte* GpuDecoder::KPages(int layer) const {
  return pages_.As<std::byte>() + int64_t{layer} * 2 * num_blocks_ * page_bytes();
}

int64_t GpuDecoder::mass_bytes(const StepShape& shape) const {
  return int64_t{spec_.num_layers} * shape.span_masses * static_cast<int64_t>(sizeof(uint64_t));
}

absl::Status GpuDecoder::EnqueueOrReplay(const StepShape& shape) {
  if (shape.bucket_keys == 0 || !graph_status_.ok()) return Enqueue(shape);
  const auto [entry, first] =
      graphs_.try_emplace({shape.seqs, shape.bucket_keys, shape.stats}, nullptr);
  if (first) return Enqueue(shape);
  if (entry->second == nullptr) {
    auto graph = device_->Capture([&] { return Enqueue(shape); });
    if (!graph.ok()) {
      graph_status_ = graph.status();
      return Enqueue(shape);
    }
    entry->second = *std::move(graph);
  }
  ++replayed_steps_;
  return device_->Replay(*entry->second);
}

absl::Status GpuDecoder::EnqueueZeroing() {
  kernels::cuda::PagesParams pages;
  pages.pools = pools_.As<void*>();
  pages.num_pools = 2 * spec_.num_layers;
  pages.page_bytes = page_bytes();
  pages.to = Input<int32_t>(step_->offsets().zeroed_blocks);
  pages.count = step_->shape().zeroed_blocks;
  enqueued_ = absl::OkStatus();
  Check(kernels::cuda::FillPages(pages, device_->stream()));
  return enqueued_;
}

void GpuDecoder::Check(const char* error) {
  if (error != nullptr) Check(absl::InternalError(Concat("the GPU refused a launch: ", error)));
}

absl::Status GpuDecoder::Enqueue(const StepShape& shape) {
  enqueued_ = absl::OkStatus();
  if (shape.spans > 0) Check(device_->Zero(masses_.As<void>(), mass_bytes(shape)));
  Embed(shape);
  Rows rows = {shape.rows, residual_.As<float>(), rounded_attention_.As<void>()};
  for (int layer = 0; layer < spec_.num_layers && enqueued_.ok(); ++layer) {
    const GpuLayer& weights = weights_.layers[static_cast<size_t>(layer)];
    // Each layer leaves what it adds last in branch_.
    AddAndNormalise(rows, layer > 0, weights.attention_norm);
    Attend(layer, shape);
    if (layer == spec_.num_layers - 1) {
      if (shape.measured > 0) SumRows(shape);
      // After the last attention a row matters only for its own output.
      if (!shape.keeps_all) rows = KeepRows(shape);
    }
    if (rows.count == 0) return enqueued_;
    if (spec_.parallel_residual) AddAndNormalise(rows, false, weights.ffn_norm);
    Branch(rows.attention, rows, weights.attention_out, weights.post_attention_norm);
    if (spec_.parallel_residual) {
      AddNormParams add;
      add.residual = rows.residual;
      add.delta = branch_.As<void>();
      add.delta_scale = spec_.residual_scale;
      add.rows = rows.count;
      add.dim = spec_.hidden_size;
      Check(AddNorm(add, device_->stream()));
    } else {
      AddAndNormalise(rows, true, weights.ffn_norm);
    }
    FeedForward(weights, rows);
  }
  AddAndNormalise(rows, true, weights_.output_norm);
  if (shape.logit_rows > 0) ComputeLogits(shape);
  if (shape.draws > 0) DrawTokens(shape);
  return enqueued_;
}

void GpuDecoder::Embed(const StepShape& shape) {
  kernels::cuda::EmbedRowsParams embed;
  embed.table = weights_.embedding;
  embed.position_table = weights_.positions;
  embed.scale = spec_.embedding_scale;
  embed.tokens = Input<int32_t>(step_->offsets().tokens);
  embed.drawn = tokens_.As<int32_t>();
  embed.positions = Input<int32_t>(step_->offsets().positions);
  embed.residual = residual_.As<float>();
  embed.rows = shape.rows;
  embed.dim = spec_.hidden_size;
  Check(kernels::cuda::EmbedRows(embed, device_->stream()));
}

void GpuDecoder::AddAndNormalise(const Rows& rows, bool add, const GpuNorm& norm) {
  AddNormParams params;
  params.norm = {spec_.norm, spec_.norm_epsilon, norm.weight, norm.bias};
  params.residual = rows.residual;
  params.delta = add ? branch_.As<void>() : nullptr;
  params.delta_scale = spec_.residual_scale;
  params.out = normed_.As<void>();
  params.rows = rows.count;
  params.dim = spec_.hidden_size;
  Check(AddNorm(params, device_->stream()));
}

void GpuDecoder::Attend(int layer, const StepShape& shape) {
  const GpuLayer& weights = weights_.layers[static_cast<size_t>(layer)];
  const InputOffsets& at = step_->offsets();
  Gemm(normed_.As<void>(), shape.rows, weights.qkv, qkv_.As<void>());

  kernels::cuda::QkvAppendParams append;
  append.shape = shape_;
  append.rope = weights.rope;
  append.norm = spec_.norm;
  append.epsilon = spec_.norm_epsilon;
  append.q_norm = weights.q_norm;
  append.k_norm = weights.k_norm;
  append.own_weights = spec_.qk_norm == QkNorm::kOwnWeights;
  append.whole_norm = spec_.qk_norm == QkNorm::kWhole;
  append.qkv = qkv_.As<void>();
  append.rows = shape.rows;
  append.q = queries_.As<float>();
  append.q_stride = query_width();
  append.positions = Input<int32_t>(at.positions);
  append.slots = Input<int64_t>(at.slots);
  append.k_pages = KPages(layer);
  append.v_pages = VPages(layer);
  append.saturated = saturated_.As<uint64_t>();
  Check(kernels::cuda::QkvAppend(append, device_->stream()));

  const LayerSpec& spec = spec_.layers[static_cast<size_t>(layer)];
  kernels::AttentionParams params;
  params.shape = shape_;
  params.batch = {shape.seqs, Input<int32_t>(at.qo_indptr), Input<int32_t>(at.kv_len),
                  Input<int32_t>(at.block_tables), shape.block_table_stride};
  params.q = queries_.As<float>();
  params.q_stride = query_width();
  params.k_pages = append.k_pages;
  params.v_pages = append.v_pages;
  params.out = attention_.As<float>();
  params.out_stride = query_width();
  if (shape.stats) {
    params.stats = stats_.As<kernels::RowStats>() + int64_t{layer} * shape.rows * spec_.num_heads;
  }
  params.policy = weights.policy;
  params.softmax_scale = spec_.softmax_scale;
  params.logit_softcap = spec_.attention_softcap;
  params.window = spec.window;
  params.sinks = weights.sinks;
  const auto plan = static_cast<size_t>(plan_of_layer_[static_cast<size_t>(layer)]);
  Check(kernels::cuda::RunAttention(params, shape.plans[plan], Input<void>(at.plans[plan]),
                                    workspace_.As<float>(), device_->stream()));
  if (shape.spans > 0) {
    Check(kernels::cuda::SpanMass(
        {params, Input<kernels::cuda::WatchedSpan>(at.spans), shape.spans, shape.longest_span,
         masses_.As<uint64_t>() + int64_t{layer} * shape.span_masses},
        device_->stream()));
  }
  AddNormParams round;
  round.residual = attention_.As<float>();
  round.out = rounded_attention_.As<void>();
  round.rows = shape.rows;
  round.dim = static_cast<int>(query_width());
  Check(AddNorm(round, device_->stream()));
}

void GpuDecoder::SumRows(const StepShape& shape) {
  kernels::SumRowsParams params;
  params.stats = stats_.As<kernels::RowStats>();
  params.rows = shape.rows;
  params.num_layers = spec_.num_layers;
  params.num_heads = spec_.num_heads;
  params.windows = weights_.windows;
  params.measured = Input<kernels::MeasuredRows>(step_->offsets().measured);
  params.count = shape.measured;
  params.sums = sums_.As<kernels::RowSums>();
  Check(kernels::cuda::SumRows(params, device_->stream()));
}

GpuDecoder::Rows GpuDecoder::KeepRows(const StepShape& shape) {
  const Rows kept = {shape.logit_rows + shape.hidden_rows, kept_residual_.As<float>(),
                     kept_attention_.As<void>()};
  kernels::cuda::GatherRowsParams gather;
  gather.rows = Input<int32_t>(step_->offsets().kept_rows);
  gather.count = kept.count;
  gather.in = residual_.As<void>();
  gather.row_bytes = spec_.hidden_size * kFloat;
  gather.out = kept_residual_.As<void>();
  Check(kernels::cuda::GatherRows(gather, device_->stream()));
  gather.in = rounded_attention_.As<void>();
  gather.row_bytes = query_width() * kHalf;
  gather.out = kept_attention_.As<void>();
  Check(kernels::cuda::GatherRows(gather, device_->stream()));
  return kept;
}

void GpuDecoder::Branch(const void* x, const Rows& rows, const GpuLinear& linear,
                        const GpuNorm& post_norm) {
  if (!spec_.post_norm) return Gemm(x, rows.count, linear, branch_.As<void>());
  WideGemm(x, rows.count, linear, wide_.As<float>());
  PostNormalise(rows, post_norm);
}

void GpuDecoder::PostNormalise(const Rows& rows, const GpuNorm& norm) {
  AddNormParams params;
  params.norm = {spec_.norm, spec_.norm_epsilon, norm.weight, norm.bias};
  params.residual = wide_.As<float>();
  params.out = branch_.As<void>();
  params.rows = rows.count;
  params.dim = spec_.hidden_size;
  Check(AddNorm(params, device_->stream()));
}

void GpuDecoder::ComputeLogits(const StepShape& shape) {
  WideGemm(normed_.As<void>(), shape.logit_rows, weights_.output, logits_.As<float>());
  if (spec_.logit_scale == 1 && spec_.logit_softcap == 0) return;
  kernels::cuda::ScaleAndCapParams scale;
  scale.dtype = kernels::DType::kFloat32;
  scale.scale = spec_.logit_scale;
  scale.cap = spec_.logit_softcap;
  scale.in = scale.out = logits_.As<float>();
  scale.rows = shape.logit_rows;
  scale.dim = scale.out_stride = spec_.vocab_size;
  Check(kernels::cuda::ScaleAndCap(scale, device_->stream()));
}

void GpuDecoder::DrawTokens(const StepShape& shape) {
  kernels::cuda::SampleParams sample;
  sample.vocab = spec_.vocab_size;
  sample.stride = spec_.vocab_size;
  sample.rows = shape.draws;
  sample.logits = sample.scratch =
      logits_.As<float>() + (shape.logit_rows - sample.rows) * sample.stride;
  sample.params = Input<kernels::SampleRow>(step_->offsets().draws);
  sample.tokens = tokens_.As<int32_t>();
  Check(kernels::cuda::Sample(sample, device_->stream()));
}

void GpuDecoder::Widen(const void* x, int64_t rows, int64_t dim, float* y) {
  kernels::cuda::ScaleAndCapParams widen;
  widen.in = x;
  widen.rows = rows;
  widen.dim = widen.out_stride = dim;
  widen.out = y;
  Check(kernels::cuda::ScaleAndCap(widen, device_->stream()));
}

void GpuDecoder::WideGemm(const void* x, int64_t rows, const GpuLinear& linear, float* y) {
  if (linear.bias == nullptr) return Multiply(x, rows, linear, true, y);
  Gemm(x, rows, linear, branch_.As<void>());
  Widen(branch_.As<void>(), rows, linear.n, y);
}

void GpuDecoder::Multiply(const void* x, int64_t rows, const GpuLinear& linear, bool float_out,
                          void* y) {
  DeviceGemm gemm;
  gemm.x = x;
  gemm.m = rows;
  gemm.n = linear.n;
  gemm.k = linear.k;
  gemm.weight = linear.weight;
  gemm.bias = linear.bias;
  gemm.float_out = float_out;
  gemm.y = y;
  Check(device_->Gemm(gemm));
}

}  // namespace acuity::engine
