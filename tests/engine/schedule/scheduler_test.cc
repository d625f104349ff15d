#include <gmock/gmock.h>

#include "tests/engine/schedule/scheduler_fixture.h"

namespace acuity::engine {
namespace {

using ::testing::HasSubstr;

TEST_F(SchedulerTest, IdleWithoutRequests) {
  Start({}, 4);
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(Plan(), "");  // an empty plan needs no Commit
  EXPECT_EQ(scheduler_->next_deadline(), absl::InfiniteFuture());
}

TEST_F(SchedulerTest, PrefillsInChunksThenDecodes) {
  Start({.max_batch_tokens = 4}, 8);
  ASSERT_TRUE(Add(1, 10, 3).ok());
  EXPECT_EQ(Plan(), "1.0:4");
  EXPECT_FALSE(plan_.scheduled[0].samples);
  Commit();
  EXPECT_EQ(Step(), "1.0:4");
  EXPECT_EQ(Plan(), "1.0:2");
  EXPECT_TRUE(plan_.scheduled[0].samples);
  Commit();
  EXPECT_EQ(Step(), "1.0:1");
  EXPECT_EQ(Step(), "1.0:1");
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(pool_->free_blocks(), 8);
}

TEST_F(SchedulerTest, DecodesComeFirstWhateverTheRank) {
  Start({.max_batch_tokens = 6}, 40);
  ASSERT_TRUE(Add(1, 2, 9).ok());
  ASSERT_TRUE(Add(2, 2, 9).ok());
  EXPECT_EQ(Step(), "1.0:2 2.0:2");
  ASSERT_TRUE(Add(3, 20, 9, [](Request* r) { r->priority = 5; }).ok());
  EXPECT_EQ(Step(), "1.0:1 2.0:1 3.0:4");
  EXPECT_EQ(Step(), "1.0:1 2.0:1 3.0:4");
  EXPECT_EQ(plan_.num_tokens, 6);
}

TEST_F(SchedulerTest, NoMoreRunThanCanDecodeInOneStep) {
  for (const SchedulerLimits& limits :
       {SchedulerLimits{.max_batch_tokens = 2}, SchedulerLimits{.max_running = 2},
        SchedulerLimits{.max_logit_rows = 2}}) {
    Start(limits, 40);
    for (int i = 1; i <= 4; ++i) ASSERT_TRUE(Add(i, 1, 3).ok());
    EXPECT_EQ(Step(), "1.0:1 2.0:1");
    EXPECT_EQ(Step(), "1.0:1 2.0:1");
    EXPECT_EQ(scheduler_->num_running(), 2);
  }
}

TEST_F(SchedulerTest, RefusesWhatCannotFitOrBeQueued) {
  Start({.max_waiting = 3, .max_waiting_tokens = 20}, 4);
  absl::Status status = Add(1, 10, 7);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("17 tokens, the cache holds 16"));
  EXPECT_TRUE(Add(2, 10, 6).ok());
  status = Add(3, 1, 1, [](Request* r) { r->sampling.n = 3; });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("4 with this request, limit 3"));
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  status = Add(4, 11, 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("21 with this request, limit 20"));
  EXPECT_TRUE(Add(5, 5, 1, [](Request* r) { r->sampling.n = 2; }).ok());
  EXPECT_EQ(scheduler_->waiting_tokens(), 20);
  EXPECT_EQ(Add(6, 0, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Add(7, 1, 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Add(8, 1, 2147483647).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(SchedulerTest, HigherPriorityThenOlder) {
  Start({.max_batch_tokens = 1, .max_running = 1}, 40);
  const int priorities[] = {0, 1, 0, 1, -1};
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Add(i, 1, 1, [&](Request* r) { r->priority = priorities[i]; }).ok());
  }
  for (const char* expected : {"1.0:1", "3.0:1", "0.0:1", "2.0:1", "4.0:1"}) {
    EXPECT_EQ(Step(), expected);
  }
}

TEST_F(SchedulerTest, PriorityIsAHeadStartAndStarvesNobody) {
  Start({.max_batch_tokens = 1, .max_running = 1}, 40);
  ASSERT_TRUE(Add(1, 1, 1).ok());
  const absl::Time start = now_;
  // There is always a request of priority 2 that waits, too.
  for (uint64_t id = 2;; ++id) {
    ASSERT_TRUE(Add(id, 1, 1, [](Request* r) { r->priority = 2; }).ok());
    if (Step() == "1.0:1") break;
    ASSERT_LT(now_ - start, 3 * kPriorityHeadStart);
    now_ += absl::Seconds(1);
  }
  EXPECT_EQ(now_ - start, 2 * kPriorityHeadStart);
}

TEST_F(SchedulerTest, ALongPromptLeavesHalfOfTheBudgetToShortOnes) {
  Start({.max_batch_tokens = 16}, 200);
  ASSERT_TRUE(Add(1, 100, 1).ok());
  EXPECT_EQ(Step(), "1.0:16");  // nobody else: all of it
  ASSERT_TRUE(Add(2, 5, 2).ok());
  EXPECT_EQ(Step(), "1.0:11 2.0:5");
  EXPECT_EQ(Step(), "2.0:1 1.0:15");
  // A second long one has what is left over; a short one behind it still enters.
  ASSERT_TRUE(Add(3, 50, 1).ok());
  ASSERT_TRUE(Add(4, 6, 1).ok());
  EXPECT_EQ(Step(), "1.0:9 3.0:1 4.0:6");
  EXPECT_EQ(Step(), "1.0:16");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Step(), "1.0:16");
  EXPECT_EQ(Step(), "1.0:1 3.0:15");
  EXPECT_EQ(Step(), "3.0:16");
}

TEST_F(SchedulerTest, ATenantsManyRequestsDoNotStarveAnothers) {
  Start({.max_batch_tokens = 1, .max_running = 1}, 40);
  const auto of = [](const char* tenant, int priority = 0) {
    return [=](Request* r) { r->tenant = tenant, r->priority = priority; };
  };
  for (uint64_t id = 1; id <= 4; ++id) ASSERT_TRUE(Add(id, 1, 1, of("many")).ok());
  EXPECT_EQ(Step(), "1.0:1");
  now_ += absl::Seconds(5);
  ASSERT_TRUE(Add(11, 1, 1, of("few")).ok());
  ASSERT_TRUE(Add(12, 1, 1, of("few")).ok());
  ASSERT_TRUE(Add(21, 1, 1, of("low", -1)).ok());  // of another priority: by rank
  for (const char* expected : {"2.0:1", "11.0:1", "3.0:1", "12.0:1", "4.0:1", "21.0:1"}) {
    EXPECT_EQ(Step(), expected);
  }
}

TEST_F(SchedulerTest, WhoComesBackHasNoClaimToThePast) {
  Start({.max_batch_tokens = 8, .max_running = 1}, 40);
  const auto of = [](const char* tenant) { return [=](Request* r) { r->tenant = tenant; }; };
  for (uint64_t id = 1; id <= 9; ++id) ASSERT_TRUE(Add(id, 8, 1, of("steady")).ok());
  for (uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(Step(), std::to_string(id) + ".0:8");
  for (uint64_t id = 11; id <= 13; ++id) ASSERT_TRUE(Add(id, 8, 1, of("new")).ok());
  // In turn from now on, and not three in a row.
  for (const char* expected : {"4.0:8", "11.0:8", "5.0:8", "12.0:8", "6.0:8", "13.0:8", "7.0:8"}) {
    EXPECT_EQ(Step(), expected);
  }
}

TEST_F(SchedulerTest, TheFirstByRankIsPassedAtMostEightTimesInARow) {
  Start({.max_batch_tokens = 64, .max_running = 1}, 80);
  const auto of = [](const std::string& tenant) { return [=](Request* r) { r->tenant = tenant; }; };
  ASSERT_TRUE(Add(1, 50, 1, of("greedy")).ok());
  ASSERT_TRUE(Add(2, 1, 1, of("greedy")).ok());
  ASSERT_TRUE(Add(3, 1, 1, of("new 3")).ok());
  ASSERT_TRUE(Add(4, 1, 1, of("new 4")).ok());
  EXPECT_EQ(Step(), "1.0:50");
  // There is always another tenant that was served nothing yet.
  int passed = 0;
  for (uint64_t id = 5; Step() != "2.0:1"; ++passed, ++id) {
    ASSERT_TRUE(Add(id, 1, 1, of("new " + std::to_string(id))).ok());
    ASSERT_LT(passed, 20);
  }
  EXPECT_EQ(passed, 8);
}

TEST_F(SchedulerTest, HeadOfLineIsNotOvertaken) {
  Start({.max_batch_tokens = 64}, 5);
  ASSERT_TRUE(Add(1, 8, 4).ok());
  EXPECT_EQ(Step(), "1.0:8");
  ASSERT_TRUE(Add(2, 16, 1).ok());  // does not fit beside 1
  ASSERT_TRUE(Add(3, 1, 1).ok());   // would
  EXPECT_EQ(Step(), "1.0:1");
  EXPECT_EQ(Step(), "1.0:1");
  EXPECT_EQ(Step(), "1.0:1");
  EXPECT_EQ(Step(), "2.0:16");
  EXPECT_EQ(Step(), "3.0:1");
  EXPECT_EQ(plan_.preempted, 0);
}

TEST_F(SchedulerTest, PreemptsTheLowestRankAndRecomputesItsOutput) {
  Start({.max_batch_tokens = 64}, 6);
  ASSERT_TRUE(Add(1, 4, 16).ok());
  ASSERT_TRUE(Add(2, 4, 16, [](Request* r) { r->priority = -1; }).ok());
  EXPECT_EQ(Step(), "1.0:4 2.0:4");
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Step(), "1.0:1 2.0:1");
  EXPECT_EQ(Plan(), "1.0:1");  // each has 3 full blocks and wants a fourth
  EXPECT_EQ(plan_.preempted, 1);
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  Commit();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Step(), "1.0:1");
  // The end of 1: 2 comes back with its 13 tokens, the first block of which was not evicted.
  EXPECT_EQ(Plan(), "2.0:9");
  EXPECT_EQ(plan_.scheduled[0].sequence->preemptions, 1);
  EXPECT_EQ(plan_.scheduled[0].sequence->num_output(), 9);
  EXPECT_EQ(plan_.scheduled[0].sequence->cached_tokens, 0);
  EXPECT_TRUE(plan_.scheduled[0].samples);
  Commit();
}

TEST_F(SchedulerTest, NothingEntersInTheStepThatPreempts) {
  Start({.max_batch_tokens = 64}, 6);
  ASSERT_TRUE(Add(1, 4, 16).ok());
  ASSERT_TRUE(Add(2, 4, 16).ok());
  for (int i = 0; i < 9; ++i) Step();
  ASSERT_TRUE(Add(3, 1, 1, [](Request* r) { r->priority = 1; }).ok());
  EXPECT_EQ(Step(), "1.0:1");
  EXPECT_EQ(plan_.preempted, 1);
  EXPECT_EQ(Step(), "1.0:1 3.0:1");
}

TEST_F(SchedulerTest, AdmissionLeavesRunningSequencesRoomToGrow) {
  Start({}, 4);
  ASSERT_TRUE(Add(1, 4, 8).ok());
  EXPECT_EQ(Step(), "1.0:4");
  ASSERT_TRUE(Add(2, 8, 1).ok());
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(Step(), "1.0:1");  // 2 would fit at first, and be preempted soon
    EXPECT_EQ(plan_.preempted, 0);
  }
  EXPECT_EQ(Step(), "2.0:8");
}

TEST_F(SchedulerTest, PromptOfHigherRankTakesBlocksFromDecodesOfLower) {
  Start({.max_batch_tokens = 4}, 4);
  ASSERT_TRUE(Add(1, 3, 8).ok());
  EXPECT_EQ(Step(), "1.0:3");
  ASSERT_TRUE(Add(2, 12, 4, [](Request* r) { r->priority = 1; }).ok());
  EXPECT_EQ(Step(), "1.0:1 2.0:3");
  EXPECT_EQ(Step(), "1.0:1 2.0:3");
  EXPECT_EQ(Step(), "1.0:1 2.0:2");  // to the end of its last block: no more are free
  EXPECT_EQ(Plan(), "2.0:4");
  EXPECT_EQ(plan_.preempted, 1);
  EXPECT_EQ(plan_.num_tokens, 4);
  Commit();
}

TEST_F(SchedulerTest, SharesAPrefix) {
  Start({}, 40);
  const auto same = [](Request* r) { r->prompt.assign(r->prompt.size(), 9); };
  ASSERT_TRUE(Add(1, 10, 1, same).ok());
  EXPECT_EQ(Step(), "1.0:10");
  ASSERT_TRUE(Add(2, 12, 1, same).ok());
  EXPECT_EQ(Plan(), "2.0:4");
  EXPECT_EQ(plan_.scheduled[0].sequence->cached_tokens, 8);
  EXPECT_EQ(plan_.scheduled[0].sequence->first_scheduled, now_);
  Commit();
  ASSERT_TRUE(Add(3, 12, 1, [&](Request* r) { same(r), r->cache_salt = "other"; }).ok());
  EXPECT_EQ(Step(), "3.0:12");
}

TEST_F(SchedulerTest, FurtherSamplesWaitForTheFirstOnesPrompt) {
  Start({.max_batch_tokens = 8}, 40);
  ASSERT_TRUE(Add(1, 10, 3, [](Request* r) { r->sampling.n = 3; }).ok());
  EXPECT_EQ(Step(), "1.0:8");
  ASSERT_TRUE(Add(2, 2, 2).ok());
  EXPECT_EQ(Step(), "1.0:2 2.0:2");  // passes the samples that wait
  EXPECT_EQ(Step(), "1.0:1 2.0:1 1.1:2 1.2:2");
  EXPECT_EQ(plan_.num_tokens, 6);
  EXPECT_EQ(Step(), "1.0:1 1.1:1 1.2:1");
  EXPECT_EQ(Step(), "1.1:1 1.2:1");
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(SchedulerTest, FurtherSamplesGoOnWhenTheFirstFails) {
  Start({.max_batch_tokens = 4}, 40);
  ASSERT_TRUE(Add(1, 6, 3, [](Request* r) { r->sampling.n = 2; }).ok());
  EXPECT_EQ(Step(), "1.0:4");
  EXPECT_EQ(Plan(), "1.0:2");
  Commit(FinishReason::kError);
  EXPECT_EQ(Step(), "1.1:4");  // the failed one's blocks are not reused
}

TEST_F(SchedulerTest, ScoringAsksForEveryRowOnceAndUsesNoCache) {
  Start({.max_logit_rows = 4}, 40);
  const auto score = [](Request* r) {
    r->score = true;
    r->prompt.assign(r->prompt.size(), 9);
  };
  for (uint64_t id = 1; id <= 2; ++id) {
    ASSERT_TRUE(Add(id, 9, 1, score).ok());
    EXPECT_EQ(Step(), std::to_string(id) + ".0:4@0");
    EXPECT_EQ(Plan(), std::to_string(id) + ".0:4@0");
    EXPECT_FALSE(plan_.scheduled[0].samples);
    EXPECT_EQ(plan_.scheduled[0].sequence->cached_tokens, 0);
    Commit();
    EXPECT_EQ(Step(), std::to_string(id) + ".0:1");  // the last row predicts nothing
    EXPECT_TRUE(scheduler_->idle());
  }
  ASSERT_TRUE(Add(3, 1, 1, score).ok());
  EXPECT_EQ(Step(), "3.0:1");
  // A full pool is enough: nothing is generated.
  Start({}, 2);
  ASSERT_TRUE(Add(4, 8, 99, score).ok());
  EXPECT_EQ(Step(), "4.0:8@0");
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(SchedulerTest, DecodesAndScoringShareTheLogitRows) {
  Start({.max_logit_rows = 4}, 40);
  ASSERT_TRUE(Add(1, 2, 9).ok());
  EXPECT_EQ(Step(), "1.0:2");
  ASSERT_TRUE(Add(2, 9, 1, [](Request* r) { r->score = true; }).ok());
  ASSERT_TRUE(Add(3, 3, 9).ok());
  EXPECT_EQ(Step(), "1.0:1 2.0:3@0 3.0:2");  // no row for 3's last token
  EXPECT_EQ(Step(), "1.0:1 3.0:1 2.0:2@0");
}

TEST_F(SchedulerTest, CancelAndDeadlineEndEverythingAtTheNextPlan) {
  for (const bool cancel : {true, false}) {
    for (int steps = 0; steps < 1000; ++steps) {
      if (steps == 25) steps = 999;
      Start({.max_batch_tokens = 4, .max_running = 3}, 6);
      const absl::Time deadline = now_ + absl::Seconds(5);
      for (uint64_t id = 1; id <= 4; ++id) {
        ASSERT_TRUE(Add(id, 7, 12, [&](Request* r) {
                      r->sampling.n = id == 2 ? 2 : 1;
                      if (!cancel) r->deadline = deadline + absl::Seconds(id);
                    }).ok());
      }
      for (int i = 0; i < steps && !scheduler_->idle(); ++i) Step();
      EXPECT_TRUE(cancel || scheduler_->next_deadline() > deadline);
      const int live = scheduler_->num_waiting() + scheduler_->num_running();
      for (uint64_t id = 1; cancel && id <= 4; ++id) scheduler_->Cancel(RequestId{id});
      if (!cancel) now_ = deadline + absl::Seconds(4);
      EXPECT_EQ(Plan(), "");
      EXPECT_EQ(static_cast<int>(plan_.ended.size()), live);
      for (const Sequence* sequence : plan_.ended) {
        EXPECT_EQ(sequence->finish, cancel ? FinishReason::kCancelled : FinishReason::kDeadline);
      }
      EXPECT_EQ(pool_->free_blocks(), 6);
      Commit();
      EXPECT_TRUE(scheduler_->idle());
      EXPECT_EQ(scheduler_->waiting_tokens(), 0);
    }
  }
}

TEST_F(SchedulerTest, CancelsOnlyTheOneNamed) {
  Start({}, 40);
  ASSERT_TRUE(Add(1, 3, 9).ok());
  ASSERT_TRUE(Add(2, 3, 9).ok());
  EXPECT_EQ(Plan(), "1.0:3 2.0:3");
  scheduler_->Cancel(RequestId{1});  // in the middle of a step, too
  scheduler_->Cancel(RequestId{77});
  Commit();
  EXPECT_EQ(Step(), "2.0:1");
}

TEST_F(SchedulerTest, DestroyedInTheMiddleItGivesBlocksBack) {
  Start({}, 40);
  ASSERT_TRUE(Add(1, 30, 9).ok());
  Step();
  EXPECT_GT(pool_->held_blocks(), 0);
  scheduler_.reset();
  EXPECT_EQ(pool_->held_blocks(), 0);
}

using SchedulerDeathTest = SchedulerTest;

TEST_F(SchedulerDeathTest, RefusesResultsThatCannotBe) {
  Start({}, 40);
  ASSERT_TRUE(Add(1, 3, 2).ok());
  Plan();
  EXPECT_DEATH(scheduler_->Plan(now_, &plan_), "check failed");  // no Commit between
  EXPECT_DEATH(scheduler_->Commit(plan_, {}), "check failed");
  EXPECT_DEATH(scheduler_->Commit(plan_, std::vector<StepResult>(1)), "check failed");  // no token
  Commit();
  Plan();
  EXPECT_DEATH(scheduler_->Commit(plan_, std::vector<StepResult>{{.token = 1}}),
               "check failed");  // max_tokens and no finish
}

}  // namespace
}  // namespace acuity::engine
