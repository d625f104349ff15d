#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace acuity::kernels {
namespace {

TEST(ThreadPoolTest, CountsTheCaller) {
  EXPECT_EQ(ThreadPool(1).num_threads(), 1);
  EXPECT_EQ(ThreadPool(5).num_threads(), 5);
}

TEST(ThreadPoolTest, EveryIndexExactlyOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      pool.parallel_for()(count, [&](int64_t i) { calls[static_cast<size_t>(i)].fetch_add(1); });
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(calls[static_cast<size_t>(i)].load(), 1) << threads << " threads, index " << i;
      }
    }
  }
}

// Plain memory: what tasks wrote is visible to the caller, and what it writes next to the next
// region's tasks.
TEST(ThreadPoolTest, RegionsAreOrdered) {
  ThreadPool pool(4);
  std::vector<int64_t> values(97, 0);
  for (int64_t round = 1; round <= 3000; ++round) {
    pool.parallel_for()(static_cast<int64_t>(values.size()),
                        [&](int64_t i) { values[static_cast<size_t>(i)] += round; });
    ASSERT_EQ(values[static_cast<size_t>(round) % values.size()], round * (round + 1) / 2);
  }
}

TEST(ThreadPoolTest, WakesSleepingWorkers) {
  ThreadPool pool(2);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // far beyond the spin
  // Two tasks that each wait for the other: only two threads can finish them.
  std::atomic<int> arrived{0};
  pool.parallel_for()(2, [&](int64_t) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 2);
}

TEST(ThreadPoolTest, UsesAllThreadsAfterEverySleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(
        std::chrono::microseconds(round * 20));  // around the end of the spin
    std::atomic<int> arrived{0};
    pool.parallel_for()(3, [&](int64_t) {
      arrived.fetch_add(1);
      while (arrived.load() < 3) std::this_thread::yield();
    });
  }
}

TEST(ThreadPoolTest, ConcurrentCallersAreSerialised) {
  ThreadPool pool(3);
  std::vector<std::thread> engines;
  std::vector<int64_t> totals(4, 0);
  std::vector<std::atomic<int>> tasks_inside(totals.size());
  for (size_t e = 0; e < totals.size(); ++e) {
    engines.emplace_back([&, e] {
      for (int round = 0; round < 300; ++round) {
        std::vector<int64_t> partial(11, 0);
        pool.parallel_for()(11, [&](int64_t i) {
          tasks_inside[e].fetch_add(1);
          for (size_t other = 0; other < totals.size(); ++other) {
            if (other != e) {
              EXPECT_EQ(tasks_inside[other].load(), 0);
            }
          }
          partial[static_cast<size_t>(i)] = i;
          tasks_inside[e].fetch_sub(1);
        });
        for (int64_t p : partial) totals[e] += p;
      }
    });
  }
  for (std::thread& engine : engines) engine.join();
  for (int64_t total : totals) EXPECT_EQ(total, 300 * 55);
}

TEST(ThreadPoolTest, DestructorJoinsIdleAndFreshWorkers) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(4);
    if (round % 2 == 0) pool.parallel_for()(8, [](int64_t) {});
  }
}

TEST(ParallelForTest, WithoutRunIsInOrderOnThisThread) {
  std::vector<int64_t> order;
  ParallelFor{}(4, [&](int64_t i) { order.push_back(i); });
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 3}));
}

}  // namespace
}  // namespace acuity::kernels
