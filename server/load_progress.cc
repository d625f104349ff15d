#include "server/load_progress.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "server/log.h"

namespace acuity::server {
namespace {

constexpr absl::Duration kPeriod = absl::Seconds(1);

struct Progress {
  std::mutex mutex;
  absl::Time next;  // guarded by mutex: when the next line is due
};

}  // namespace

std::function<void(int64_t, int64_t)> LogLoadProgress(std::string model, std::string path,
                                                      std::function<absl::Time()> now) {
  const absl::Time start = now();
  auto progress = std::make_shared<Progress>();
  progress->next = start + kPeriod;
  return [model = std::move(model), path = std::move(path), now = std::move(now), start, progress](
             int64_t done, int64_t total) {
    // Who finds another thread at it has nothing newer to tell.
    const std::unique_lock lock(progress->mutex, std::try_to_lock);
    if (!lock.owns_lock()) return;
    const absl::Time time = now();
    if (time < progress->next) return;
    progress->next = time + kPeriod;
    const double seconds = absl::ToDoubleSeconds(time - start);
    Log(LogLevel::kInfo, "loading model",
        {{"model", model},
         {"path", path},
         {"done_bytes", done},
         {"total_bytes", total},
         {"percent", 100 * done / std::max<int64_t>(total, 1)},
         {"bytes_per_second", static_cast<int64_t>(static_cast<double>(done) / seconds)}});
  };
}

}  // namespace acuity::server
