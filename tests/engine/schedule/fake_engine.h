// An engine around the real Scheduler and BlockPool whose model is a hash and whose KV cache is an
// array that remembers what was written where. Every step it checks all that the scheduler
// promises; see Step.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/schedule/scheduler.h"

namespace acuity::engine {

struct FakeEngineOptions {
  SchedulerLimits limits;
  int num_blocks = 16;
  int block_size = 4;
  uint64_t seed = 0;
  double error_rate = 0;  // of scheduled chunks: ends with kError and leaves garbage in its blocks
  bool check_every_step = true;  // Scheduler::CheckInvariants, which is most of the time
};

struct FakeEngineCounts {
  int64_t steps = 0, chunks = 0, tokens = 0, preemptions = 0, cached_tokens = 0;
  int64_t added = 0, refused = 0, cancels = 0;
  std::map<FinishReason, int64_t> finished;

  int64_t events() const { return steps + chunks + added + refused + cancels; }
};

class FakeEngine {
 public:
  explicit FakeEngine(const FakeEngineOptions& options);

  // Adds the request, under an id of its own; returns it, or 0 if it was refused.
  uint64_t Submit(Request request);
  void Cancel(uint64_t id);
  // Plan, checks, the model, Commit. Any broken promise is a test failure, the first of which sets
  // failed().
  void Step(absl::Time now);

  bool idle() const { return scheduler_.idle(); }
  bool failed() const { return failed_; }
  bool Live(uint64_t id) const { return flights_.contains(id); }
  const std::vector<uint64_t>& finished_ids() const { return finished_ids_; }  // last Step's
  const FakeEngineCounts& counts() const { return counts_; }
  const BlockPool& pool() const { return pool_; }
  uint64_t trace() const { return trace_; }  // hash of every plan so far

 private:
  struct Sample {
    std::vector<TokenId> expected;  // output, computed without any scheduler
    FinishReason expected_finish = FinishReason::kNone;
    std::vector<uint64_t> chain;  // chain[i]: hash of salt and the first i tokens
    std::vector<int> row_uses;    // scoring: how often each row's logits were asked for
    bool ended = false;
  };
  struct Flight {
    std::shared_ptr<const Request> request;
    std::vector<Sample> samples;
  };
  struct Decoder {
    Sequence* sequence;
    int preemptions;
  };

  bool Check(bool condition, const char* what);
  Sample& SampleOf(const Sequence& sequence);
  void CheckPlan();
  void CheckDecoders();
  void CheckChunk(const ScheduledSequence& scheduled);
  void WriteChunk(const ScheduledSequence& scheduled);
  void ReadBack(const ScheduledSequence& scheduled);
  StepResult RunModel(const ScheduledSequence& scheduled);
  void ScribbleOver(const Sequence& sequence);
  void Finish(const Sequence& sequence, FinishReason reason, TokenId last_token);
  uint64_t& Slot(const Sequence& sequence, int position);

  const FakeEngineOptions options_;
  BlockPool pool_;
  Scheduler scheduler_;
  std::mt19937_64 random_;
  std::vector<uint64_t> memory_;  // [num_blocks, block_size]: hash of the prefix that ends there
  std::vector<int64_t> written_;  // [num_blocks, block_size]: step of the last write
  std::unordered_map<uint64_t, Flight> flights_;
  int64_t live_ = 0;               // sequences
  std::vector<Decoder> decoders_;  // sequences that must run in the next step
  std::vector<uint64_t> finished_ids_;
  StepPlan plan_;
  std::vector<StepResult> results_;
  FakeEngineCounts counts_;
  uint64_t next_id_ = 1;
  uint64_t trace_ = 0;
  bool failed_ = false;
};

}  // namespace acuity::engine
