#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/schedule/entry.h"

namespace acuity::engine {
namespace {

// How often in a row the first by rank is passed for fairness' sake.
constexpr int kMaxPassed = 8;

}  // namespace

struct Scheduler::Impl {
  Impl(const SchedulerLimits& limits, BlockPool* block_pool);

  absl::Status CheckRequest(const Request& request) const;
  absl::Status CheckQueue(const Request& request, int samples) const;
  std::shared_ptr<Tenant> FindTenant(const std::string& name);
  void Enqueue(std::unique_ptr<Entry> entry);
  std::unique_ptr<Entry> TakeWaiting(size_t index);

  void StartPlan(const StepPlan* before, StepPlan* plan);
  void EndDue(absl::Time now, StepPlan* plan);
  void Fill(absl::Time now, StepPlan* plan);
  void End(std::unique_ptr<Entry> entry, StepPlan* plan);
  void PlanDecodes(StepPlan* plan);
  void PlanPrompts(StepPlan* plan);
  void Admit(absl::Time now, StepPlan* plan);
  size_t NextWaiting() const;
  bool TakeBlocks(Entry* entry, int margin);
  void TopUp(StepPlan* plan);

  int Share(const Entry& entry) const;
  int ChunkSize(const Entry& entry, int share) const;
  int64_t Room(const Entry& entry) const;
  int Margin() const;
  void Schedule(Entry* entry, int num_tokens, StepPlan* plan);
  ScheduledSequence MakeChunk(Entry* entry, int num_tokens);
  void DropChunk(const ScheduledSequence& scheduled);
  void Unschedule(Entry* entry, StepPlan* plan);
  void PreemptLast(StepPlan* plan);

  bool CanGoOn(absl::Time now) const;
  void TakeOutFinished(StepPlan* plan);
  void Apply(const ScheduledSequence& scheduled, const StepResult& result);

  const SchedulerLimits limits;
  const size_t max_running;
  BlockPool* const pool;
  EntryList waiting, running;  // by rank
  EntryList ended;             // until Commit
  int64_t waiting_tokens = 0;  // prompts of `waiting`
  uint64_t next_order = 0;
  absl::Time latest_arrival = absl::InfinitePast();
  std::map<std::string, std::weak_ptr<Tenant>> tenants;
  int passed = 0;                      // admissions since the first by rank was admitted
  int tokens_left = 0, rows_left = 0;  // of the present plan's budget
  bool long_planned = false;           // the present plan has a prompt that goes on after it
  bool behind = false;                 // the present plan's step starts while another runs
  int uncommitted = 0;                 // plans that await Commit; an empty one does not
};

Scheduler::Impl::Impl(const SchedulerLimits& scheduler_limits, BlockPool* block_pool)
    : limits(scheduler_limits),
      max_running(std::min({limits.max_running, limits.max_batch_tokens, limits.max_logit_rows})),
      pool(block_pool) {
  ACUITY_CHECK(pool != nullptr && limits.max_running >= 1 && limits.max_batch_tokens >= 1 &&
               limits.max_logit_rows >= 1 && limits.max_waiting >= 1);
  running.reserve(max_running);
  waiting.reserve(max_running + limits.max_waiting);
  ended.reserve(max_running + limits.max_waiting);
}

// --- Add ---------------------------------------------------------------------------------------

absl::Status Scheduler::Impl::CheckRequest(const Request& request) const {
  if (request.prompt.empty()) return absl::InvalidArgumentError("prompt: 0 tokens, at least 1");
  if (request.generates() && (request.sampling.n < 1 || request.sampling.max_tokens < 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "n: ", request.sampling.n, ", max_tokens: ", request.sampling.max_tokens, ", at least 1"));
  }
  const int64_t size = static_cast<int64_t>(request.prompt.size()) +
                       (request.generates() ? request.sampling.max_tokens : 0);
  const int64_t capacity = static_cast<int64_t>(pool->num_blocks()) * pool->block_size();
  if (size > capacity) {
    return absl::ResourceExhaustedError(
        absl::StrCat("prompt + max_tokens: ", size, " tokens, the cache holds ", capacity));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::Impl::CheckQueue(const Request& request, int samples) const {
  const int64_t sequences = static_cast<int64_t>(waiting.size()) + samples;
  if (sequences > limits.max_waiting) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "queued sequences: ", sequences, " with this request, limit ", limits.max_waiting));
  }
  const int64_t tokens = waiting_tokens + static_cast<int64_t>(request.prompt.size()) * samples;
  if (tokens > limits.max_waiting_tokens) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "queued prompt tokens: ", tokens, " with this request, limit ", limits.max_waiting_tokens));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::Add(std::shared_ptr<const Request> request) {
  if (absl::Status status = impl_->CheckRequest(*request); !status.ok()) return status;
  const int samples = request->generates() ? request->sampling.n : 1;
  if (absl::Status status = impl_->CheckQueue(*request, samples); !status.ok()) return status;

  // Arrivals are stamped on other threads; made monotone, they agree with the order of Add.
  impl_->latest_arrival = std::max(impl_->latest_arrival, request->arrival);
  const absl::Time rank_time = impl_->latest_arrival - request->priority * kPriorityHeadStart;
  const auto prompt_ready = samples > 1 ? std::make_shared<bool>(false) : nullptr;
  const std::shared_ptr<Tenant> tenant = impl_->FindTenant(request->tenant);
  for (int sample = 0; sample < samples; ++sample) {
    auto entry = std::make_unique<Entry>();
    entry->request = request;
    entry->sample = sample;
    entry->prompt_size = static_cast<int>(request->prompt.size());
    entry->final_size =
        entry->prompt_size + (request->generates() ? request->sampling.max_tokens : 0);
    entry->tokens.reserve(entry->final_size);
    entry->tokens = request->prompt;
    entry->blocks = BlockTable(impl_->pool, request->cache_salt);
    entry->blocks.Reserve(entry->final_size);
    entry->order = impl_->next_order++;
    entry->rank_time = rank_time;
    entry->prompt_ready = prompt_ready;
    entry->tenant = tenant;
    impl_->Enqueue(std::move(entry));
  }
  return absl::OkStatus();
}

void Scheduler::Cancel(RequestId id) {
  for (EntryList* list : {&impl_->waiting, &impl_->running}) {
    for (const auto& entry : *list) {
      if (entry->request->id == id) entry->cancelled = true;
    }
  }
}

// Whoever comes back has no claim to what it did not use meanwhile: it starts level with the tenant
// that was served least.
std::shared_ptr<Tenant> Scheduler::Impl::FindTenant(const std::string& name) {
  std::erase_if(tenants, [](const auto& entry) { return entry.second.expired(); });
  if (const auto it = tenants.find(name); it != tenants.end()) return it->second.lock();
  auto tenant = std::make_shared<Tenant>();
  for (auto it = tenants.begin(); it != tenants.end(); ++it) {
    const int64_t served = it->second.lock()->served;
    tenant->served = it == tenants.begin() ? served : std::min(tenant->served, served);
  }
  tenants.emplace(name, tenant);
  return tenant;
}

void Scheduler::Impl::Enqueue(std::unique_ptr<Entry> entry) {
  waiting_tokens += entry->prompt_size;
  InsertByRank(std::move(entry), &waiting);
}

std::unique_ptr<Entry> Scheduler::Impl::TakeWaiting(size_t index) {
  std::unique_ptr<Entry> entry = std::move(waiting[index]);
  waiting.erase(waiting.begin() + static_cast<ptrdiff_t>(index));
  waiting_tokens -= entry->prompt_size;
  return entry;
}

// --- Plan --------------------------------------------------------------------------------------

void Scheduler::Plan(absl::Time now, StepPlan* plan) {
  ACUITY_CHECK(impl_->uncommitted == 0);
  impl_->StartPlan(nullptr, plan);
  impl_->EndDue(now, plan);
  impl_->Fill(now, plan);
  const bool empty = plan->scheduled.empty() && plan->ended.empty();
  impl_->uncommitted = empty ? 0 : 1;
  ACUITY_CHECK(!empty || idle());
}

bool Scheduler::PlanNext(absl::Time now, const StepPlan& running, StepPlan* plan) {
  ACUITY_CHECK(impl_->uncommitted == 1);
  impl_->StartPlan(&running, plan);
  if (impl_->CanGoOn(now)) impl_->Fill(now, plan);
  impl_->uncommitted += plan->num_tokens > 0;
  return plan->num_tokens > 0;
}

// An empty plan: behind `before`, or null.
void Scheduler::Impl::StartPlan(const StepPlan* before, StepPlan* plan) {
  plan->scheduled.clear();
  plan->ended.clear();
  plan->num_tokens = 0;
  plan->preempted = 0;
  tokens_left = limits.max_batch_tokens;
  rows_left = limits.max_logit_rows;
  long_planned = false;
  behind = before != nullptr;
  for (const auto& entry : running) entry->planned = 0;
  if (!behind) return;
  int samples = 0;
  for (const ScheduledSequence& scheduled : before->scheduled) {
    const int sample = scheduled.samples ? samples++ : -1;
    Entry* const entry = static_cast<Entry*>(scheduled.sequence);
    if (entry == nullptr) continue;
    entry->pending = scheduled.num_tokens;
    entry->pending_sample = sample;
  }
}

void Scheduler::Impl::Fill(absl::Time now, StepPlan* plan) {
  PlanDecodes(plan);
  PlanPrompts(plan);
  // What was just preempted must not come straight back for the blocks it gave up.
  if (plan->preempted == 0) Admit(now, plan);
  TopUp(plan);
  plan->num_tokens = limits.max_batch_tokens - tokens_left;
}

// Whether nobody is to be ended, and nobody need be preempted for another to advance.
bool Scheduler::Impl::CanGoOn(absl::Time now) const {
  int missing = 0;
  for (const EntryList* list : {&waiting, &running}) {
    for (const auto& entry : *list) {
      if (entry->Due(now) != FinishReason::kNone) return false;
      if (list == &running && entry->remaining() > 0) {
        missing += entry->blocks.MissingBlocks(entry->begin() + 1);
      }
    }
  }
  return missing <= pool->free_blocks();
}

void Scheduler::Impl::EndDue(absl::Time now, StepPlan* plan) {
  const auto due = [now](Entry* entry) {
    entry->finish = entry->Due(now);
    return entry->finish != FinishReason::kNone;
  };
  for (size_t i = 0; i < waiting.size();) {
    due(waiting[i].get()) ? End(TakeWaiting(i), plan) : void(++i);
  }
  size_t kept = 0;
  for (auto& entry : running) {
    due(entry.get()) ? End(std::move(entry), plan) : running[kept++].swap(entry);
  }
  running.resize(kept);
}

void Scheduler::Impl::End(std::unique_ptr<Entry> entry, StepPlan* plan) {
  entry->state = SequenceState::kFinished;
  entry->blocks.Clear();
  plan->ended.push_back(entry.get());
  ended.push_back(std::move(entry));
}

void Scheduler::Impl::PlanDecodes(StepPlan* plan) {
  for (size_t i = 0; i < running.size(); ++i) {
    Entry* const entry = running[i].get();
    if (entry->remaining() != 1) continue;
    // The last one ranks below this one, or is this one: either way it is not in the plan yet.
    while (entry->state == SequenceState::kRunning && !entry->blocks.Grow(entry->begin() + 1)) {
      PreemptLast(plan);
    }
    if (entry->state == SequenceState::kRunning) Schedule(entry, 1, plan);
  }
}

void Scheduler::Impl::PlanPrompts(StepPlan* plan) {
  for (size_t i = 0; i < running.size() && tokens_left > 0; ++i) {
    Entry* const entry = running[i].get();
    if (entry->planned > 0 || entry->remaining() == 0) continue;
    const int wanted = ChunkSize(*entry, Share(*entry));
    if (wanted == 0) continue;
    // Preempts only when stuck: what fits is better than what would have to be recomputed.
    while (Room(*entry) == 0 && !behind && running.back().get() != entry) PreemptLast(plan);
    const int chunk = static_cast<int>(std::min<int64_t>(wanted, Room(*entry)));
    if (chunk == 0) continue;  // waits for those that rank before it
    ACUITY_CHECK(entry->blocks.Grow(entry->begin() + chunk));
    Schedule(entry, chunk, plan);
  }
}

void Scheduler::Impl::Admit(absl::Time now, StepPlan* plan) {
  while (running.size() < max_running && tokens_left > 0) {
    const size_t next = NextWaiting();
    if (next == waiting.size()) break;
    Entry* const entry = waiting[next].get();
    if (!TakeBlocks(entry, Margin())) break;
    const bool first = std::all_of(waiting.begin(), waiting.begin() + static_cast<ptrdiff_t>(next),
                                   [](const auto& before) { return before->blocked(); });
    passed = first ? 0 : passed + 1;
    if (entry->first_scheduled == absl::InfinitePast()) {
      entry->first_scheduled = now;
      entry->cached_tokens = entry->computed;
    }
    entry->state = SequenceState::kRunning;
    const int chunk = ChunkSize(*entry, std::max(1, Share(*entry)));
    InsertByRank(TakeWaiting(next), &running);
    Schedule(entry, chunk, plan);
  }
}

// The one that enters next; waiting.size() if all wait for their first samples.
size_t Scheduler::Impl::NextWaiting() const {
  const auto ready = [](const auto& entry) { return !entry->blocked(); };
  const auto head = std::find_if(waiting.begin(), waiting.end(), ready);
  if (head == waiting.end() || (*head)->preemptions > 0 || passed >= kMaxPassed) {
    return static_cast<size_t>(head - waiting.begin());
  }
  auto next = head;
  for (auto it = head + 1; it != waiting.end(); ++it) {
    const bool level = (*it)->request->priority == (*head)->request->priority;
    if (level && ready(*it) && (*it)->tenant->served < (*next)->tenant->served) next = it;
  }
  return static_cast<size_t>(next - waiting.begin());
}

// Hands out what is left of the budget, in order of rank.
void Scheduler::Impl::TopUp(StepPlan* plan) {
  for (size_t i = 0; i < running.size() && tokens_left > 0; ++i) {
    Entry* const entry = running[i].get();
    if (entry->planned == entry->remaining() || Room(*entry) <= entry->planned) continue;
    const auto at = std::find_if(plan->scheduled.begin(), plan->scheduled.end(),
                                 [&](const auto& s) { return s.sequence == entry; });
    if (at != plan->scheduled.end()) DropChunk(*at);
    const int64_t chunk = std::min<int64_t>(ChunkSize(*entry, tokens_left), Room(*entry));
    if (chunk == 0) continue;
    ACUITY_CHECK(entry->blocks.Grow(entry->begin() + static_cast<int>(chunk)));
    const ScheduledSequence more = MakeChunk(entry, static_cast<int>(chunk));
    at == plan->scheduled.end() ? plan->scheduled.push_back(more) : void(*at = more);
  }
}

// Takes the blocks of the entry's next chunk, those in the cache first; or none.
bool Scheduler::Impl::TakeBlocks(Entry* entry, int margin) {
  if (pool->free_blocks() <= margin) return false;
  std::span<const TokenId> reusable(entry->tokens);
  if (entry->request->needs_every_row()) {
    reusable = reusable.first(std::min<size_t>(entry->scored + 1, reusable.size()));
  }
  entry->computed = entry->blocks.AcquirePrefix(reusable);
  const int chunk = ChunkSize(*entry, std::max(1, Share(*entry)));
  const int size = entry->computed + chunk;
  if (chunk > 0 && entry->blocks.MissingBlocks(size) + margin <= pool->free_blocks()) {
    return entry->blocks.Grow(size);
  }
  entry->blocks.Clear();
  entry->computed = 0;
  return false;
}

// How many of the tokens left the entry may take at first. What ends in this step takes what it
// needs. Of those that go on after it the first takes half, so that a short prompt need not wait
// for the end of a long one; the others wait for what is left over (TopUp).
int Scheduler::Impl::Share(const Entry& entry) const {
  if (entry.remaining() <= tokens_left) return tokens_left;
  return long_planned ? 0 : std::max(1, tokens_left / 2);
}

// How many of `share` tokens the entry can compute; blocks aside.
int Scheduler::Impl::ChunkSize(const Entry& entry, int share) const {
  const int chunk = std::min(entry.remaining(), share);
  if (entry.request->pooling != Pooling::kNone) return chunk;
  if (!entry.request->score) {
    return chunk == entry.remaining() && rows_left == 0 ? chunk - 1 : chunk;
  }
  const int first = FirstLogitRow(entry, chunk);
  return std::min(chunk, first + rows_left);
}

// How many tokens the entry's own blocks and the free ones hold beyond what is computed.
int64_t Scheduler::Impl::Room(const Entry& entry) const {
  const int64_t blocks = static_cast<int64_t>(entry.blocks.blocks().size());
  return (blocks + pool->free_blocks()) * pool->block_size() - entry.begin();
}

// Blocks that running sequences need to finish their prompts and for one block's worth of output
// each.
int Scheduler::Impl::Margin() const {
  int blocks = 0;
  for (const auto& entry : running) {
    const int64_t size = int64_t{entry->size()} + pool->block_size();
    blocks += entry->blocks.MissingBlocks(std::min<int64_t>(size, entry->final_size));
  }
  return blocks;
}

void Scheduler::Impl::Schedule(Entry* entry, int num_tokens, StepPlan* plan) {
  plan->scheduled.push_back(MakeChunk(entry, num_tokens));
}

// Takes a chunk from the budget.
ScheduledSequence Scheduler::Impl::MakeChunk(Entry* entry, int num_tokens) {
  ScheduledSequence scheduled;
  scheduled.sequence = entry;
  scheduled.first_token = entry->begin();
  scheduled.num_tokens = num_tokens;
  scheduled.sampled_before = entry->pending_sample;
  scheduled.first_logit_row = FirstLogitRow(*entry, num_tokens);
  scheduled.samples = entry->request->generates() && num_tokens == entry->remaining();
  tokens_left -= num_tokens;
  rows_left -= LogitRows(scheduled);
  ACUITY_CHECK(num_tokens > 0 && tokens_left >= 0 && rows_left >= 0);
  entry->planned = num_tokens;
  entry->tenant->served += entry->Cost(num_tokens);
  long_planned |= num_tokens < entry->remaining();
  return scheduled;
}

// Gives it back.
void Scheduler::Impl::DropChunk(const ScheduledSequence& scheduled) {
  tokens_left += scheduled.num_tokens;
  rows_left += LogitRows(scheduled);
  Entry* const entry = static_cast<Entry*>(scheduled.sequence);
  entry->planned = 0;
  entry->tenant->served -= entry->Cost(scheduled.num_tokens);
}

void Scheduler::Impl::Unschedule(Entry* entry, StepPlan* plan) {
  const auto at = std::find_if(plan->scheduled.begin(), plan->scheduled.end(),
                               [&](const auto& s) { return s.sequence == entry; });
  ACUITY_CHECK(at != plan->scheduled.end());
  DropChunk(*at);
  plan->scheduled.erase(at);
}

void Scheduler::Impl::PreemptLast(StepPlan* plan) {
  ACUITY_CHECK(!behind);  // the step that runs may have it
  std::unique_ptr<Entry> entry = std::move(running.back());
  running.pop_back();
  if (entry->planned > 0) Unschedule(entry.get(), plan);
  entry->blocks.Clear();
  entry->computed = 0;
  entry->state = SequenceState::kWaiting;
  ++entry->preemptions;
  ++plan->preempted;
  Enqueue(std::move(entry));
}

// --- Commit ------------------------------------------------------------------------------------

void Scheduler::Commit(const StepPlan& plan, std::span<const StepResult> results, StepPlan* next) {
  ACUITY_CHECK(results.size() == plan.scheduled.size());
  for (size_t i = 0; i < results.size(); ++i) {
    if (plan.scheduled[i].sequence != nullptr) impl_->Apply(plan.scheduled[i], results[i]);
  }
  if (next != nullptr) impl_->TakeOutFinished(next);
  std::erase_if(impl_->running,
                [](const auto& entry) { return entry->state == SequenceState::kFinished; });
  impl_->ended.clear();
  impl_->uncommitted = std::max(0, impl_->uncommitted - 1);
}

void Scheduler::Impl::TakeOutFinished(StepPlan* plan) {
  for (ScheduledSequence& scheduled : plan->scheduled) {
    scheduled.sampled_before = -1;
    Entry* const entry = static_cast<Entry*>(scheduled.sequence);
    if (entry->state != SequenceState::kFinished) continue;
    entry->tenant->served -= entry->Cost(scheduled.num_tokens);
    scheduled.sequence = nullptr;
    plan->num_tokens -= scheduled.num_tokens;
  }
}

void Scheduler::Impl::Apply(const ScheduledSequence& scheduled, const StepResult& result) {
  Entry& entry = *static_cast<Entry*>(scheduled.sequence);
  ACUITY_CHECK(scheduled.first_token == entry.computed && scheduled.sampled_before < 0);
  entry.pending = 0;
  entry.pending_sample = -1;
  entry.computed += scheduled.num_tokens;
  entry.charged = std::max(entry.charged, entry.computed);
  entry.scored = std::max(entry.scored, entry.computed);
  if (result.finish != FinishReason::kError) {
    entry.blocks.PublishComputed(entry.tokens, entry.computed);
  }
  if (result.token >= 0) {
    ACUITY_CHECK(scheduled.samples);
    entry.tokens.push_back(result.token);
  }
  const bool finished = result.finish != FinishReason::kNone;
  // Unfinished, it has something left to compute, and room to do so.
  ACUITY_CHECK(finished ||
               (entry.remaining() > 0 && static_cast<int>(entry.tokens.size()) <
                                             entry.final_size + !entry.request->generates()));
  if (entry.prompt_ready != nullptr && entry.sample == 0 &&
      (finished || entry.computed >= entry.prompt_size)) {
    *entry.prompt_ready = true;
  }
  if (!finished) return;
  entry.finish = result.finish;
  entry.state = SequenceState::kFinished;
  if (result.finish == FinishReason::kError) entry.blocks.Poison();
}

// --- The rest ----------------------------------------------------------------------------------

Scheduler::Scheduler(SchedulerLimits limits, BlockPool* pool)
    : limits_(limits), impl_(std::make_unique<Impl>(limits, pool)) {}
Scheduler::~Scheduler() = default;

bool Scheduler::idle() const { return impl_->waiting.empty() && impl_->running.empty(); }
int Scheduler::num_waiting() const { return static_cast<int>(impl_->waiting.size()); }
int Scheduler::num_running() const { return static_cast<int>(impl_->running.size()); }
int64_t Scheduler::waiting_tokens() const { return impl_->waiting_tokens; }

absl::Time Scheduler::next_deadline() const {
  absl::Time earliest = absl::InfiniteFuture();
  for (const EntryList* list : {&impl_->waiting, &impl_->running}) {
    for (const auto& entry : *list) earliest = std::min(earliest, entry->request->deadline);
  }
  return earliest;
}

void Scheduler::CheckInvariants() const {
  BlockPool& pool = *impl_->pool;
  pool.CheckInvariants();
  std::vector<int> references(pool.num_blocks(), 0);
  int64_t waiting_tokens = 0;
  ACUITY_CHECK(impl_->running.size() <= impl_->max_running);
  for (const EntryList* list : {&impl_->waiting, &impl_->running}) {
    ACUITY_CHECK(std::is_sorted(list->begin(), list->end(), RanksBefore));
    for (const auto& entry : *list) {
      const bool waits = list == &impl_->waiting;
      ACUITY_CHECK(entry->state == (waits ? SequenceState::kWaiting : SequenceState::kRunning));
      ACUITY_CHECK(!waits || (entry->computed == 0 && entry->blocks.blocks().empty()));
      ACUITY_CHECK(entry->blocks.MissingBlocks(entry->computed) == 0);
      ACUITY_CHECK(entry->computed < static_cast<int>(entry->tokens.size()));
      for (const BlockId block : entry->blocks.blocks()) ++references[block.value];
      if (waits) waiting_tokens += entry->prompt_size;
    }
  }
  ACUITY_CHECK(waiting_tokens == impl_->waiting_tokens);
  for (int i = 0; i < pool.num_blocks(); ++i) {
    ACUITY_CHECK(references[i] == pool.references(BlockId{i}));
  }
}

}  // namespace acuity::engine
