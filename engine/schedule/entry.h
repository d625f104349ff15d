// A sequence as the scheduler sees it. For scheduler.cc alone.
#pragma once

#include <algorithm>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/schedule/scheduler.h"

namespace acuity::engine {

// One tenant with something waiting or running.
struct Tenant {
  int64_t served = 0;  // tokens computed for it, those of the present plan included
};

// What only the scheduler knows of a sequence. Every Sequence that leaves it is one of these.
struct Entry : Sequence {
  absl::Time rank_time;                // arrival, less the priority's head start
  int final_size = 0;                  // tokens when it ends by length
  int scored = 0;                      // rows whose logits a scoring sequence has had
  std::shared_ptr<bool> prompt_ready;  // n > 1: shared by the samples; set when 1.. may start
  std::shared_ptr<Tenant> tenant;
  int charged = 0;  // tokens up to here were computed before
  bool cancelled = false;
  int planned = 0;  // tokens in the present plan
  // Of the step that runs while the next is planned: tokens in it, and which of those sampled there
  // is this one's; -1: none.
  int pending = 0;
  int pending_sample = -1;

  // Where the present plan begins, and the tokens that are there for it.
  int begin() const { return computed + pending; }
  int size() const { return static_cast<int>(tokens.size()) + (pending_sample >= 0 ? 1 : 0); }
  // Tokens to be computed before it can end or sample. 0: it ends with the step that runs.
  int remaining() const {
    return request->generates() && size() == final_size ? 0 : size() - begin();
  }
  // What computing `num_tokens` more costs the tenant.
  int Cost(int num_tokens) const {
    return std::max(0, begin() + num_tokens - std::max(charged, begin()));
  }
  // Why it is to end before anything else is computed.
  FinishReason Due(absl::Time now) const {
    if (cancelled) return FinishReason::kCancelled;
    return request->deadline <= now ? FinishReason::kDeadline : FinishReason::kNone;
  }
  bool blocked() const { return sample > 0 && !*prompt_ready; }
};

using EntryList = std::vector<std::unique_ptr<Entry>>;

inline bool RanksBefore(const std::unique_ptr<Entry>& a, const std::unique_ptr<Entry>& b) {
  return std::tie(a->rank_time, a->order) < std::tie(b->rank_time, b->order);
}

inline void InsertByRank(std::unique_ptr<Entry> entry, EntryList* list) {
  const auto at = std::upper_bound(list->begin(), list->end(), entry, RanksBefore);
  list->insert(at, std::move(entry));
}

// First row of a chunk of num_tokens whose logits or hidden states are needed; num_tokens: none.
inline int FirstLogitRow(const Entry& entry, int num_tokens) {
  if (!entry.request->needs_every_row()) {
    return num_tokens == entry.remaining() ? num_tokens - 1 : num_tokens;
  }
  const int first = std::max(0, entry.scored - entry.begin());
  const bool only_last_row = entry.request->score && entry.begin() + first >= entry.prompt_size - 1;
  return only_last_row ? num_tokens : std::min(first, num_tokens);
}

// Rows of a share whose logits are needed.
inline int LogitRows(const ScheduledSequence& scheduled) {
  if (scheduled.sequence->request->pooling != Pooling::kNone) return 0;
  return scheduled.num_tokens - scheduled.first_logit_row;
}

}  // namespace acuity::engine
