// The series of one model, as an engine's observer.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>

#include "engine/engine.h"
#include "server/metrics/attention_feed.h"

namespace acuity::server {

// The families that all models share, created once in a registry.
struct MetricFamilies {
  explicit MetricFamilies(prometheus::Registry& registry);

  prometheus::Family<prometheus::Counter>&prompt_tokens, &generation_tokens, &cache_query_tokens,
      &cache_hit_tokens, &preemptions, &requests, &rejected, &corrupted;
  prometheus::Family<prometheus::Histogram>&time_to_first_token, &inter_token_latency,
      &request_duration, &queue_duration, &prefill_duration, &decode_duration, &prompt_length,
      &generation_length, &batch_size, &step_duration;
  prometheus::Family<prometheus::Histogram>&normalized_entropy, &max_probability,
      &effective_context_fraction;
  prometheus::Family<prometheus::Gauge>&last_normalized_entropy, &last_max_probability,
      &last_effective_context_fraction;
};

// Thread-safe; called on the engine thread and, for rejections, on RPC threads.
class ModelMetrics final : public engine::EngineObserver {
 public:
  ModelMetrics(const std::string& model, MetricFamilies* families);

  void OnStep(const engine::StepStats& stats) override;
  void OnInterTokenLatency(absl::Duration latency) override;
  void OnRequest(const engine::RequestStats& stats) override;
  void OnRejected(const char* reason) override;

  const AttentionFeed& attention_feed() const { return attention_feed_; }

 private:
  void ObserveAttention(const engine::AttentionReport& summary);

  const std::string model_;
  AttentionFeed attention_feed_;
  MetricFamilies& families_;
  prometheus::Counter &prompt_tokens_, &generation_tokens_, &cache_query_tokens_,
      &cache_hit_tokens_, &preemptions_, &corrupted_;
  prometheus::Histogram &time_to_first_token_, &inter_token_latency_, &request_duration_,
      &queue_duration_, &prefill_duration_, &decode_duration_, &prompt_length_, &generation_length_,
      &batch_size_, &step_duration_;
};

}  // namespace acuity::server
