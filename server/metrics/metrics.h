// What Prometheus and the attention page see. The only folder that knows prometheus-cpp. Every row
// and the page's JSON are documented in docs/metrics.md.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace acuity::server {

// Thread-safe. Outlives every engine that it observes.
class Metrics {
 public:
  // Serves /metrics, the page and its data on HOST:PORT (port 0: any). Unavailable if the address
  // cannot be bound.
  static absl::StatusOr<std::unique_ptr<Metrics>> Start(const std::string& listen);
  // The same counters, served nowhere.
  static std::unique_ptr<Metrics> Unserved();
  virtual ~Metrics() = default;

  // The observer of one model, owned by this. Its series exist from now on.
  virtual engine::EngineObserver* AddModel(const std::string& name) = 0;
  // Where a model's gauges come from at each scrape. `engine` is not owned: call RemoveEngines
  // before it goes.
  virtual void WatchEngine(const std::string& name, const engine::Engine* engine) = 0;
  virtual void RemoveEngines() = 0;
  // To be counted up by whoever turns callers away. Lives as long as this.
  virtual std::atomic<int64_t>* unauthenticated_calls() = 0;

  virtual std::string address() const = 0;  // "" if not served
};

}  // namespace acuity::server
