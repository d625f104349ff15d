// What one model's requests took in all, as an engine's observer: ModelStatistics of the Open
// Inference Protocol reports it.
#pragma once

#include <cstdint>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/engine.h"

namespace acuity::server {

// Thread-safe. Passes every event on.
class RequestTotals final : public engine::EngineObserver {
 public:
  struct Totals {
    int64_t succeeded = 0, failed = 0, steps = 0;
    absl::Duration success, fail;  // from arrival to the end
    absl::Duration queue;          // of those that succeeded: from arrival to the first step
    absl::Time last_end = absl::UnixEpoch();
  };

  // `next` is not owned and outlives this.
  explicit RequestTotals(engine::EngineObserver* next) : next_(next) {}

  Totals totals() const {
    std::lock_guard lock(mutex_);
    return totals_;
  }

  void OnStep(const engine::StepStats& stats) override {
    {
      std::lock_guard lock(mutex_);
      ++totals_.steps;
    }
    next_->OnStep(stats);
  }
  void OnInterTokenLatency(absl::Duration latency) override { next_->OnInterTokenLatency(latency); }
  void OnRejected(const char* reason) override { next_->OnRejected(reason); }
  void OnRequest(const engine::RequestStats& stats) override {
    const engine::RequestResult& result = *stats.result;
    {
      std::lock_guard lock(mutex_);
      ++(result.status.ok() ? totals_.succeeded : totals_.failed);
      (result.status.ok() ? totals_.success : totals_.fail) += result.timings.total;
      if (result.status.ok()) totals_.queue += result.timings.queue;
      totals_.last_end = absl::Now();
    }
    next_->OnRequest(stats);
  }

 private:
  engine::EngineObserver* const next_;
  mutable std::mutex mutex_;
  Totals totals_;
};

}  // namespace acuity::server
