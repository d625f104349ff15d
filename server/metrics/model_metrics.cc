#include "server/metrics/model_metrics.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace acuity::server {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kFirstTokenBuckets = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,
                                    .75,  1,    2.5, 5,   7.5, 10,  20,  40, 80,  160};
const Buckets kTokenBuckets = {.002, .004, .006, .008, .01, .015, .025, .05, .075,
                               .1,   .15,  .2,   .3,   .5,  .75,  1,    2.5, 5};
const Buckets kRequestBuckets = {.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320};
const Buckets kQueueBuckets = {.0005, .001, .0025, .005, .01, .025, .05, .1, .25,
                               .5,    1,    2.5,   5,    10,  30,   60,  120};
const Buckets kLengthBuckets = {1,    4,    16,   64,    128,   256,   512,   1024,
                                2048, 4096, 8192, 16384, 32768, 65536, 131072};
const Buckets kBatchBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256};
const Buckets kUnitBuckets = {.05, .1, .15, .2, .25, .3, .35, .4, .45, .5,
                              .55, .6, .65, .7, .75, .8, .85, .9, .95};
const Buckets kFractionBuckets = {.0005, .001, .0025, .005, .01, .025, .05,
                                  .1,    .15,  .2,    .3,   .4,  .6,   .8};

constexpr const char* kBandNames[] = {"front", "middle", "back"};

prometheus::Family<prometheus::Counter>& NewCounter(prometheus::Registry& registry,
                                                    const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
prometheus::Family<prometheus::Gauge>& NewGauge(prometheus::Registry& registry, const char* name,
                                                const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
prometheus::Family<prometheus::Histogram>& NewHistogram(prometheus::Registry& registry,
                                                        const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

}  // namespace

MetricFamilies::MetricFamilies(prometheus::Registry& registry)
    : prompt_tokens(
          NewCounter(registry, "acuity_prompt_tokens_total", "Prompt tokens of finished requests")),
      generation_tokens(NewCounter(registry, "acuity_generation_tokens_total",
                                   "Tokens generated for finished requests")),
      cache_query_tokens(NewCounter(registry, "acuity_prefix_cache_query_tokens_total",
                                    "Prompt tokens looked up in the prefix cache")),
      cache_hit_tokens(NewCounter(registry, "acuity_prefix_cache_hit_tokens_total",
                                  "Prompt tokens found in the prefix cache and not computed")),
      preemptions(NewCounter(registry, "acuity_preemptions_total",
                             "Running sequences that gave up their KV blocks to others")),
      requests(NewCounter(registry, "acuity_requests_total", "Requests that ended, by why")),
      rejected(NewCounter(registry, "acuity_requests_rejected_total",
                          "Requests that were refused before they were queued, by why")),
      corrupted(
          NewCounter(registry, "acuity_requests_corrupted_total",
                     "Requests that ended because their logits were not finite or a step failed")),
      time_to_first_token(NewHistogram(registry, "acuity_time_to_first_token_seconds",
                                       "From arrival (tokenisation included) to the first token")),
      inter_token_latency(NewHistogram(registry, "acuity_inter_token_latency_seconds",
                                       "Between two tokens of one sample")),
      request_duration(
          NewHistogram(registry, "acuity_request_duration_seconds", "From arrival to the end")),
      queue_duration(NewHistogram(registry, "acuity_queue_duration_seconds",
                                  "From arrival to the first step")),
      prefill_duration(NewHistogram(registry, "acuity_prefill_duration_seconds",
                                    "From the first step to the first token")),
      decode_duration(NewHistogram(registry, "acuity_decode_duration_seconds",
                                   "From the first token to the end")),
      prompt_length(
          NewHistogram(registry, "acuity_prompt_length_tokens", "Prompt length of a request")),
      generation_length(NewHistogram(registry, "acuity_generation_length_tokens",
                                     "Tokens generated for a request")),
      batch_size(
          NewHistogram(registry, "acuity_batch_size_sequences", "Sequences in an engine step")),
      step_duration(
          NewHistogram(registry, "acuity_step_duration_seconds", "Duration of an engine step")),
      normalized_entropy(NewHistogram(registry, "acuity_attention_normalized_entropy",
                                      "Mean H / ln n of a long prompt's rows, by layer band and "
                                      "context length: near 1 is flat attention")),
      max_probability(NewHistogram(registry, "acuity_attention_max_probability",
                                   "Mean largest attention probability of a long prompt's rows, by "
                                   "layer band and context length: near 0 is flat attention")),
      effective_context_fraction(
          NewHistogram(registry, "acuity_attention_effective_context_fraction",
                       "Mean e^H / n of a long prompt's rows, by layer band and context length")),
      last_normalized_entropy(NewGauge(registry, "acuity_attention_last_normalized_entropy",
                                       "H / ln n of the last measured prompt")),
      last_max_probability(NewGauge(registry, "acuity_attention_last_max_probability",
                                    "Largest attention probability of the last measured prompt")),
      last_effective_context_fraction(NewGauge(registry,
                                               "acuity_attention_last_effective_context_fraction",
                                               "e^H / n of the last measured prompt")) {}

ModelMetrics::ModelMetrics(const std::string& model, MetricFamilies* families)
    : model_(model),
      families_(*families),
      prompt_tokens_(families->prompt_tokens.Add({{"model", model}})),
      generation_tokens_(families->generation_tokens.Add({{"model", model}})),
      cache_query_tokens_(families->cache_query_tokens.Add({{"model", model}})),
      cache_hit_tokens_(families->cache_hit_tokens.Add({{"model", model}})),
      preemptions_(families->preemptions.Add({{"model", model}})),
      corrupted_(families->corrupted.Add({{"model", model}})),
      time_to_first_token_(
          families->time_to_first_token.Add({{"model", model}}, kFirstTokenBuckets)),
      inter_token_latency_(families->inter_token_latency.Add({{"model", model}}, kTokenBuckets)),
      request_duration_(families->request_duration.Add({{"model", model}}, kRequestBuckets)),
      queue_duration_(families->queue_duration.Add({{"model", model}}, kQueueBuckets)),
      prefill_duration_(families->prefill_duration.Add({{"model", model}}, kFirstTokenBuckets)),
      decode_duration_(families->decode_duration.Add({{"model", model}}, kRequestBuckets)),
      prompt_length_(families->prompt_length.Add({{"model", model}}, kLengthBuckets)),
      generation_length_(families->generation_length.Add({{"model", model}}, kLengthBuckets)),
      batch_size_(families->batch_size.Add({{"model", model}}, kBatchBuckets)),
      step_duration_(families->step_duration.Add({{"model", model}}, kTokenBuckets)) {
  for (const char* reason : {"stop", "length", "cancelled", "deadline", "error"}) {
    families_.requests.Add({{"model", model}, {"finish_reason", reason}});
  }
  for (const char* reason : {"invalid", "queue_full", "draining"}) {
    families_.rejected.Add({{"model", model}, {"reason", reason}});
  }
}

void ModelMetrics::OnStep(const engine::StepStats& stats) {
  step_duration_.Observe(absl::ToDoubleSeconds(stats.duration));
  batch_size_.Observe(stats.num_sequences);
  if (stats.preempted > 0) preemptions_.Increment(stats.preempted);
}

void ModelMetrics::OnInterTokenLatency(absl::Duration latency) {
  inter_token_latency_.Observe(absl::ToDoubleSeconds(latency));
}

void ModelMetrics::OnRejected(const char* reason) {
  families_.rejected.Add({{"model", model_}, {"reason", reason}}).Increment();
}

void ModelMetrics::OnRequest(const engine::RequestStats& stats) {
  const engine::RequestResult& result = *stats.result;
  const char* reason = "error";
  switch (stats.finish) {
    case engine::FinishReason::kStop:
      reason = "stop";
      break;
    case engine::FinishReason::kLength:
      reason = "length";
      break;
    case engine::FinishReason::kCancelled:
      reason = "cancelled";
      break;
    case engine::FinishReason::kDeadline:
      reason = "deadline";
      break;
    case engine::FinishReason::kNone:
    case engine::FinishReason::kError:
      break;
  }
  families_.requests.Add({{"model", model_}, {"finish_reason", reason}}).Increment();
  if (stats.finish == engine::FinishReason::kError) corrupted_.Increment();
  prompt_tokens_.Increment(result.prompt_tokens);
  generation_tokens_.Increment(result.completion_tokens);
  if (!stats.request->needs_every_row()) cache_query_tokens_.Increment(result.prompt_tokens);
  cache_hit_tokens_.Increment(result.cached_tokens);
  prompt_length_.Observe(result.prompt_tokens);
  const engine::RequestTimings& t = result.timings;
  request_duration_.Observe(absl::ToDoubleSeconds(t.total));
  queue_duration_.Observe(absl::ToDoubleSeconds(t.queue));
  if (result.completion_tokens > 0) {
    generation_length_.Observe(result.completion_tokens);
    time_to_first_token_.Observe(absl::ToDoubleSeconds(t.time_to_first_token));
    prefill_duration_.Observe(absl::ToDoubleSeconds(t.time_to_first_token - t.queue));
    decode_duration_.Observe(absl::ToDoubleSeconds(t.total - t.time_to_first_token));
  }
  if (stats.attention_summary != nullptr) ObserveAttention(*stats.attention_summary);
  attention_feed_.Observe(stats, reason, absl::Now());
}

void ModelMetrics::ObserveAttention(const engine::AttentionReport& summary) {
  for (size_t band = 0; band < summary.layers.size() && band < std::size(kBandNames); ++band) {
    for (const engine::AttentionBucket& bucket : summary.layers[band].buckets) {
      if (bucket.n_min < kMinContext) continue;
      const prometheus::Labels labels = {
          {"model", model_}, {"layers", kBandNames[band]}, {"context", absl::StrCat(bucket.n_min)}};
      families_.normalized_entropy.Add(labels, kUnitBuckets).Observe(bucket.normalized_entropy);
      families_.max_probability.Add(labels, kUnitBuckets).Observe(bucket.max_probability);
      families_.effective_context_fraction.Add(labels, kFractionBuckets)
          .Observe(bucket.effective_context_fraction);
      families_.last_normalized_entropy.Add(labels).Set(bucket.normalized_entropy);
      families_.last_max_probability.Add(labels).Set(bucket.max_probability);
      families_.last_effective_context_fraction.Add(labels).Set(bucket.effective_context_fraction);
    }
  }
}

}  // namespace acuity::server
