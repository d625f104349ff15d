// Steady-state Plan and Commit allocate nothing: counted by replacing operator new in this binary.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "engine/schedule/scheduler.h"

namespace {
int64_t allocations = 0;
}  // namespace

void* operator new(size_t size) {
  ++allocations;
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace acuity::engine {
namespace {

TEST(SchedulerAllocation, NoneInSteadyState) {
  BlockPool pool(60, 4);  // too small for all, so that preemption is part of it
  Scheduler scheduler({.max_batch_tokens = 16}, &pool);
  for (uint64_t id = 1; id <= 8; ++id) {
    auto request = std::make_shared<Request>();
    request->id = RequestId{id};
    request->prompt.assign(10, static_cast<TokenId>(id));
    request->sampling.max_tokens = 60;
    ASSERT_TRUE(scheduler.Add(std::move(request)).ok());
  }
  StepPlan plan;
  plan.scheduled.reserve(8);
  std::vector<StepResult> results;
  results.reserve(8);
  int preempted = 0, steps = 0;
  const int64_t before = allocations;
  for (; !scheduler.idle(); ++steps) {
    scheduler.Plan(absl::UnixEpoch(), &plan);
    preempted += plan.preempted;
    results.clear();
    for (const ScheduledSequence& s : plan.scheduled) {
      StepResult result;
      if (s.samples) result.token = steps;
      if (s.samples && s.sequence->num_output() == 59) result.finish = FinishReason::kLength;
      results.push_back(result);
    }
    scheduler.Commit(plan, results);
  }
  EXPECT_EQ(allocations - before, 0);
  EXPECT_GT(preempted, 0);
  EXPECT_GT(steps, 100);
}

}  // namespace
}  // namespace acuity::engine
