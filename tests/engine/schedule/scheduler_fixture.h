// A scheduler, and what it plans in words.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/schedule/scheduler.h"

namespace acuity::engine {

// A scheduler whose model always says 1, and ends sequences only by length.
class SchedulerTest : public ::testing::Test {
 protected:
  void Start(SchedulerLimits limits, int num_blocks, int block_size = 4) {
    scheduler_.reset();
    pool_ = std::make_unique<BlockPool>(num_blocks, block_size);
    scheduler_ = std::make_unique<Scheduler>(limits, pool_.get());
  }

  absl::Status Add(uint64_t id, int prompt, int max_tokens,
                   const std::function<void(Request*)>& change = {}) {
    auto request = std::make_shared<Request>();
    request->id = RequestId{id};
    request->prompt.assign(prompt, static_cast<TokenId>(id));
    request->sampling.max_tokens = max_tokens;
    request->arrival = now_;
    if (change) change(request.get());
    return scheduler_->Add(std::move(request));
  }

  std::string Plan() {
    scheduler_->Plan(now_, &plan_);
    return Text(plan_);
  }

  // The plan behind it; "" if there is none.
  std::string PlanNext() { return scheduler_->PlanNext(now_, plan_, &next_) ? Text(next_) : ""; }

  // What a plan schedules, as "id.sample:tokens" or, with logits for other than the last row,
  // "id.sample:tokens@first_logit_row"; "-": what ended with the step before.
  static std::string Text(const StepPlan& plan) {
    std::ostringstream text;
    for (const ScheduledSequence& s : plan.scheduled) {
      if (&s != &plan.scheduled[0]) text << " ";
      if (s.sequence == nullptr) {
        text << "-";
        continue;
      }
      text << s.sequence->request->id.value << "." << s.sequence->sample << ":" << s.num_tokens;
      const int usual = s.samples ? s.num_tokens - 1 : s.num_tokens;
      if (s.first_logit_row != usual) text << "@" << s.first_logit_row;
    }
    return text.str();
  }

  // What becomes of the plan: all get a token where they sample, and end when they must.
  std::vector<StepResult> Results() const {
    std::vector<StepResult> results;
    for (const ScheduledSequence& s : plan_.scheduled) {
      results.push_back({});
      if (s.sequence == nullptr) continue;
      const Sequence& sequence = *s.sequence;
      StepResult& result = results.back();
      if (s.samples) result.token = 1;
      if (s.samples && sequence.num_output() + 1 == sequence.request->sampling.max_tokens) {
        result.finish = FinishReason::kLength;
      }
      const bool whole = sequence.computed + s.num_tokens == sequence.prompt_size;
      if (!sequence.request->generates() && whole) result.finish = FinishReason::kStop;
    }
    return results;
  }

  void Commit(FinishReason finish_all = FinishReason::kNone) {
    std::vector<StepResult> results = Results();
    if (finish_all != FinishReason::kNone) {
      for (StepResult& result : results) result.finish = finish_all;
    }
    scheduler_->Commit(plan_, results);
    scheduler_->CheckInvariants();
  }

  // The sequence of share `ended` ends, if there is one; then the next plan is the one that runs.
  std::string CommitBefore(int ended = -1, FinishReason finish = FinishReason::kStop) {
    std::vector<StepResult> results = Results();
    if (ended >= 0) results[static_cast<size_t>(ended)].finish = finish;
    scheduler_->Commit(plan_, results, &next_);
    scheduler_->CheckInvariants();
    std::swap(plan_, next_);
    return Text(plan_);
  }

  std::string Step() {
    std::string text = Plan();
    Commit();
    return text;
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_, next_;
};

}  // namespace acuity::engine
