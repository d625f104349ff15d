// GpuDecoder's feed-forward, dense or of experts.
#include "engine/gpu/gpu_decoder.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/layer_ops.h"

namespace acuity::engine {
namespace {

constexpr int64_t kHalf = 2;

}  // namespace

void GpuDecoder::FeedForward(const GpuLayer& weights, const Rows& rows) {
  if (spec_.experts.count > 0) {
    RouteToExperts(weights, rows);
    if (!spec_.post_norm) return;
    Widen(branch_.As<void>(), rows.count, spec_.hidden_size, wide_.As<float>());
    return PostNormalise(rows, weights.post_ffn_norm);
  }
  const GpuFeedForward& ffn = weights.feed_forward[0];
  Gemm(normed_.As<void>(), rows.count, ffn.in, gate_up_.As<void>());
  Activate(rows.count);
  Branch(hidden_.As<void>(), rows, ffn.down, weights.post_ffn_norm);
}

void GpuDecoder::Activate(int64_t rows) {
  kernels::cuda::ActivateParams activate;
  activate.activation = spec_.activation;
  activate.gated = spec_.gated_ffn;
  activate.in = gate_up_.As<void>();
  activate.rows = rows;
  activate.dim = spec_.ffn_size;
  activate.out = hidden_.As<void>();
  Check(kernels::cuda::Activate(activate, device_->stream()));
}

void GpuDecoder::RouteToExperts(const GpuLayer& weights, const Rows& rows) {
  const int64_t hidden = spec_.hidden_size, per_token = spec_.experts.per_token;
  WideGemm(normed_.As<void>(), rows.count, weights.router, router_logits_.As<float>());
  kernels::cuda::RouteExpertsParams route;
  route.logits = router_logits_.As<float>();
  route.rows = rows.count;
  route.count = spec_.experts.count;
  route.per_token = spec_.experts.per_token;
  route.normalised = spec_.experts.normalised;
  route.experts = chosen_.As<int32_t>();
  route.weights = choice_weights_.As<float>();
  route.slots = choice_slots_.As<int32_t>();
  route.begin = slot_begin_.As<int32_t>();
  route.slot_rows = slot_rows_.As<int32_t>();
  Check(kernels::cuda::RouteExperts(route, device_->stream()));
  Check(kernels::cuda::GatherRows({normed_.As<void>(), slot_rows_.As<int32_t>(),
                                   rows.count * per_token, hidden * kHalf, gathered_.As<void>()},
                                  device_->stream()));
  // The host must know how many rows each expert's products have.
  const auto* begin = pinned_slot_begin_.As<int32_t>();
  Check(device_->CopyToHost(pinned_slot_begin_.As<void>(), slot_begin_.As<void>(),
                            slot_begin_.bytes()));
  Check(device_->Synchronise());
  if (!enqueued_.ok()) return;
  const auto for_each_expert = [&](const DeviceMemory& x, auto linear, const DeviceMemory& y) {
    for (size_t e = 0; e < weights.feed_forward.size(); ++e) {
      const GpuLinear& one = weights.feed_forward[e].*linear;
      if (begin[e] == begin[e + 1]) continue;
      Gemm(x.As<std::byte>() + begin[e] * one.k * kHalf, begin[e + 1] - begin[e], one,
           y.As<std::byte>() + begin[e] * one.n * kHalf);
    }
  };
  for_each_expert(gathered_, &GpuFeedForward::in, gate_up_);
  Activate(rows.count * per_token);
  for_each_expert(hidden_, &GpuFeedForward::down, routed_);
  kernels::cuda::CombineExpertsParams combine;
  combine.routed = routed_.As<void>();
  combine.slots = choice_slots_.As<int32_t>();
  combine.weights = choice_weights_.As<float>();
  combine.per_token = spec_.experts.per_token;
  combine.rows = rows.count;
  combine.dim = spec_.hidden_size;
  combine.out = branch_.As<void>();
  Check(kernels::cuda::CombineExperts(combine, device_->stream()));
}

}  // namespace acuity::engine
