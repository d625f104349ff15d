#include "engine/model/decoder.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/rope.h"
#include "engine/model/validation.h"
#include "kernels/layer_ops.h"

namespace acuity::engine {

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(const Checkpoint& checkpoint,
                                                                 ModelSpec spec,
                                                                 ModelOptions options,
                                                                 kernels::ParallelFor parallel) {
  return Decoder::Create(checkpoint, std::move(spec), options, parallel);
}

absl::StatusOr<std::unique_ptr<ModelRunner>> Decoder::Create(const Checkpoint& checkpoint,
                                                             ModelSpec spec, ModelOptions options,
                                                             kernels::ParallelFor parallel) {
  absl::Status status = CheckModel(spec, options);
  if (!status.ok()) return status;
  std::unique_ptr<Decoder> decoder(new Decoder(std::move(spec), options, parallel));
  if (const char* problem = kernels::Supports(decoder->shape_)) {
    return absl::InvalidArgumentError(problem);
  }
  ConfigureLibTorch();
  if (status = decoder->AllocatePages(); !status.ok()) return status;
  if (status = decoder->AllocateActivations(); !status.ok()) return status;
  absl::StatusOr<Weights> weights =
      LoadWeights(checkpoint, decoder->spec_, options.weight_dtype, parallel, options.on_load);
  if (!weights.ok()) return weights.status();
  decoder->weights_ = *std::move(weights);
  decoder->PrepareLayers();
  return std::unique_ptr<ModelRunner>(std::move(decoder));
}

Decoder::Decoder(ModelSpec spec, ModelOptions options, kernels::ParallelFor parallel)
    : spec_(std::move(spec)),
      options_(options),
      parallel_(parallel),
      shape_{spec_.num_heads, spec_.num_kv_heads, spec_.head_dim, options.block_size,
             options.kv_dtype} {}

absl::Status Decoder::AllocatePages() {
  bytes_per_block_ = int64_t{2} * spec_.num_layers * spec_.num_kv_heads * options_.block_size *
                     spec_.head_dim * static_cast<int64_t>(kernels::SizeOf(options_.kv_dtype));
  const int64_t blocks = options_.kv_memory_bytes / bytes_per_block_;
  if (blocks < 1) {
    return absl::InvalidArgumentError(absl::StrCat("kv_memory_bytes is ", options_.kv_memory_bytes,
                                                   "; one block of ", options_.block_size,
                                                   " tokens takes ", bytes_per_block_));
  }
  num_blocks_ = static_cast<int>(std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max()));
  absl::StatusOr<Memory> pages =
      Memory::Allocate("the KV cache (kv_memory_bytes)", num_blocks_ * bytes_per_block_);
  if (!pages.ok()) return pages.status();
  pages_ = *std::move(pages);
  return absl::OkStatus();
}

absl::Status Decoder::AllocateActivations() {
  const int64_t rows = options_.max_batch_tokens;
  const int64_t stats_floats = sizeof(kernels::RowStats) / sizeof(float);
  struct Buffer {
    Memory* memory;
    int64_t floats;
  };
  const int64_t experts = spec_.experts.count, slots = rows * spec_.experts.per_token;
  const bool branches = spec_.post_norm || spec_.residual_scale != 1 || experts > 0;
  const Buffer buffers[] = {
      {&residual_, rows * spec_.hidden_size},
      {&normed_, rows * spec_.hidden_size},
      {&qkv_, rows * qkv_width()},
      {&attention_, rows * query_width()},
      {&gate_up_, rows * (spec_.gated_ffn ? 2 : 1) * spec_.ffn_size},
      {&hidden_, rows * spec_.ffn_size},
      {&logits_, int64_t{options_.max_logit_rows} * spec_.vocab_size},
      {&stats_, rows * spec_.num_layers * spec_.num_heads * stats_floats},
      {&branch_, branches ? rows * spec_.hidden_size : 0},
      {&router_logits_, rows * experts},
      {&gathered_, experts > 0 ? rows * spec_.hidden_size : 0},
      {&routed_, experts > 0 ? slots * spec_.hidden_size : 0},
  };
  if (experts > 0) router_ = ExpertRouter(spec_.experts, rows);
  for (const Buffer& buffer : buffers) {
    if (buffer.floats == 0) continue;
    absl::StatusOr<Memory> memory = Memory::Allocate(
        "activations (max_batch_tokens)", buffer.floats * static_cast<int64_t>(sizeof(float)));
    if (!memory.ok()) return memory.status();
    *buffer.memory = *std::move(memory);
  }
  return absl::OkStatus();
}

void Decoder::PrepareLayers() {
  for (const RopeSpec& rope : spec_.ropes) {
    inv_frequency_.push_back(InverseFrequencies(rope));
    inv_frequency_beyond_.push_back(FrequenciesBeyond(rope));
  }
  for (const LayerSpec& layer : spec_.layers) {
    windows_.push_back(layer.window);
    const auto same = std::find_if(plans_.begin(), plans_.end(), [&](const WindowPlan& plan) {
      return plan.window == layer.window;
    });
    plan_of_layer_.push_back(static_cast<int>(same - plans_.begin()));
    if (same == plans_.end()) plans_.push_back({layer.window, {}});
  }
}

absl::Status Decoder::Start(const Batch& batch) {
  output_ = {};
  if (const char* problem = BatchProblem(batch, *this)) {
    return absl::InternalError(absl::StrCat("the batch has ", problem));
  }
  try {
    absl::Status status = Forward(batch);
    if (!status.ok()) return status;
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("the model's step failed: ", error.what()));
  }
  output_.logits = {logits_.As<const float>(), batch.logit_rows.size() * spec_.vocab_size};
  output_.hidden = {residual_.As<const float>(), batch.hidden_rows.size() * spec_.hidden_size};
  if (!batch.measured.empty()) output_.sums = sums_;
  if (!batch.watched.empty()) output_.span_mass = span_mass_;
  return absl::OkStatus();
}

absl::Status Decoder::Finish(StepOutput* output) {
  *output = output_;
  return absl::OkStatus();
}

absl::Status Decoder::Forward(const Batch& batch) {
  if (batch.num_rows() == 0) return absl::OkStatus();
  absl::Status status = PlanStep(batch);
  if (!status.ok()) return status;
  Embed(batch);
  int64_t rows = batch.num_rows();
  for (int layer = 0; layer < spec_.num_layers; ++layer) {
    Attend(layer, batch);
    // After the last attention a row matters only for its own output.
    if (layer == spec_.num_layers - 1) {
      if (!batch.measured.empty()) SumRows(batch);
      KeepRows(batch);
      rows = static_cast<int64_t>(kept_rows_.size());
    }
    if (rows == 0) return absl::OkStatus();
    const LayerWeights& weights = weights_.layers[layer];
    const float* x = nullptr;
    if (spec_.parallel_residual) x = FeedForwardInput(weights, rows);
    AddAttentionOut(weights, rows);
    if (!spec_.parallel_residual) x = FeedForwardInput(weights, rows);
    AddFeedForward(weights, x, rows);
  }
  ComputeOutputs(batch);
  return absl::OkStatus();
}

void Decoder::Embed(const Batch& batch) {
  const int64_t hidden = spec_.hidden_size;
  parallel_(batch.num_rows(), [&](int64_t row) {
    float* x = residual_.As<float>() + row * hidden;
    kernels::UnpackRow(weights_.embedding, batch.tokens[row], x);
    if (spec_.embedding_scale != 1) {
      for (int64_t i = 0; i < hidden; ++i) x[i] *= spec_.embedding_scale;
    }
    if (spec_.learned_positions) {
      float* position = normed_.As<float>() + row * hidden;
      kernels::UnpackRow(weights_.positions, batch.positions[row], position);
      for (int64_t i = 0; i < hidden; ++i) x[i] += position[i];
    }
  });
}

kernels::RaggedBatch Decoder::Ragged(const Batch& batch) const {
  return {batch.num_seqs(), batch.qo_indptr.data(), batch.kv_len.data(), batch.block_tables.data(),
          batch.block_table_stride};
}

absl::Status Decoder::PlanStep(const Batch& batch) {
  int64_t floats = 0;
  for (WindowPlan& plan : plans_) {
    kernels::PlanAttention(shape_, Ragged(batch), plan.window, &plan.plan);
    floats = std::max(floats, plan.plan.workspace_floats);
  }
  const int64_t bytes = floats * static_cast<int64_t>(sizeof(float));
  if (bytes <= workspace_.bytes()) return absl::OkStatus();
  // Half as much again, so that a growing context does not allocate at every step.
  absl::StatusOr<Memory> grown = Memory::Allocate("attention's workspace", bytes + bytes / 2);
  if (!grown.ok()) return grown.status();
  workspace_ = *std::move(grown);
  return absl::OkStatus();
}

std::byte* Decoder::KPages(int layer) const {
  return pages_.As<std::byte>() + int64_t{layer} * 2 * num_blocks_ * page_bytes();
}

void Decoder::Attend(int layer, const Batch& batch) {
  const LayerWeights& weights = weights_.layers[layer];
  const LayerSpec& spec = spec_.layers[layer];
  const int64_t rows = batch.num_rows();
  const float* x = residual_.As<float>();
  if (spec_.pre_norm) {
    Normalise(x, weights.attention_norm, rows, normed_.As<float>());
    x = normed_.As<float>();
  }
  Gemm(x, rows, weights.qkv, false, qkv_.As<float>());
  if (spec_.qk_norm != QkNorm::kNone) NormaliseQk(weights, rows);

  kernels::RopeAppendParams append;
  append.shape = shape_;
  if (spec.rope != LayerSpec::kNoRope) {
    const RopeSpec& rope = spec_.ropes[spec.rope];
    const std::vector<float>& beyond = inv_frequency_beyond_[spec.rope];
    append.rope = {rope.style,     rope.rotary_dim, inv_frequency_[spec.rope].data(),
                   rope.magnitude, rope.knee,       beyond.empty() ? nullptr : beyond.data()};
  }
  append.qkv = qkv_.As<float>();
  append.rows = rows;
  append.positions = batch.positions.data();
  append.slots = batch.slots.data();
  append.k_pages = KPages(layer);
  append.v_pages = VPages(layer);
  append.saturated = &saturated_values_;
  kernels::RopeAppend(append, parallel_);

  kernels::AttentionParams params;
  params.shape = shape_;
  params.batch = Ragged(batch);
  params.q = qkv_.As<float>();
  params.q_stride = qkv_width();
  params.k_pages = append.k_pages;
  params.v_pages = append.v_pages;
  params.out = attention_.As<float>();
  params.out_stride = query_width();
  if (batch.needs_stats()) {
    params.stats = stats_.As<kernels::RowStats>() + layer * rows * spec_.num_heads;
  }
  params.policy = spec.policy.view();
  params.softmax_scale = spec_.softmax_scale;
  params.logit_softcap = spec_.attention_softcap;
  params.window = spec.window;
  params.sinks = weights.sinks;
  kernels::RunAttention(params, plans_[plan_of_layer_[layer]].plan, workspace_.As<float>(),
                        parallel_);
  if (!batch.watched.empty()) MeasureSpans(layer, params, batch);
}

void Decoder::MeasureSpans(int layer, const kernels::AttentionParams& params, const Batch& batch) {
  int64_t floats = 0;  // of a layer
  for (const kernels::WatchedRow& w : batch.watched) floats += spec_.num_heads * w.num_spans;
  span_mass_.resize(static_cast<size_t>(spec_.num_layers * floats));
  float* mass = span_mass_.data() + layer * floats;
  for (const kernels::WatchedRow& w : batch.watched) {
    kernels::SpanMass(params, w, mass, parallel_);
    mass += spec_.num_heads * w.num_spans;
  }
}

void Decoder::SumRows(const Batch& batch) {
  sums_.resize(
      static_cast<size_t>(kernels::SumsOf(batch.measured, spec_.num_layers, spec_.num_heads)));
  kernels::SumRowsParams params;
  params.stats = stats_.As<kernels::RowStats>();
  params.rows = batch.num_rows();
  params.num_layers = spec_.num_layers;
  params.num_heads = spec_.num_heads;
  params.windows = windows_.data();
  params.measured = batch.measured.data();
  params.count = static_cast<int32_t>(batch.measured.size());
  params.sums = sums_.data();
  kernels::SumRows(params, parallel_);
}

void Decoder::NormaliseQk(const LayerWeights& weights, int64_t rows) {
  const bool whole = spec_.qk_norm == QkNorm::kWhole;
  const auto normalise = [&](float* x, const float* weight, int64_t heads) {
    const kernels::NormParams params = {spec_.norm, spec_.norm_epsilon, weight};
    kernels::NormGroups(x, qkv_width(), params, spec_.qk_norm == QkNorm::kOwnWeights, rows,
                        whole ? 1 : heads, whole ? heads * spec_.head_dim : spec_.head_dim,
                        parallel_);
  };
  normalise(qkv_.As<float>(), weights.q_norm, spec_.num_heads);
  normalise(qkv_.As<float>() + query_width(), weights.k_norm, spec_.num_kv_heads);
}

void Decoder::AddAttentionOut(const LayerWeights& weights, int64_t rows) {
  AddBranch(attention_.As<float>(), rows, weights.attention_out, weights.post_attention_norm);
}

const float* Decoder::FeedForwardInput(const LayerWeights& weights, int64_t rows) {
  if (!spec_.pre_norm) return residual_.As<float>();
  Normalise(residual_.As<float>(), weights.ffn_norm, rows, normed_.As<float>());
  return normed_.As<float>();
}

void Decoder::AddFeedForward(const LayerWeights& weights, const float* x, int64_t rows) {
  if (spec_.experts.count > 0) {
    RouteToExperts(weights, x, rows);
    return AddBranchOutput(weights.post_ffn_norm, rows);
  }
  const FeedForwardWeights& ffn = weights.feed_forward[0];
  Gemm(x, rows, ffn.in, false, gate_up_.As<float>());
  kernels::Activate(spec_.activation, spec_.gated_ffn, gate_up_.As<float>(), rows, spec_.ffn_size,
                    hidden_.As<float>(), parallel_);
  AddBranch(hidden_.As<float>(), rows, ffn.down, weights.post_ffn_norm);
}

void Decoder::AddBranch(const float* x, int64_t rows, const Linear& linear,
                        const NormWeights& post_norm) {
  if (!spec_.post_norm && spec_.residual_scale == 1) {
    return Gemm(x, rows, linear, true, residual_.As<float>());
  }
  Gemm(x, rows, linear, false, branch_.As<float>());
  AddBranchOutput(post_norm, rows);
}

void Decoder::AddBranchOutput(const NormWeights& post_norm, int64_t rows) {
  if (spec_.post_norm) Normalise(branch_.As<float>(), post_norm, rows, branch_.As<float>());
  kernels::AddScaled(branch_.As<float>(), spec_.residual_scale, rows, spec_.hidden_size,
                     residual_.As<float>(), parallel_);
}

void Decoder::RouteToExperts(const LayerWeights& weights, const float* x, int64_t rows) {
  const int64_t hidden = spec_.hidden_size;
  Gemm(x, rows, weights.router, false, router_logits_.As<float>());
  router_.Route(router_logits_.As<float>(), rows);
  for (int64_t expert = 0; expert < spec_.experts.count; ++expert) {
    const std::span<const int32_t> chosen = router_.rows(expert);
    const int64_t count = static_cast<int64_t>(chosen.size());
    if (count == 0) continue;
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(gathered_.As<float>() + i * hidden, x + chosen[i] * hidden,
                  hidden * sizeof(float));
    }
    const FeedForwardWeights& ffn = weights.feed_forward[expert];
    Gemm(gathered_.As<float>(), count, ffn.in, false, gate_up_.As<float>());
    kernels::Activate(spec_.activation, spec_.gated_ffn, gate_up_.As<float>(), count,
                      spec_.ffn_size, hidden_.As<float>(), parallel_);
    Gemm(hidden_.As<float>(), count, ffn.down, false,
         routed_.As<float>() + router_.first_slot(expert) * hidden);
  }
  parallel_(rows, [&](int64_t row) {
    float* sum = branch_.As<float>() + row * hidden;
    std::fill(sum, sum + hidden, 0.0f);
    for (const ExpertRouter::Choice& choice : router_.choices(row)) {
      kernels::AddScaled(routed_.As<float>() + choice.slot * hidden, choice.weight, 1, hidden, sum,
                         {});
    }
  });
}

void Decoder::KeepRows(const Batch& batch) {
  kept_rows_.resize(batch.logit_rows.size() + batch.hidden_rows.size());
  std::merge(batch.logit_rows.begin(), batch.logit_rows.end(), batch.hidden_rows.begin(),
             batch.hidden_rows.end(), kept_rows_.begin());
  const auto keep = [&](float* rows, int64_t width) {
    for (size_t i = 0; i < kept_rows_.size(); ++i) {
      const int64_t row = kept_rows_[i];  // >= i, as they ascend
      if (row == static_cast<int64_t>(i)) continue;
      std::memcpy(rows + i * width, rows + row * width, width * sizeof(float));
    }
  };
  keep(residual_.As<float>(), spec_.hidden_size);
  keep(attention_.As<float>(), query_width());
}

void Decoder::ComputeOutputs(const Batch& batch) {
  const int64_t hidden = spec_.hidden_size;
  Normalise(residual_.As<float>(), weights_.output_norm, static_cast<int64_t>(kept_rows_.size()),
            normed_.As<float>());
  // Apart again, each in order.
  int64_t rows = 0, states = 0;
  for (size_t i = 0; i < kept_rows_.size() && !batch.hidden_rows.empty(); ++i) {
    const bool state =
        std::binary_search(batch.hidden_rows.begin(), batch.hidden_rows.end(), kept_rows_[i]);
    float* const to =
        state ? residual_.As<float>() + states++ * hidden : normed_.As<float>() + rows++ * hidden;
    std::memmove(to, normed_.As<float>() + static_cast<int64_t>(i) * hidden,
                 hidden * sizeof(float));
  }
  rows = static_cast<int64_t>(batch.logit_rows.size());
  if (rows == 0) return;
  Gemm(normed_.As<float>(), rows, weights_.output, false, logits_.As<float>());
  if (spec_.logit_scale != 1 || spec_.logit_softcap != 0) {
    kernels::ScaleAndCap(spec_.logit_scale, spec_.logit_softcap, rows, spec_.vocab_size,
                         logits_.As<float>(), parallel_);
  }
}

void Decoder::Normalise(const float* x, const NormWeights& weights, int64_t rows,
                        float* out) const {
  const kernels::NormParams params = {spec_.norm, spec_.norm_epsilon, weights.weight, weights.bias};
  kernels::Norm(x, params, rows, spec_.hidden_size, out, parallel_);
}

void Decoder::Gemm(const float* x, int64_t rows, const Linear& linear, bool accumulate,
                   float* y) const {
  kernels::GemmParams params;
  params.x = x;
  params.x_stride = linear.weight.k;
  params.m = rows;
  params.weight = linear.weight;
  params.bias = linear.bias;
  params.accumulate = accumulate;
  params.y = y;
  params.y_stride = linear.weight.n;
  kernels::Gemm(params, parallel_);
}

void Decoder::ZeroBlocks(std::span<const int32_t> blocks) {
  const int64_t bytes = page_bytes();
  for (int layer = 0; layer < spec_.num_layers; ++layer) {
    for (const int32_t block : blocks) {
      std::memset(KPages(layer) + block * bytes, 0, static_cast<size_t>(bytes));
      std::memset(VPages(layer) + block * bytes, 0, static_cast<size_t>(bytes));
    }
  }
}

}  // namespace acuity::engine
