// Passes an engine's events on to the metrics and writes one log line per request: its `status` is
// a code's name, its `error` the message, "" where there is none.
#pragma once

#include <string>
#include <utility>

#include "engine/engine.h"
#include "server/log.h"

namespace acuity::server {

class LoggingObserver final : public engine::EngineObserver {
 public:
  // `next` is not owned and outlives this.
  LoggingObserver(std::string model, engine::EngineObserver* next)
      : model_(std::move(model)), next_(next) {}

  void OnStep(const engine::StepStats& stats) override { next_->OnStep(stats); }
  void OnInterTokenLatency(absl::Duration latency) override { next_->OnInterTokenLatency(latency); }
  void OnRejected(const char* reason) override {
    next_->OnRejected(reason);
    Log(LogLevel::kInfo, "rejected", {{"model", model_}, {"reason", std::string(reason)}});
  }
  void OnRequest(const engine::RequestStats& stats) override {
    next_->OnRequest(stats);
    const engine::RequestResult& r = *stats.result;
    Log(r.status.ok() ? LogLevel::kInfo : LogLevel::kWarn, "request",
        {{"model", model_},
         {"id", static_cast<int64_t>(stats.request->id.value)},
         {"client_id", stats.request->client_id},
         {"tenant", stats.request->tenant},
         {"status", absl::StatusCodeToString(r.status.code())},
         {"error", std::string(r.status.message())},
         {"prompt_tokens", int64_t{r.prompt_tokens}},
         {"completion_tokens", int64_t{r.completion_tokens}},
         {"cached_tokens", int64_t{r.cached_tokens}},
         {"preemptions", int64_t{r.preemptions}},
         {"queue_ms", absl::ToDoubleMilliseconds(r.timings.queue)},
         {"ttft_ms", absl::ToDoubleMilliseconds(r.timings.time_to_first_token)},
         {"total_ms", absl::ToDoubleMilliseconds(r.timings.total)}});
  }

 private:
  const std::string model_;
  engine::EngineObserver* next_;
};

}  // namespace acuity::server
