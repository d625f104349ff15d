// Decides, step by step, which sequences compute how many tokens in which blocks. Deterministic: no
// threads, no clock of its own, no I/O. Used by the engine thread only.
//
//   grammar:  ( Add | Cancel )*  [ Plan  ( PlanNext  Commit )*  Commit ]   repeated
//
// There are no prefill and decode phases: each sequence's `computed` chases its `tokens` under one
// token budget. A step takes first the sequences that need a single token (so decoding is never
// starved by prompts: all of them run in every step), then prompt chunks of running sequences, then
// waiting sequences, for as long as budget and blocks last. A prompt that goes on after the step
// leaves half of the budget to those behind it that can end in it, so a short prompt does not wait
// for the end of a long one; what nobody takes goes to the long ones all the same, by rank.
//
// Rank. Everything live is in one total order, which time does not change: arrival minus priority x
// kPriorityHeadStart, then order of Add. So among equals the older comes first, and a higher
// priority goes ahead of what arrived up to that much earlier per level, but of nothing older:
// nobody waits forever.
//
// Tenants. What enters next is, of the waiting sequences with the priority of the first by rank,
// one of the tenant that was served the fewest tokens (the virtual token counter of Sheng et al.,
// "Fairness in Serving Large Language Models", 2024: whoever comes back starts level with the least
// served), and of that tenant's the first by rank. The first of all is passed at most 8 times in a
// row, and what was preempted is not passed at all. Takes time linear in the queue.
//
// Blocks. A waiting sequence enters if the blocks of its next chunk are free beyond those that the
// running ones need to finish their prompts and one block more each; that margin keeps an admission
// from being undone within the next block_size steps. When a running sequence lacks a block, the
// running sequence of lowest rank (perhaps itself) is preempted: its blocks are released but stay
// findable, and it waits, with its rank, to be recomputed with the tokens it has. The running
// sequence of highest rank can take everybody's blocks, and any one sequence fits the pool (Add
// sees to that), so every step advances it: no deadlock and no livelock. Admission itself never
// preempts.
//
// The next step. While a step runs, its results unknown, the one behind it can be planned as if
// they were there (PlanNext): who is brought to a token goes on from it, whatever it is; prompts go
// on; who waits may enter. Nobody is preempted, and whose last token is on its way is left out. A
// sequence that ends with the running step all the same, by what its token says, is taken out of
// the next one by Commit; what is computed of it there is lost.
//
// Scoring. Log-probability of prompt token t comes from row t - 1, and rows found in the prefix
// cache have no logits: so a scoring sequence takes nothing from the cache but, when preempted,
// rows whose logits were given before. No row's logits are asked for twice. The engine ends the
// sequence (finish = kStop) with the chunk that reaches the prompt's end.
//
// Embedding. The same, of hidden states in place of logits, which have no budget of their own; but
// if only the last row's counts, the prefix cache serves as it does a prompt to be continued.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/cache/block_pool.h"
#include "engine/schedule/sequence.h"

namespace acuity::engine {

// What one level of priority is worth: short enough that the lowest priority is served within a
// client's patience.
inline constexpr absl::Duration kPriorityHeadStart = absl::Seconds(10);

// All at least 1. At most min(max_running, max_batch_tokens, max_logit_rows) sequences run, so that
// each can decode in every step.
struct SchedulerLimits {
  int max_batch_tokens = 512;  // token budget of one step
  int max_running = 64;        // sequences in one step
  int max_logit_rows = 128;    // rows of one step that need logits (scoring chunks are cut to it)
  int max_waiting = 256;  // queued sequences, preempted ones included; beyond: ResourceExhausted
  int64_t max_waiting_tokens = 1 << 20;  // prompt tokens of queued sequences
};

// One sequence's share of a step. Pointers are valid until Commit.
struct ScheduledSequence {
  Sequence* sequence = nullptr;  // null: it ended with the step before
  int first_token = 0;           // of the sequence's tokens
  int num_tokens = 0;
  // Logits (of an embedding: hidden states) are needed for the chunk's rows [first_logit_row,
  // num_tokens); none: == num_tokens. A scoring chunk that holds the prompt's last token may end in
  // a row that predicts nothing.
  int first_logit_row = 0;
  bool samples = false;  // the last row's logits yield the next token
  // While the step before runs, if its token is this one's first: which of those sampled there, in
  // the plan's order. Else -1.
  int sampled_before = -1;

  // Tokens of output before the one to be sampled.
  int num_output() const { return sequence->num_output() + (sampled_before >= 0 ? 1 : 0); }
};

struct StepPlan {
  std::vector<ScheduledSequence> scheduled;  // empty: nothing to do
  // Ended without running: cancelled, or past its deadline (`finish` says which). Blocks are
  // released; dead after Commit.
  std::vector<Sequence*> ended;
  int num_tokens = 0;
  int preempted = 0;
};

// What the engine made of one scheduled sequence, in the plan's order.
struct StepResult {
  TokenId token = -1;  // the sampled token where `samples`, else -1
  // kNone: go on. Otherwise the sequence is dead after Commit; kError: its blocks are poisoned.
  FinishReason finish = FinishReason::kNone;
};

class Scheduler {
 public:
  // `pool` is not owned and outlives the scheduler.
  Scheduler(SchedulerLimits limits, BlockPool* pool);
  ~Scheduler();

  // Queues request->sampling.n sequences (1 for scoring and embedding), or none. ResourceExhausted:
  // the queue is full, or the request (prompt + max_tokens) can never fit the pool;
  // InvalidArgument: nothing to compute. The message names figure and limit. With n > 1 the other
  // samples wait until the first one's prompt is computed, whose blocks they then share, or until
  // it has ended; they go on without it.
  absl::Status Add(std::shared_ptr<const Request> request);
  // Marks every sequence of the request; they end, and free their blocks, in the next Plan. Unknown
  // ids are ignored.
  void Cancel(RequestId id);

  // REQUIRES that every plan is committed. Never plans a step that the pool cannot hold; unless
  // idle, always runs or ends something.
  // `plan` is cleared and filled; vectors keep their capacity. Commit must follow, but if the plan
  // is empty it may be left out.
  void Plan(absl::Time now, StepPlan* plan);
  // Plans the step behind `running`, as Plan would if nobody ended with it but by length. False,
  // and nothing is planned, if that is more than to go on and let enter: somebody is cancelled or
  // past the deadline, or not everybody who runs has a block for his next token. Or if there is
  // nothing to do. REQUIRES that `running` is the last plan, and the only one not committed.
  bool PlanNext(absl::Time now, const StepPlan& running, StepPlan* plan);
  // Applies a step: advances, appends tokens, publishes full blocks, retires what finished or
  // ended, and takes it out of `next`, the plan that PlanNext made behind this one, or null.
  // REQUIRES the first plan not committed, results.size() == plan.scheduled.size(), a finish for
  // what reaches max_tokens or the end of a prompt to be scored or embedded. A token that comes
  // with a finish is still appended; what has no sequence has no result.
  void Commit(const StepPlan& plan, std::span<const StepResult> results, StepPlan* next = nullptr);

  bool idle() const;  // nothing waiting or running
  int num_waiting() const;
  int num_running() const;
  int64_t waiting_tokens() const;
  const SchedulerLimits& limits() const { return limits_; }
  // The earliest deadline of anything waiting or running; InfiniteFuture if none.
  absl::Time next_deadline() const;

  // Aborts unless every held block belongs to exactly the tables that say so. For tests.
  void CheckInvariants() const;

 private:
  struct Impl;
  SchedulerLimits limits_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace acuity::engine
