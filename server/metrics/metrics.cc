#include "server/metrics/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/metrics/model_metrics.h"

namespace acuity::server {
namespace {

// A half-open scraper holds one thread for the time-out and no longer; enough threads are left for
// the real one.
constexpr const char* kHttpThreads = "16";
constexpr const char* kRequestTimeoutMs = "2000";

prometheus::MetricFamily GaugeFamily(const char* name, const char* help) {
  return {name, help, prometheus::MetricType::Gauge, {}};
}

void Append(prometheus::MetricFamily& family, std::vector<prometheus::ClientMetric::Label> labels,
            double value) {
  prometheus::ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
}

// Reads the engines when somebody scrapes, so that gauges are never stale.
class EngineGaugeCollector : public prometheus::Collectable {
 public:
  void Watch(const std::string& name, const engine::Engine* engine) {
    std::lock_guard lock(mutex_);
    engines_[name] = engine;
  }
  void Clear() {
    std::lock_guard lock(mutex_);
    engines_.clear();
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    auto waiting = GaugeFamily("acuity_requests_waiting", "Sequences in the queue");
    auto running = GaugeFamily("acuity_requests_running", "Sequences in the batch");
    auto utilization = GaugeFamily("acuity_kv_cache_utilization",
                                   "Share of KV blocks held by live sequences, 0 to 1");
    auto blocks = GaugeFamily("acuity_kv_cache_blocks_held", "KV blocks held by live sequences");
    auto cache = GaugeFamily("acuity_kv_cache_info", "1; the KV cache's shape is in the labels");
    auto info = GaugeFamily("acuity_model_info", "1; what is served is in the labels");
    auto load = GaugeFamily("acuity_model_load_seconds", "How long the model took to load");
    std::lock_guard lock(mutex_);
    for (const auto& [name, engine] : engines_) {
      const engine::EngineGauges g = engine->gauges();
      const engine::ModelInfo& m = engine->info();
      Append(waiting, {{"model", name}}, g.waiting);
      Append(running, {{"model", name}}, g.running);
      Append(utilization, {{"model", name}}, static_cast<double>(g.held_blocks) / g.num_blocks);
      Append(blocks, {{"model", name}}, g.held_blocks);
      Append(cache,
             {{"model", name},
              {"block_size", absl::StrCat(m.block_size)},
              {"num_blocks", absl::StrCat(m.num_blocks)}},
             1);
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
    return {waiting, running, utilization, blocks, cache, info, load};
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, const engine::Engine*> engines_;
};

class MetricsImpl : public Metrics {
 public:
  absl::Status Serve(const std::string& listen) {
    // civetweb knows addresses, not names.
    std::string address = listen;
    if (address.rfind("localhost:", 0) == 0) address.replace(0, 9, "127.0.0.1");
    try {
      exposer_ = std::make_unique<prometheus::Exposer>(
          std::vector<std::string>{"listening_ports", address, "num_threads", kHttpThreads,
                                   "request_timeout_ms", kRequestTimeoutMs});
    } catch (const std::exception& e) {
      return absl::UnavailableError(absl::StrCat("--metrics-listen: cannot bind ", listen,
                                                 ": in use, not permitted or not HOST:PORT"));
    }
    exposer_->RegisterCollectable(registry_);
    exposer_->RegisterCollectable(gauges_);
    address_ = absl::StrCat(address.substr(0, address.rfind(':') + 1),
                            exposer_->GetListeningPorts().front());
    return absl::OkStatus();
  }

  engine::EngineObserver* AddModel(const std::string& name) override {
    auto& made = models_[name];
    made = std::make_unique<ModelMetrics>(name, &families_);
    return made.get();
  }
  void WatchEngine(const std::string& name, const engine::Engine* engine) override {
    gauges_->Watch(name, engine);
  }
  void RemoveEngines() override { gauges_->Clear(); }
  std::string address() const override { return address_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::shared_ptr<EngineGaugeCollector> gauges_ = std::make_shared<EngineGaugeCollector>();
  MetricFamilies families_{*registry_};
  std::map<std::string, std::unique_ptr<ModelMetrics>> models_;
  std::string address_;
  std::unique_ptr<prometheus::Exposer> exposer_;  // last: stops serving before the rest goes
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
