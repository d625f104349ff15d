#include "server/metrics/metrics.h"

#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/metrics/attention_feed.h"
#include "server/metrics/http_server.h"
#include "server/metrics/model_metrics.h"
#include "server/web/web_files.h"

namespace acuity::server {
namespace {

prometheus::MetricFamily GaugeFamily(const char* name, const char* help) {
  return {name, help, prometheus::MetricType::Gauge, {}};
}

prometheus::MetricFamily CounterFamily(const char* name, const char* help) {
  return {name, help, prometheus::MetricType::Counter, {}};
}

void Append(prometheus::MetricFamily& family, std::vector<prometheus::ClientMetric::Label> labels,
            double value) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = metric.counter.value = value;  // the family's type says which is read
  family.metric.push_back(std::move(metric));
}

// Reads the engines when somebody asks, so that gauges are never stale.
class EngineWatcher {
 public:
  void Watch(const std::string& name, const engine::Engine* engine, const AttentionFeed* feed) {
    std::lock_guard lock(mutex_);
    engines_[name] = {engine, feed};
  }
  void Clear() {
    std::lock_guard lock(mutex_);
    engines_.clear();
  }

  std::vector<prometheus::MetricFamily> Collect() const {
    auto waiting = GaugeFamily("acuity_requests_waiting", "Sequences in the queue");
    auto running = GaugeFamily("acuity_requests_running", "Sequences in the batch");
    auto utilization = GaugeFamily("acuity_kv_cache_utilization",
                                   "Share of KV blocks held by live sequences, 0 to 1");
    auto blocks = GaugeFamily("acuity_kv_cache_blocks_held", "KV blocks held by live sequences");
    auto cache = GaugeFamily("acuity_kv_cache_info", "1; the KV cache's shape is in the labels");
    auto saturated = CounterFamily(
        "acuity_kv_saturated_values_total",
        "Elements of keys and values beyond what an 8-bit KV cache holds, stored as 448");
    auto info = GaugeFamily("acuity_model_info", "1; what is served is in the labels");
    auto load = GaugeFamily("acuity_model_load_seconds", "How long the model took to load");
    std::lock_guard lock(mutex_);
    for (const auto& [name, watched] : engines_) {
      const engine::EngineGauges g = watched.engine->gauges();
      const engine::ModelInfo& m = watched.engine->info();
      Append(waiting, {{"model", name}}, g.waiting);
      Append(running, {{"model", name}}, g.running);
      Append(utilization, {{"model", name}}, static_cast<double>(g.held_blocks) / g.num_blocks);
      Append(blocks, {{"model", name}}, g.held_blocks);
      Append(cache,
             {{"model", name},
              {"dtype", m.kv_dtype},
              {"block_size", absl::StrCat(m.block_size)},
              {"num_blocks", absl::StrCat(m.num_blocks)}},
             1);
      Append(saturated, {{"model", name}}, static_cast<double>(g.saturated_values));
      Append(info,
             {{"model", name},
              {"architecture", m.architecture},
              {"dtype", m.dtype},
              {"attention_policy", m.policy},
              {"max_context", absl::StrCat(m.max_context)},
              {"cpu_isa", m.isa}},
             1);
      Append(load, {{"model", name}}, m.load_seconds);
    }
    return {waiting, running, utilization, blocks, cache, saturated, info, load};
  }

  // The attention page's data.
  std::string PageJson() const {
    nlohmann::ordered_json models = nlohmann::ordered_json::array();
    std::lock_guard lock(mutex_);
    for (const auto& [name, watched] : engines_) {
      const engine::EngineGauges g = watched.engine->gauges();
      const engine::ModelInfo& m = watched.engine->info();
      nlohmann::ordered_json model = {{"name", name},
                                      {"architecture", m.architecture},
                                      {"dtype", m.dtype},
                                      {"kv_dtype", m.kv_dtype},
                                      {"policy", m.policy},
                                      {"num_layers", m.num_layers},
                                      {"max_context", m.max_context},
                                      {"waiting", g.waiting},
                                      {"running", g.running},
                                      {"held_blocks", g.held_blocks},
                                      {"num_blocks", g.num_blocks},
                                      {"computed_tokens", g.computed_tokens},
                                      {"generated_tokens", g.generated_tokens}};
      watched.feed->Fill(&model);
      models.push_back(std::move(model));
    }
    const nlohmann::ordered_json page = {
        {"time", absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())},
        {"models", std::move(models)}};
    return page.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

 private:
  struct Watched {
    const engine::Engine* engine = nullptr;
    const AttentionFeed* feed = nullptr;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Watched> engines_;
};

class MetricsImpl : public Metrics {
 public:
  absl::Status Serve(const std::string& listen) {
    std::map<std::string, HttpResource> resources;
    for (const WebFile& file : WebFiles()) {
      const auto body = [&file] { return std::string(file.body); };
      resources[std::string(file.path)] = {std::string(file.content_type), body};
      if (file.path == "/index.html") resources["/"] = resources["/index.html"];
    }
    resources["/attention.json"] = {"application/json", [this] { return gauges_.PageJson(); }};
    resources["/metrics"] = {"text/plain; version=0.0.4; charset=utf-8",
                             [this] { return MetricsText(); }};
    auto server = HttpServer::Start(listen, std::move(resources));
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    return absl::OkStatus();
  }

  engine::EngineObserver* AddModel(const std::string& name) override {
    auto& made = models_[name];
    made = std::make_unique<ModelMetrics>(name, &families_);
    return made.get();
  }
  void WatchEngine(const std::string& name, const engine::Engine* engine) override {
    gauges_.Watch(name, engine, &models_.at(name)->attention_feed());
  }
  void RemoveEngines() override { gauges_.Clear(); }
  std::atomic<int64_t>* unauthenticated_calls() override { return &unauthenticated_calls_; }
  std::string address() const override { return server_ == nullptr ? "" : server_->address(); }

 private:
  std::string MetricsText() const {
    std::vector<prometheus::MetricFamily> families = registry_.Collect();
    for (prometheus::MetricFamily& family : gauges_.Collect()) {
      families.push_back(std::move(family));
    }
    prometheus::ClientMetric refused;
    refused.counter.value = static_cast<double>(unauthenticated_calls_);
    families.push_back({"acuity_unauthenticated_calls_total",
                        "Calls that were refused for want of a valid token",
                        prometheus::MetricType::Counter,
                        {refused}});
    std::ostringstream text;
    prometheus::TextSerializer().Serialize(text, families);
    return std::move(text).str();
  }

  prometheus::Registry registry_;
  EngineWatcher gauges_;
  std::atomic<int64_t> unauthenticated_calls_{0};
  MetricFamilies families_{registry_};
  std::map<std::string, std::unique_ptr<ModelMetrics>> models_;
  std::unique_ptr<HttpServer> server_;  // last: stops serving before the rest goes
};

}  // namespace

absl::StatusOr<std::unique_ptr<Metrics>> Metrics::Start(const std::string& listen) {
  auto metrics = std::make_unique<MetricsImpl>();
  const absl::Status serving = metrics->Serve(listen);
  if (!serving.ok()) return serving;
  return metrics;
}

std::unique_ptr<Metrics> Metrics::Unserved() { return std::make_unique<MetricsImpl>(); }

}  // namespace acuity::server
