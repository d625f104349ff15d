// A request that the engine is working on: what turns sampled tokens into its caller's events and
// result. Used by the engine thread only.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/model/model_runner.h"
#include "engine/schedule/scheduler.h"
#include "engine/stop_matcher.h"

namespace acuity::engine {

// What all requests of an engine share, not owned.
struct ModelContext {
  const Tokenizer* tokenizer = nullptr;
  EngineObserver* observer = nullptr;  // may be null
  std::vector<std::string> policies;   // [num_layers]
  std::vector<int> windows;            // [num_layers]
  int num_heads = 0;
  int report_min_tokens = 0;
};

class ActiveRequest {
 public:
  ActiveRequest(const ModelContext* context, std::shared_ptr<const Request> request,
                std::shared_ptr<EventSink> sink);

  const Request& request() const { return *request_; }
  // Before a step: appends to batch->measured and batch->watched which rows of a scheduled chunk,
  // sequence `index` of the batch, this request wants measured. A row is measured once, whatever is
  // computed again after a preemption; the prompt's rows are those of sample 0. Of a request that
  // watches spans, the prompt's last row and all after it are watched, and measured alone. Nothing
  // beyond kernels::kMostSummedKeys is.
  void AskForAttention(const ScheduledSequence& scheduled, int index, Batch* batch) const;
  // After it, unless it failed: adds what rows that were asked for gave, in their order. Their own
  // sums begin at `sums`; masses, layer_stride: see SpanAccumulator, empty unless the row is
  // watched.
  void AddAttention(const Sequence& sequence, const kernels::MeasuredRows& rows,
                    std::span<const kernels::RowSums> sums, std::span<const float> masses,
                    int64_t layer_stride);
  // Takes the logits [rows, vocab] of a chunk: samples the next token or scores the prompt, and
  // tells the sink.
  StepResult Advance(const ScheduledSequence& scheduled, std::span<const float> logits,
                     int vocab_size, Sampler* sampler, absl::Time now);
  // Takes the token that the runner drew after a chunk, as Advance would from its logits; -1: those
  // are not finite.
  StepResult AdvanceDrawn(const ScheduledSequence& scheduled, TokenId token, absl::Time now);
  // Takes the final hidden states [rows, hidden size] of a chunk of a request that pools. A mean is
  // added up in the order of the rows, in float64, whatever the chunks.
  StepResult Pool(const ScheduledSequence& scheduled, std::span<const float> hidden);
  // A sequence ended without running, or its step failed.
  void EndSample(const Sequence& sequence, FinishReason reason, absl::Status why);

  bool done() const { return unfinished_ == 0; }
  // Sends the result; returns the summary of the prompt's attention, empty if it was not measured.
  // REQUIRES done() or an `early` status (never queued). Once.
  AttentionReport Finish(absl::Time now, absl::Status early = absl::OkStatus());

 private:
  bool measures_attention() const { return detail_ != AttentionDetail::kOff; }
  struct Sample {
    StreamDecoder decoder;
    StopMatcher stops;
    int measured = 0;  // positions below were measured
    int output = 0;
    absl::Time last_token = absl::InfinitePast();
    FinishReason finish = FinishReason::kNone;
  };
  StepResult SampleNext(const ScheduledSequence& scheduled, std::span<const float> logits,
                        Sampler* sampler, absl::Time now);
  // The next token of a sample is known: its text, whether it is the last one, the sink.
  StepResult Accept(const Sequence& sequence, Sampled sampled, absl::Time now);
  StepResult ScorePrompt(const ScheduledSequence& scheduled, std::span<const float> logits,
                         int vocab_size, Sampler* sampler);
  StepResult Fail(const Sequence& sequence, absl::Status why);
  FinishReason FinishAfter(TokenId token, int output) const;
  void NoteFirstScheduled(const Sequence& sequence);
  void NoteFirstToken(Sample& sample, absl::Time now);
  void NoteSequence(const Sequence& sequence, FinishReason reason);
  AttentionReport MakeReport(const AttentionAccumulator& accumulator) const;

  const ModelContext* context_;
  std::shared_ptr<const Request> request_;
  std::shared_ptr<EventSink> sink_;
  AttentionDetail detail_;
  std::vector<Sample> samples_;
  int unfinished_;
  std::vector<TokenId> banned_;  // before min_tokens
  std::optional<AttentionAccumulator> prompt_attention_, generated_attention_;
  std::vector<double> pooled_;  // [hidden size] sum of the hidden states so far, or the last one
  std::optional<SpanAccumulator> prompt_spans_, generated_spans_;
  absl::Time first_scheduled_ = absl::InfinitePast();
  absl::Time first_token_ = absl::InfinitePast();
  RequestResult result_;
};

}  // namespace acuity::engine
