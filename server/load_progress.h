// What the log says while a model's weights are read.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace acuity::server {

// For EngineOptions::on_load: logs "loading model" with the bytes in memory, their share and the
// rate since the start, once the load has taken a second and then at most once a second. The load
// starts now. Thread-safe, and so must `now` be.
std::function<void(int64_t done_bytes, int64_t total_bytes)> LogLoadProgress(
    std::string model, std::string path, std::function<absl::Time()> now = absl::Now);

}  // namespace acuity::server
