// Steps that are planned while the one before runs.
#include <random>

#include "tests/engine/schedule/scheduler_fixture.h"

namespace acuity::engine {
namespace {

using PlanNextTest = SchedulerTest;

TEST_F(PlanNextTest, PlansTheNextStepWhileOneRuns) {
  Start({.max_batch_tokens = 16, .max_running = 4}, 32);
  EXPECT_TRUE(Add(1, 4, 4).ok() && Add(2, 5, 9).ok() && Add(3, 3, 9).ok());
  EXPECT_EQ(Plan(), "1.0:4 2.0:5 3.0:3");  // each comes to a token
  EXPECT_EQ(PlanNext(), "1.0:1 2.0:1 3.0:1");
  EXPECT_EQ(next_.scheduled[1].sampled_before, 1);
  EXPECT_EQ(next_.scheduled[1].first_token, 5);
  EXPECT_EQ(next_.scheduled[1].num_output(), 1);
  EXPECT_EQ(CommitBefore(), "1.0:1 2.0:1 3.0:1");
  EXPECT_EQ(plan_.scheduled[1].sampled_before, -1);
  EXPECT_EQ(plan_.scheduled[1].first_token, 5);
  EXPECT_EQ(plan_.scheduled[1].num_output(), 1);
  // 2 ends by what it says, which nobody knew.
  EXPECT_EQ(PlanNext(), "1.0:1 2.0:1 3.0:1");
  EXPECT_EQ(CommitBefore(1), "1.0:1 - 3.0:1");
  EXPECT_EQ(plan_.num_tokens, 2);
  // 1 has three of its four tokens when this step ends, and 3 keeps its place among the draws.
  EXPECT_EQ(PlanNext(), "1.0:1 3.0:1");
  EXPECT_EQ(next_.scheduled[1].sampled_before, 2);
  EXPECT_EQ(CommitBefore(), "1.0:1 3.0:1");
  EXPECT_EQ(PlanNext(), "3.0:1");  // 1 ends by length, which everybody knows
  EXPECT_EQ(CommitBefore(), "3.0:1");
  Commit();
  EXPECT_EQ(Step(), "3.0:1");
}

TEST_F(PlanNextTest, BehindARunningStepPromptsGoOnAndNewcomersEnter) {
  Start({.max_batch_tokens = 8, .max_running = 3}, 32);
  EXPECT_TRUE(Add(1, 19, 4).ok());
  EXPECT_EQ(Plan(), "1.0:8");
  EXPECT_EQ(PlanNext(), "1.0:8");
  EXPECT_EQ(next_.scheduled[0].first_token, 8);
  EXPECT_EQ(next_.scheduled[0].sampled_before, -1);
  EXPECT_EQ(CommitBefore(), "1.0:8");
  EXPECT_TRUE(Add(2, 3, 4).ok());
  EXPECT_EQ(PlanNext(), "1.0:3 2.0:3");
  EXPECT_EQ(CommitBefore(), "1.0:3 2.0:3");
  EXPECT_TRUE(Add(3, 30, 4).ok());
  EXPECT_EQ(PlanNext(), "1.0:1 2.0:1 3.0:6");
  EXPECT_EQ(CommitBefore(), "1.0:1 2.0:1 3.0:6");
  // Of those sampled in the running step, 2's is the second, whatever runs between them.
  EXPECT_EQ(PlanNext(), "1.0:1 2.0:1 3.0:6");
  EXPECT_EQ(next_.scheduled[1].sampled_before, 1);
  EXPECT_EQ(next_.scheduled[2].first_token, 6);
  EXPECT_EQ(next_.scheduled[2].sampled_before, -1);
}

// A prompt whose first chunk fails has no second one, and its tenant does not pay for it.
TEST_F(PlanNextTest, APromptThatFailsIsTakenOutOfTheNextStep) {
  Start({.max_batch_tokens = 8, .max_running = 2}, 32);
  const auto of = [](const char* tenant) { return [tenant](Request* r) { r->tenant = tenant; }; };
  EXPECT_TRUE(Add(1, 20, 4, of("a")).ok());
  EXPECT_EQ(Plan(), "1.0:8");
  EXPECT_TRUE(Add(2, 2, 4, of("b")).ok() && Add(3, 2, 4, of("b")).ok() &&
              Add(4, 2, 4, of("a")).ok());
  EXPECT_EQ(PlanNext(), "1.0:6 2.0:2");
  EXPECT_EQ(CommitBefore(0, FinishReason::kError), "- 2.0:2");
  EXPECT_EQ(plan_.num_tokens, 2);
  EXPECT_EQ(PlanNext(), "2.0:1 4.0:2");  // with the 6 it would be 3's turn
  EXPECT_EQ(next_.scheduled[0].sampled_before, 0);
}

TEST_F(PlanNextTest, BehindARunningStepScoresGoOnToTheirEnd) {
  Start({.max_batch_tokens = 8, .max_running = 3, .max_logit_rows = 6}, 32);
  EXPECT_TRUE(Add(1, 10, 1, [](Request* r) { r->score = true; }).ok());
  EXPECT_EQ(Plan(), "1.0:6@0");
  EXPECT_EQ(PlanNext(), "1.0:4@0");
  EXPECT_EQ(CommitBefore(), "1.0:4@0");
  EXPECT_EQ(PlanNext(), "");  // it ends with this one
  Commit();
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(PlanNextTest, PlansNothingNextWhereSomebodyIsToEnd) {
  Start({.max_batch_tokens = 8, .max_running = 2}, 32);
  EXPECT_TRUE(Add(1, 3, 4).ok() && Add(2, 3, 5).ok() && Add(3, 3, 4).ok());
  EXPECT_EQ(Plan(), "1.0:3 2.0:3");
  EXPECT_EQ(PlanNext(), "1.0:1 2.0:1");  // 3 cannot enter: two run
  EXPECT_EQ(CommitBefore(), "1.0:1 2.0:1");
  scheduler_->Cancel(RequestId{3});
  EXPECT_EQ(PlanNext(), "");
  Commit();
  EXPECT_EQ(Plan(), "1.0:1 2.0:1");
  EXPECT_EQ(plan_.ended.size(), 1u);
  EXPECT_EQ(PlanNext(), "1.0:1 2.0:1");
  CommitBefore();
  EXPECT_EQ(PlanNext(), "2.0:1");  // the running one brings 1 its last
  CommitBefore();
  EXPECT_EQ(PlanNext(), "");  // and this one 2's
  Commit();
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(PlanNextTest, PlansNothingNextThatLacksBlocks) {
  Start({.max_batch_tokens = 16, .max_running = 4}, 5);
  EXPECT_TRUE(Add(1, 7, 8).ok() && Add(2, 7, 8).ok());
  EXPECT_EQ(Plan(), "1.0:7 2.0:7");
  EXPECT_EQ(PlanNext(), "1.0:1 2.0:1");  // in the last places of their two blocks each
  EXPECT_EQ(CommitBefore(), "1.0:1 2.0:1");
  EXPECT_EQ(PlanNext(), "");
  Commit();
  EXPECT_EQ(Plan(), "1.0:1");  // 2 is preempted
  EXPECT_EQ(plan_.preempted, 1);
}

TEST_F(PlanNextTest, PlansTheNextStepBesideThoseWhoWaitForBlocks) {
  Start({.max_batch_tokens = 16, .max_running = 4}, 3);
  EXPECT_TRUE(Add(1, 7, 5).ok() && Add(2, 3, 4).ok());
  EXPECT_EQ(Plan(), "1.0:7");
  EXPECT_EQ(PlanNext(), "1.0:1");
}

// Whatever is asked for, ends, fails and is cancelled whenever, in a pool that is short or not: the
// books are right after each Commit, nothing is computed twice or left out (Commit sees to that),
// everybody who is left alone comes to his end, and a step can follow most steps.
TEST_F(PlanNextTest, StepsBehindStepsLoseNothing) {
  int all_steps = 0, followed = 0;
  for (uint32_t seed = 0; seed < 400; ++seed) {
    std::mt19937 random(seed);
    Start({.max_batch_tokens = 8,
           .max_running = 3 + static_cast<int>(random() % 3),
           .max_logit_rows = 5},
          10 + static_cast<int>(random() % 30));
    int steps = 0;
    for (uint64_t id = 1; id <= 8; ++id) {
      const uint32_t kind = random() % 6;
      const int prompt = 1 + static_cast<int>(random() % 28);
      const int most = 2 + static_cast<int>(random() % 12);
      ASSERT_TRUE(Add(id, prompt, most, [kind](Request* r) {
                    r->score = kind == 0;
                    if (kind == 1) r->pooling = Pooling::kMean;
                    if (kind == 2) r->sampling.n = 3;
                  }).ok());
    }
    for (Plan(); !plan_.scheduled.empty() || !plan_.ended.empty(); ++steps) {
      ASSERT_LT(steps, 2000) << seed;
      if (random() % 32 == 0) scheduler_->Cancel(RequestId{1 + random() % 8});
      if (random() % 8 != 0 && !PlanNext().empty()) {
        const int share = static_cast<int>(random() % plan_.scheduled.size());
        const bool ends = random() % 16 == 0 && plan_.scheduled[share].sequence != nullptr;
        CommitBefore(ends ? share : -1,
                     random() % 2 == 0 ? FinishReason::kStop : FinishReason::kError);
        ++followed;
      } else {
        Commit();
        Plan();
      }
    }
    EXPECT_TRUE(scheduler_->idle());
    EXPECT_EQ(pool_->held_blocks(), 0);
    all_steps += steps;
  }
  EXPECT_GT(4 * followed, 3 * all_steps);
}

}  // namespace
}  // namespace acuity::engine
