#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/active_request.h"
#include "engine/base/limits.h"
#include "engine/batch_builder.h"
#include "engine/loader/checkpoint.h"
#include "engine/model/model_runner.h"
#include "engine/opened_model.h"
#include "kernels/cpu/isa.h"

namespace acuity::engine {
namespace {

// After the drain's deadline the rest is cancelled; that takes two steps, and this much at the
// most.
constexpr absl::Duration kCancelGrace = absl::Seconds(5);

// Everything that Create made, handed to the engine whole.
struct Parts {
  EngineOptions options;
  ModelInfo info;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;
  std::unique_ptr<ModelRunner> runner;
};

class EngineImpl : public Engine {
 public:
  EngineImpl(Parts parts, EngineObserver* observer);
  ~EngineImpl() override;

  const Tokenizer& tokenizer() const override { return *parts_.tokenizer; }
  const ChatTemplate* chat_template() const override { return parts_.chat_template.get(); }
  const ModelInfo& info() const override { return parts_.info; }
  EngineGauges gauges() const override;
  absl::Status Prepare(Request* request) const override;
  absl::Status Submit(std::shared_ptr<const Request> request,
                      std::shared_ptr<EventSink> sink) override;
  void Cancel(RequestId id) override;
  bool Drain(absl::Time deadline) override;

 private:
  struct Submission {
    std::shared_ptr<const Request> request;
    std::shared_ptr<EventSink> sink;
  };
  struct Inbox {
    std::vector<Submission> submissions;
    std::vector<RequestId> cancellations;
  };

  // A step, from its plan to its Commit.
  struct Step {
    StepPlan plan;
    Batch batch;
    absl::Time begin;
    absl::Status status;  // of its beginning, then of its end
  };

  // Engine thread.
  void Loop();
  bool TakeInbox();  // false: stop
  void Apply();
  // Ends one step, having begun the next one, if what that is does not depend on this one's end: a
  // GPU then has work while the host reads.
  void RunStep(absl::Time now);
  void BeginStep(absl::Time now, Step* step);
  bool BeginNext(absl::Time now);
  void EndStep(StepPlan* next);
  void AddAttention(const StepOutput& output);
  void AdvanceAll(const StepOutput& output, absl::Time now);
  void FailAll(const absl::Status& status);
  void ZeroBlocks(const Sequence& sequence);
  void EndPlanned();
  void Retire(RequestId id, absl::Time now);
  void PublishGauges();
  ActiveRequest& Find(const Sequence& sequence) { return *active_.at(sequence.request->id); }

  Parts parts_;
  EngineObserver* observer_;
  ModelContext context_;

  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  // Guarded by mutex_:
  Inbox inbox_;
  EngineGauges gauges_;
  int64_t waiting_tokens_ = 0;
  int inbox_sequences_ = 0;
  int64_t inbox_tokens_ = 0;
  bool draining_ = false;
  bool stopping_ = false;
  bool working_ = false;

  // Engine thread only:
  BlockPool pool_;
  Scheduler scheduler_;
  Sampler sampler_;
  std::unordered_map<RequestId, std::unique_ptr<ActiveRequest>> active_;
  Inbox taken_;
  Step step_, next_;
  bool begun_ = false;  // step_ is
  absl::Time last_end_ = absl::InfinitePast();
  std::vector<StepResult> results_;
  int64_t computed_tokens_ = 0, generated_tokens_ = 0;

  std::thread thread_;
};

SchedulerLimits MakeLimits(const EngineOptions& options, const ModelOptions& model) {
  return {.max_batch_tokens = model.max_batch_tokens,
          .max_running = model.max_batch_sequences,
          .max_logit_rows = model.max_logit_rows,
          .max_waiting = options.max_waiting,
          .max_waiting_tokens = options.max_waiting_tokens};
}

int NumSequences(const Request& request) { return request.generates() ? request.sampling.n : 1; }

EngineImpl::EngineImpl(Parts parts, EngineObserver* observer)
    : parts_(std::move(parts)),
      observer_(observer),
      pool_(parts_.runner->num_blocks(), parts_.runner->options().block_size),
      scheduler_(MakeLimits(parts_.options, parts_.runner->options()), &pool_),
      sampler_(parts_.runner->spec().vocab_size) {
  const ModelSpec& spec = parts_.runner->spec();
  context_ = {.tokenizer = parts_.tokenizer.get(),
              .observer = observer,
              .num_heads = spec.num_heads,
              .report_min_tokens = parts_.options.report_min_tokens};
  for (const LayerSpec& layer : spec.layers) {
    context_.policies.push_back(layer.policy.name);
    context_.windows.push_back(layer.window);
  }
  gauges_.num_blocks = pool_.num_blocks();
  gauges_.last_progress = absl::Now();
  thread_ = std::thread([this] { Loop(); });
}

EngineImpl::~EngineImpl() {
  {
    std::lock_guard lock(mutex_);
    draining_ = true;
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

EngineGauges EngineImpl::gauges() const {
  std::lock_guard lock(mutex_);
  EngineGauges gauges = gauges_;
  gauges.waiting += inbox_sequences_;
  if (!working_ && inbox_sequences_ == 0) gauges.last_progress = absl::Now();
  return gauges;
}

absl::Status EngineImpl::Prepare(Request* request) const {
  const int context = parts_.info.max_context;
  const int vocab = parts_.info.vocab_size;
  const int64_t size = static_cast<int64_t>(request->prompt.size());
  if (size == 0)
    return absl::InvalidArgumentError("prompt: it has no tokens, at least 1 is needed");
  for (TokenId id : request->prompt) {
    if (id < 0 || id >= vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("prompt.token_ids: ", id, " is not in the vocabulary, 0 to ", vocab - 1));
    }
  }
  for (const kernels::KeySpan& span : request->watch) {
    if (span.begin < 0 || span.begin >= span.end || span.end > size) {
      return absl::InvalidArgumentError(absl::StrCat("watch: [", span.begin, ", ", span.end,
                                                     ") is no part of the prompt's tokens, [0, ",
                                                     size, ")"));
    }
  }
  SamplingParams& sampling = request->sampling;
  const int64_t room = context - size;
  if (size > context || (request->generates() && room < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: ", size, " tokens, the context holds ",
                                                   context,
                                                   request->generates() ? " with the output" : ""));
  }
  if (!request->generates()) return absl::OkStatus();
  if (sampling.max_tokens < 0) {
    sampling.max_tokens = static_cast<int>(std::min<int64_t>(room, kDefaultMaxTokens));
  }
  if (sampling.max_tokens > room) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.max_tokens: ", sampling.max_tokens,
                                                   ", the context of ", context, " leaves ", room,
                                                   " after a prompt of ", size));
  }
  if (sampling.min_tokens > sampling.max_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.min_tokens: ", sampling.min_tokens,
                                                   " is more than max_tokens, ",
                                                   sampling.max_tokens));
  }
  if (sampling.top_k > vocab) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling.top_k: ", sampling.top_k, ", the vocabulary has ", vocab));
  }
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (id < 0 || id >= vocab) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sampling.logit_bias: id ", id, " is not in the vocabulary, 0 to ", vocab - 1));
    }
  }
  for (TokenId id : sampling.stop_tokens) {
    if (id < 0 || id >= vocab) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sampling.stop_token_ids: ", id, " is not in the vocabulary, 0 to ", vocab - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status EngineImpl::Submit(std::shared_ptr<const Request> request,
                                std::shared_ptr<EventSink> sink) {
  const int sequences = NumSequences(*request);
  const int64_t tokens = static_cast<int64_t>(request->prompt.size()) * sequences;
  absl::Status refused;
  const char* reason = nullptr;
  {
    std::lock_guard lock(mutex_);
    const int waiting = gauges_.waiting + inbox_sequences_;
    const int64_t waiting_tokens = waiting_tokens_ + inbox_tokens_;
    if (draining_) {
      reason = "draining";
      refused = absl::UnavailableError("the daemon is shutting down and takes no new requests");
    } else if (waiting + sequences > parts_.options.max_waiting) {
      reason = "queue_full";
      refused = absl::ResourceExhaustedError(absl::StrCat(
          "queue: ", waiting, " sequences wait, the limit is ", parts_.options.max_waiting));
    } else if (waiting_tokens + tokens > parts_.options.max_waiting_tokens) {
      reason = "queue_full";
      refused = absl::ResourceExhaustedError(
          absl::StrCat("queue: ", waiting_tokens, " prompt tokens wait, with this request's ",
                       tokens, " more than the limit of ", parts_.options.max_waiting_tokens));
    } else {
      inbox_.submissions.push_back({std::move(request), std::move(sink)});
      inbox_sequences_ += sequences;
      inbox_tokens_ += tokens;
    }
  }
  if (reason == nullptr) {
    wake_.notify_one();
  } else if (observer_ != nullptr) {
    observer_->OnRejected(reason);
  }
  return refused;
}

void EngineImpl::Cancel(RequestId id) {
  {
    std::lock_guard lock(mutex_);
    inbox_.cancellations.push_back(id);
  }
  wake_.notify_one();
}

bool EngineImpl::Drain(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  const auto finished = [this] { return !working_ && inbox_.submissions.empty(); };
  if (idle_.wait_until(lock, absl::ToChronoTime(deadline), finished)) return true;
  stopping_ = true;  // the engine thread cancels what is left and ends
  wake_.notify_all();
  idle_.wait_for(lock, absl::ToChronoMilliseconds(kCancelGrace), finished);
  return false;
}

void EngineImpl::Loop() {
  while (TakeInbox()) {
    Apply();
    RunStep(absl::Now());
    PublishGauges();
  }
  // Whoever is left hears that it is over.
  Apply();
  for (const auto& [id, request] : active_) scheduler_.Cancel(id);
  while (!scheduler_.idle()) RunStep(absl::Now());
  PublishGauges();
}

bool EngineImpl::TakeInbox() {
  std::unique_lock lock(mutex_);
  working_ = !scheduler_.idle();
  if (!working_) {
    if (inbox_.submissions.empty()) idle_.notify_all();
    wake_.wait(lock, [this] { return stopping_ || !inbox_.submissions.empty(); });
    gauges_.last_progress = absl::Now();  // waiting for work is no standstill
  }
  working_ = true;
  std::swap(inbox_, taken_);
  gauges_.waiting += inbox_sequences_;
  waiting_tokens_ += inbox_tokens_;
  inbox_sequences_ = 0;
  inbox_tokens_ = 0;
  return !stopping_;
}

void EngineImpl::Apply() {
  for (Submission& s : taken_.submissions) {
    const std::shared_ptr<const Request>& request = s.request;
    auto active = std::make_unique<ActiveRequest>(&context_, request, std::move(s.sink));
    const absl::Status queued = scheduler_.Add(request);
    if (queued.ok()) {
      active_.emplace(request->id, std::move(active));
    } else {
      active->Finish(absl::Now(), queued);
    }
  }
  for (RequestId id : taken_.cancellations) scheduler_.Cancel(id);
  taken_.submissions.clear();
  taken_.cancellations.clear();
}

void EngineImpl::RunStep(absl::Time now) {
  if (!begun_) {
    scheduler_.Plan(now, &step_.plan);
    EndPlanned();
    BeginStep(now, &step_);
  }
  begun_ = BeginNext(now);
  EndStep(begun_ ? &next_.plan : nullptr);
  std::swap(step_, next_);
  if (!begun_ || step_.plan.num_tokens > 0) return;
  EndStep(nullptr);  // nobody is left in it
  begun_ = false;
}

void EngineImpl::BeginStep(absl::Time now, Step* step) {
  step->begin = now;
  if (step->plan.scheduled.empty()) return;
  BuildBatch(step->plan, pool_.block_size(), parts_.runner->draws(), &step->batch);
  for (size_t i = 0; i < step->plan.scheduled.size(); ++i) {
    const ScheduledSequence& scheduled = step->plan.scheduled[i];
    Find(*scheduled.sequence).AskForAttention(scheduled, static_cast<int>(i), &step->batch);
  }
  step->status = parts_.runner->Start(step->batch);
}

// Only where the device has every token that the next step goes on from.
bool EngineImpl::BeginNext(absl::Time now) {
  const std::vector<ScheduledSequence>& scheduled = step_.plan.scheduled;
  if (!parts_.runner->draws() || scheduled.empty() || !step_.status.ok()) return false;
  const auto samples =
      std::count_if(scheduled.begin(), scheduled.end(), [](const auto& s) { return s.samples; });
  if (samples != static_cast<ptrdiff_t>(step_.batch.draws.size())) return false;
  if (!scheduler_.PlanNext(now, step_.plan, &next_.plan)) return false;
  BeginStep(now, &next_);
  return true;
}

void EngineImpl::EndStep(StepPlan* next) {
  const StepPlan& plan = step_.plan;
  results_.assign(plan.scheduled.size(), StepResult{});
  if (!plan.scheduled.empty()) {
    StepOutput output;
    if (step_.status.ok()) step_.status = parts_.runner->Finish(&output);
    const absl::Time end = absl::Now();
    if (step_.status.ok()) {
      AddAttention(output);
      AdvanceAll(output, end);
    } else {
      FailAll(step_.status);
    }
    if (observer_ != nullptr && plan.num_tokens > 0) {
      const auto sequences = std::count_if(plan.scheduled.begin(), plan.scheduled.end(),
                                           [](const auto& s) { return s.sequence != nullptr; });
      observer_->OnStep({.duration = end - std::max(step_.begin, last_end_),
                         .num_sequences = static_cast<int>(sequences),
                         .num_tokens = plan.num_tokens,
                         .preempted = plan.preempted});
    }
    last_end_ = end;
  }
  // Commit destroys sequences that ended: remember whose they were.
  std::vector<RequestId> touched;
  for (const Sequence* sequence : plan.ended) touched.push_back(sequence->request->id);
  for (size_t i = 0; i < results_.size(); ++i) {
    if (results_[i].finish != FinishReason::kNone) {
      touched.push_back(plan.scheduled[i].sequence->request->id);
    }
  }
  computed_tokens_ += plan.num_tokens;
  for (const StepResult& result : results_) generated_tokens_ += result.token >= 0;
  scheduler_.Commit(plan, results_, next);
  for (RequestId id : touched) Retire(id, absl::Now());
}

void EngineImpl::AddAttention(const StepOutput& output) {
  const ModelSpec& spec = parts_.runner->spec();
  const int64_t layer_mass = static_cast<int64_t>(output.span_mass.size()) / spec.num_layers;
  size_t i = 0, watched = 0, mass = 0;
  const Batch& batch = step_.batch;
  for (const kernels::MeasuredRows& rows : batch.measured) {
    while (rows.row_begin >= batch.qo_indptr[i + 1]) ++i;
    std::span<const float> masses;
    if (watched < batch.watched.size()) {
      const kernels::WatchedRow& next = batch.watched[watched];
      if (batch.qo_indptr[next.seq] + next.row == rows.row_begin) {
        masses = output.span_mass.subspan(mass);
        mass += static_cast<size_t>(spec.num_heads * next.num_spans);
        ++watched;
      }
    }
    const Sequence* sequence = step_.plan.scheduled[i].sequence;
    if (sequence == nullptr) continue;
    Find(*sequence).AddAttention(*sequence, rows, output.sums.subspan(rows.at), masses, layer_mass);
  }
}

// The first of `rows` from `at` on that is `end` or beyond.
size_t FirstFrom(const std::vector<int32_t>& rows, size_t at, int end) {
  while (at < rows.size() && rows[at] < end) ++at;
  return at;
}

void EngineImpl::AdvanceAll(const StepOutput& output, absl::Time now) {
  const Batch& batch = step_.batch;
  const int vocab = parts_.runner->spec().vocab_size;
  const size_t hidden = static_cast<size_t>(parts_.runner->spec().hidden_size);
  size_t next_logit = 0, next_hidden = 0, next_draw = 0;
  for (size_t i = 0; i < step_.plan.scheduled.size(); ++i) {
    const ScheduledSequence& scheduled = step_.plan.scheduled[i];
    const int end = batch.qo_indptr[i + 1];
    const size_t logit = std::exchange(next_logit, FirstFrom(batch.logit_rows, next_logit, end));
    const size_t state = std::exchange(next_hidden, FirstFrom(batch.hidden_rows, next_hidden, end));
    const bool drawn = next_draw < batch.draws.size() && batch.draws[next_draw].row < end;
    const size_t draw = drawn ? next_draw++ : next_draw;
    if (scheduled.sequence == nullptr) continue;
    ActiveRequest& request = Find(*scheduled.sequence);
    if (request.request().pooling != Pooling::kNone) {
      results_[i] = request.Pool(
          scheduled, output.hidden.subspan(state * hidden, (next_hidden - state) * hidden));
    } else if (drawn) {
      results_[i] = request.AdvanceDrawn(scheduled, output.tokens[draw], now);
    } else {
      results_[i] = request.Advance(
          scheduled, output.logits.subspan(logit * vocab, (next_logit - logit) * vocab), vocab,
          &sampler_, now);
    }
    if (results_[i].finish == FinishReason::kError) ZeroBlocks(*scheduled.sequence);
  }
}

// Those that nobody else reads.
void EngineImpl::ZeroBlocks(const Sequence& sequence) {
  std::vector<int32_t> blocks;
  for (BlockId block : sequence.blocks.blocks()) {
    if (pool_.references(block) == 1) blocks.push_back(block.value);
  }
  parts_.runner->ZeroBlocks(blocks);
}

void EngineImpl::FailAll(const absl::Status& status) {
  for (size_t i = 0; i < step_.plan.scheduled.size(); ++i) {
    const Sequence* sequence = step_.plan.scheduled[i].sequence;
    if (sequence == nullptr) continue;
    Find(*sequence).EndSample(*sequence, FinishReason::kError, status);
    results_[i] = {-1, FinishReason::kError};
  }
}

void EngineImpl::EndPlanned() {
  for (const Sequence* sequence : step_.plan.ended) {
    const absl::Status why =
        sequence->finish == FinishReason::kDeadline
            ? absl::DeadlineExceededError(
                  absl::StrCat("deadline: passed after ", sequence->num_output(), " output tokens"))
            : absl::CancelledError(stopping_ ? "the daemon stopped before the end" : "cancelled");
    Find(*sequence).EndSample(*sequence, sequence->finish, why);
  }
}

void EngineImpl::Retire(RequestId id, absl::Time now) {
  const auto it = active_.find(id);
  if (it == active_.end() || !it->second->done()) return;
  AttentionReport summary = it->second->Finish(now);
  active_.erase(it);
  if (summary.empty()) return;
  std::lock_guard lock(mutex_);
  gauges_.last_attention = std::move(summary);
}

void EngineImpl::PublishGauges() {
  std::lock_guard lock(mutex_);
  gauges_.waiting = scheduler_.num_waiting();
  gauges_.running = scheduler_.num_running();
  gauges_.held_blocks = pool_.held_blocks();
  gauges_.computed_tokens = computed_tokens_;
  gauges_.generated_tokens = generated_tokens_;
  gauges_.last_progress = absl::Now();
  gauges_.saturated_values = parts_.runner->saturated_values();
  gauges_.health = parts_.runner->health();
  waiting_tokens_ = scheduler_.waiting_tokens();
  working_ = !scheduler_.idle();
  if (!working_) idle_.notify_all();
}

ModelInfo Describe(const EngineOptions& options, const Checkpoint& checkpoint,
                   const ModelRunner& runner, int max_context, absl::Duration load) {
  const ModelSpec& spec = runner.spec();
  int64_t parameters = 0;
  for (const Checkpoint::TensorInfo& tensor : checkpoint.tensors()) {
    parameters += tensor.rows * tensor.columns;
  }
  return {.name = options.name,
          .architecture = spec.architecture,
          .display_name = spec.display_name,
          .stored_type = std::string(checkpoint.stored_type()),
          .dtype = kernels::DTypeName(options.dtype),
          .kv_dtype = kernels::DTypeName(runner.options().kv_dtype),
          .policy = spec.layers.front().policy.name,
          .isa = kernels::IsaName(kernels::ActiveIsa()),
          .device = runner.device(),
          .num_layers = spec.num_layers,
          .num_heads = spec.num_heads,
          .num_kv_heads = spec.num_kv_heads,
          .head_dim = spec.head_dim,
          .vocab_size = spec.vocab_size,
          .max_context = max_context,
          .parameters = parameters,
          .weight_bytes = runner.weight_bytes(),
          .kv_bytes = runner.bytes_per_block() * runner.num_blocks(),
          .block_size = runner.options().block_size,
          .num_blocks = runner.num_blocks(),
          .load_seconds = absl::ToDoubleSeconds(load)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options,
                                                       kernels::ThreadPool* pool,
                                                       EngineObserver* observer) {
  const absl::Time start = absl::Now();
  absl::StatusOr<OpenedModel> model = OpenModel(options.path, options.attention_policy);
  if (!model.ok()) return model.status();
  const int trained_context = model->spec.max_context;
  const int max_context = options.max_context == 0 ? trained_context : options.max_context;
  if (max_context > trained_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_context: ", max_context, ", the model was trained to ", trained_context));
  }

  Parts parts;
  parts.tokenizer = std::move(model->tokenizer);
  parts.chat_template = std::move(model->chat_template);
  const ModelOptions model_options{.weight_dtype = options.dtype,
                                   .kv_dtype = options.kv_dtype.value_or(options.dtype),
                                   .block_size = options.block_size,
                                   .kv_memory_bytes = options.kv_memory_bytes,
                                   .max_batch_tokens = options.max_batch_tokens,
                                   .max_batch_sequences = options.max_running,
                                   .on_load = options.on_load};
  const RunnerFactory make_runner = options.make_runner ? options.make_runner : ModelRunner::Create;
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
      make_runner(*model->checkpoint, std::move(model->spec), model_options, pool->parallel_for());
  if (!runner.ok()) return runner.status();
  parts.runner = *std::move(runner);
  const int64_t needed = (max_context + options.block_size - 1) / options.block_size;
  if (parts.runner->num_blocks() < needed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv_memory: ", parts.runner->num_blocks() * parts.runner->bytes_per_block(), " bytes hold ",
        parts.runner->num_blocks() * options.block_size, " tokens, one sequence of max_context ",
        max_context, " needs ", needed * parts.runner->bytes_per_block(), " bytes"));
  }
  parts.info =
      Describe(options, *model->checkpoint, *parts.runner, max_context, absl::Now() - start);
  parts.options = std::move(options);
  return std::make_unique<EngineImpl>(std::move(parts), observer);
}

RequestId Engine::NextRequestId() {
  static std::atomic<uint64_t> next{1};
  return {next.fetch_add(1, std::memory_order_relaxed)};
}

}  // namespace acuity::engine
