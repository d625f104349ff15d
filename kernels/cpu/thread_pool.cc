#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace acuity::kernels {
namespace {

using Clock = std::chrono::steady_clock;

// A decoder layer starts a region every few tens of microseconds; a futex wake costs about as much.
// Longer gaps (sampling, the scheduler) are for the front end.
constexpr std::chrono::microseconds kSpin{50};
constexpr int kPausesPerClockRead = 16;

thread_local bool inside_region = false;

// Spins until done() or for kSpin; whether done() held.
template <typename Done>
bool SpinUntil(Done done) {
  const Clock::time_point give_up = Clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (done()) return true;
      _mm_pause();
    }
  } while (Clock::now() < give_up);
  return false;
}

}  // namespace

// A region is open while `gate` has kOpen. Workers count themselves in and out of the gate: one
// that comes too late sees it closed and touches nothing, so that the caller waits only for those
// inside, never for a sleeper.
struct ThreadPool::Impl {
  static constexpr uint32_t kOpen = 1u << 31;

  std::mutex run_mutex;  // one region at a time

  // Written by the caller while the gate is closed.
  ParallelFor::Body body = nullptr;
  void* ctx = nullptr;
  int64_t count = 0;

  // Each on its own cache line: `next` is hit for every task.
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<uint32_t> gate{0};
  alignas(64) std::atomic<uint32_t> epoch{0};  // regions opened so far
  std::atomic<int> sleepers{0};
  std::atomic<bool> stopping{false};

  std::mutex sleep_mutex;
  std::condition_variable wake;

  std::vector<std::thread> workers;

  static void Run(void* self, int64_t count, ParallelFor::Body body, void* ctx) {
    static_cast<Impl*>(self)->RunRegion(count, body, ctx);
  }

  void RunRegion(int64_t region_count, ParallelFor::Body region_body, void* region_ctx) {
    assert(!inside_region && "ThreadPool is not re-entrant");
    if (workers.empty() || region_count <= 1) {
      for (int64_t i = 0; i < region_count; ++i) region_body(region_ctx, i);
      return;
    }
    const std::lock_guard<std::mutex> lock(run_mutex);
    body = region_body;
    ctx = region_ctx;
    count = region_count;
    next.store(0, std::memory_order_relaxed);
    gate.fetch_or(kOpen, std::memory_order_release);
    epoch.fetch_add(1);  // seq_cst, as `sleepers`: either we see the sleeper, or it sees the epoch
    if (sleepers.load() > 0) Wake(region_count - 1);

    ClaimTasks();
    gate.fetch_and(~kOpen, std::memory_order_acq_rel);
    const auto left = [this] { return gate.load(std::memory_order_acquire) == 0; };
    while (!SpinUntil(left)) std::this_thread::yield();  // a worker lost its core in mid-task
  }

  void Wake(int64_t tasks) {
    const std::lock_guard<std::mutex> lock(sleep_mutex);
    const int64_t wanted = std::min<int64_t>(tasks, sleepers.load());
    for (int64_t i = 0; i < wanted; ++i) wake.notify_one();
  }

  void ClaimTasks() {
    inside_region = true;
    for (;;) {
      const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) break;
      body(ctx, index);
    }
    inside_region = false;
  }

  void Work() {
    uint32_t seen = 0;
    for (;;) {
      const auto changed = [&] { return epoch.load() != seen || stopping.load(); };
      if (!SpinUntil(changed)) {
        std::unique_lock<std::mutex> lock(sleep_mutex);
        sleepers.fetch_add(1);
        wake.wait(lock, changed);
        sleepers.fetch_sub(1);
      }
      if (stopping.load()) return;
      seen = epoch.load();
      if ((gate.fetch_add(1, std::memory_order_acquire) & kOpen) != 0) ClaimTasks();
      gate.fetch_sub(1, std::memory_order_release);
    }
  }

  void Stop() {
    {
      const std::lock_guard<std::mutex> lock(sleep_mutex);
      stopping.store(true);
    }
    wake.notify_all();
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(int num_threads) : impl_(std::make_unique<Impl>()) {
  assert(num_threads >= 1);
  impl_->workers.reserve(static_cast<size_t>(std::max(num_threads - 1, 0)));
  for (int i = 1; i < num_threads; ++i) {
    impl_->workers.emplace_back([impl = impl_.get()] { impl->Work(); });
  }
}

ThreadPool::~ThreadPool() { impl_->Stop(); }

int ThreadPool::num_threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

ParallelFor ThreadPool::parallel_for() { return {&Impl::Run, impl_.get(), num_threads()}; }

}  // namespace acuity::kernels
