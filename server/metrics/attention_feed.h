// What the attention page shows of one model beyond its gauges: the last long prompt by layer, and
// the last few of them in short. docs/metrics.md documents the JSON.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "engine/engine.h"

namespace acuity::server {

// Rows that see fewer keys say nothing about long contexts: neither the attention metrics nor the
// page show prompts whose measured rows all do.
inline constexpr int64_t kMinContext = 256;

// Thread-safe. Holds one report by layer and kRecent lines.
class AttentionFeed {
 public:
  static constexpr size_t kRecent = 32;

  // Takes a request that was measured up to kMinContext keys and more; `now` is when it ended.
  void Observe(const engine::RequestStats& stats, const char* finish_reason, absl::Time now);
  // Sets "last" (null before the first) and "recent" (newest first) in `model`.
  void Fill(nlohmann::ordered_json* model) const;

 private:
  struct Measured {
    uint64_t id = 0;
    absl::Time time;
    int prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
    const char* finish_reason = "";
    engine::RequestTimings timings;
    engine::AttentionBucket longest;  // mean of the layers that have rows there
  };
  static nlohmann::ordered_json ToJson(const Measured& measured);

  mutable std::mutex mutex_;
  std::deque<Measured> recent_;                            // newest first
  std::shared_ptr<const engine::AttentionReport> layers_;  // of recent_.front()
};

}  // namespace acuity::server
