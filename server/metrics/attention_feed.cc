#include "server/metrics/attention_feed.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace acuity::server {
namespace {

using Json = nlohmann::ordered_json;
using engine::AttentionBucket;
using engine::AttentionReport;
using engine::LayerReport;

// Six digits are more than a figure shows, and halve the answer's size.
double Rounded(double value) { return std::round(value * 1e6) / 1e6; }

// The longest contexts, n_min == 0 if there are none.
AttentionBucket Longest(const AttentionReport& report) {
  AttentionBucket longest;
  int layers = 0;
  for (const LayerReport& layer : report.layers) {
    if (layer.buckets.empty()) continue;
    const AttentionBucket& bucket = layer.buckets.back();
    if (bucket.n_min < longest.n_min) continue;
    if (bucket.n_min > longest.n_min) {
      longest = {.n_min = bucket.n_min, .n_max = bucket.n_max, .rows = bucket.rows};
      layers = 0;
    }
    ++layers;
    longest.normalized_entropy += bucket.normalized_entropy;
    longest.effective_context += bucket.effective_context;
    longest.max_probability += bucket.max_probability;
  }
  longest.normalized_entropy /= std::max(layers, 1);
  longest.effective_context /= std::max(layers, 1);
  longest.max_probability /= std::max(layers, 1);
  return longest;
}

// One array per statistic and layer, by column of `contexts`; null where the layer has no rows.
Json LayersJson(const AttentionReport& report, const std::set<int64_t>& contexts) {
  Json layers = Json::array();
  for (const LayerReport& layer : report.layers) {
    Json entropy = Json::array(), effective = Json::array(), probability = Json::array();
    auto bucket = layer.buckets.begin();
    for (const int64_t n : contexts) {
      const bool here = bucket != layer.buckets.end() && bucket->n_min == n;
      entropy.push_back(here ? Json(Rounded(bucket->normalized_entropy)) : Json());
      effective.push_back(here ? Json(Rounded(bucket->effective_context)) : Json());
      probability.push_back(here ? Json(Rounded(bucket->max_probability)) : Json());
      bucket += here ? 1 : 0;
    }
    layers.push_back({{"layer", layer.layer},
                      {"policy", layer.policy},
                      {"normalized_entropy", std::move(entropy)},
                      {"effective_context", std::move(effective)},
                      {"max_probability", std::move(probability)}});
  }
  return layers;
}

}  // namespace

void AttentionFeed::Observe(const engine::RequestStats& stats, const char* finish_reason,
                            absl::Time now) {
  if (stats.attention_layers == nullptr) return;
  const AttentionBucket longest = Longest(*stats.attention_layers);
  if (longest.n_min < kMinContext) return;
  auto layers = std::make_shared<const AttentionReport>(*stats.attention_layers);
  const engine::RequestResult& result = *stats.result;
  std::lock_guard lock(mutex_);
  layers_ = std::move(layers);
  recent_.push_front({.id = static_cast<uint64_t>(stats.request->id.value),
                      .time = now,
                      .prompt_tokens = result.prompt_tokens,
                      .cached_tokens = result.cached_tokens,
                      .completion_tokens = result.completion_tokens,
                      .finish_reason = finish_reason,
                      .timings = result.timings,
                      .longest = longest});
  if (recent_.size() > kRecent) recent_.pop_back();
}

Json AttentionFeed::ToJson(const Measured& measured) {
  return {{"id", measured.id},
          {"time", absl::ToDoubleSeconds(measured.time - absl::UnixEpoch())},
          {"prompt_tokens", measured.prompt_tokens},
          {"cached_tokens", measured.cached_tokens},
          {"completion_tokens", measured.completion_tokens},
          {"finish_reason", measured.finish_reason},
          {"time_to_first_token_seconds",
           measured.completion_tokens > 0
               ? Json(absl::ToDoubleSeconds(measured.timings.time_to_first_token))
               : Json()},
          {"total_seconds", absl::ToDoubleSeconds(measured.timings.total)},
          {"longest",
           {{"context", measured.longest.n_min},
            {"normalized_entropy", Rounded(measured.longest.normalized_entropy)},
            {"effective_context", Rounded(measured.longest.effective_context)},
            {"max_probability", Rounded(measured.longest.max_probability)}}}};
}

void AttentionFeed::Fill(Json* model) const {
  std::deque<Measured> recent;
  std::shared_ptr<const AttentionReport> report;
  {
    std::lock_guard lock(mutex_);
    recent = recent_;
    report = layers_;
  }
  (*model)["last"] = nullptr;
  (*model)["recent"] = Json::array();
  for (const Measured& measured : recent) (*model)["recent"].push_back(ToJson(measured));
  if (report == nullptr) return;
  std::set<int64_t> contexts;
  for (const LayerReport& layer : report->layers) {
    for (const AttentionBucket& bucket : layer.buckets) contexts.insert(bucket.n_min);
  }
  Json last = ToJson(recent.front());
  last["context"] = contexts;
  last["layers"] = LayersJson(*report, contexts);
  (*model)["last"] = std::move(last);
}

}  // namespace acuity::server
