// The process's compute threads. Several engines share one pool; one parallel region runs at a
// time.
#pragma once

#include <memory>

#include "kernels/parallel.h"

namespace acuity::kernels {

// Thread-safe. Workers sleep between regions (after a short spin), so the front end keeps its core.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // >= 1, the caller's thread included
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;
  // Valid while the pool lives. Not re-entrant from inside a task.
  ParallelFor parallel_for();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace acuity::kernels
