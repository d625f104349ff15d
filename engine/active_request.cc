#include "engine/active_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace acuity::engine {
namespace {

// Parts that SUMMARY and the metrics divide the layers into: front, middle, back.
constexpr int kLayerBands = 3;

AttentionDetail Resolve(const Request& request, int report_min_tokens) {
  if (request.attention != AttentionDetail::kAuto) return request.attention;
  return static_cast<int>(request.prompt.size()) >= report_min_tokens ? AttentionDetail::kSummary
                                                                      : AttentionDetail::kOff;
}

}  // namespace

ActiveRequest::ActiveRequest(const ModelContext* context, std::shared_ptr<const Request> request,
                             std::shared_ptr<EventSink> sink)
    : context_(context),
      request_(std::move(request)),
      sink_(std::move(sink)),
      detail_(Resolve(*request_, context->report_min_tokens)) {
  const SamplingParams& sampling = request_->sampling;
  const int n = request_->generates() ? sampling.n : 1;
  for (int i = 0; i < n; ++i) {
    samples_.push_back({StreamDecoder(context_->tokenizer), StopMatcher(&sampling.stop_strings)});
  }
  unfinished_ = n;
  if (sampling.min_tokens > 0) {
    banned_ = context_->tokenizer->spec().end_of_generation;
    banned_.insert(banned_.end(), sampling.stop_tokens.begin(), sampling.stop_tokens.end());
  }
  if (measures_attention()) {
    const int layers = static_cast<int>(context_->policies.size());
    const bool by_head = detail_ == AttentionDetail::kHeads;
    prompt_attention_.emplace(layers, context_->num_heads, by_head);
    generated_attention_.emplace(layers, context_->num_heads, by_head);
  }
  if (!request_->watch.empty()) {
    const int layers = static_cast<int>(context_->policies.size());
    const int spans = static_cast<int>(request_->watch.size());
    prompt_spans_.emplace(layers, context_->num_heads, spans);
    generated_spans_.emplace(layers, context_->num_heads, spans);
  }
  result_.prompt_tokens = static_cast<int>(request_->prompt.size());
  if (request_->score) {
    for (TokenId id : request_->prompt) {
      result_.prompt_logprobs.push_back({id, std::numeric_limits<float>::quiet_NaN()});
    }
  }
}

void ActiveRequest::AskForAttention(const ScheduledSequence& scheduled, int index,
                                    Batch* batch) const {
  const Sequence& sequence = *scheduled.sequence;
  const int first = scheduled.first_token;
  const std::vector<kernels::KeySpan>& watch = request_->watch;
  const int end = std::min(first + scheduled.num_tokens, kernels::kMostSummedKeys);
  const int begin = std::max(
      {first, samples_[sequence.sample].measured, sequence.sample == 0 ? 0 : sequence.prompt_size});
  const int watched = watch.empty() ? end : std::max(begin, sequence.prompt_size - 1);
  const auto measure = [&](int from, int until, bool by_head) {
    const int row = batch->qo_indptr[index] - first;
    kernels::AppendMeasured({row + from, row + until, from + 1, by_head},
                            static_cast<int>(context_->policies.size()), context_->num_heads,
                            &batch->measured);
  };
  if (measures_attention()) {
    const bool by_head = detail_ == AttentionDetail::kHeads;
    const int until = std::min(watched, end);
    const int boundary = std::clamp(sequence.prompt_size, begin, std::max(begin, until));
    measure(begin, boundary, by_head);
    measure(boundary, until, by_head);
  }
  for (int position = watched; position < end; ++position) {
    measure(position, position + 1, /*by_head=*/true);
    batch->watched.push_back(
        {index, position - first, watch.data(), static_cast<int32_t>(watch.size())});
  }
}

void ActiveRequest::AddAttention(const Sequence& sequence, const kernels::MeasuredRows& rows,
                                 std::span<const kernels::RowSums> sums,
                                 std::span<const float> masses, int64_t layer_stride) {
  const int position = rows.first_n - 1;
  const bool of_prompt = position < sequence.prompt_size;
  samples_[sequence.sample].measured = position + rows.num_rows();
  if (measures_attention()) {
    (of_prompt ? *prompt_attention_ : *generated_attention_).Add(rows, sums, context_->windows);
  }
  if (!masses.empty()) {
    (of_prompt ? *prompt_spans_ : *generated_spans_).Add(sums, masses, layer_stride);
  }
}

StepResult ActiveRequest::Advance(const ScheduledSequence& scheduled, std::span<const float> logits,
                                  int vocab_size, Sampler* sampler, absl::Time now) {
  NoteFirstScheduled(*scheduled.sequence);
  if (request_->score) return ScorePrompt(scheduled, logits, vocab_size, sampler);
  if (!scheduled.samples) return {};
  return SampleNext(scheduled, logits, sampler, now);
}

StepResult ActiveRequest::AdvanceDrawn(const ScheduledSequence& scheduled, TokenId token,
                                       absl::Time now) {
  NoteFirstScheduled(*scheduled.sequence);
  if (token < 0) return Fail(*scheduled.sequence, BadLogits());
  return Accept(*scheduled.sequence, {.token = token}, now);
}

StepResult ActiveRequest::SampleNext(const ScheduledSequence& scheduled,
                                     std::span<const float> logits, Sampler* sampler,
                                     absl::Time now) {
  const Sequence& sequence = *scheduled.sequence;
  const SamplingParams& params = request_->sampling;
  const Sampler::Context at{.tokens = sequence.tokens,
                            .prompt_size = sequence.prompt_size,
                            .banned = sequence.num_output() < params.min_tokens
                                          ? std::span<const TokenId>(banned_)
                                          : std::span<const TokenId>(),
                            .seed = sequence.seed(),
                            .position = static_cast<int64_t>(sequence.tokens.size())};
  absl::StatusOr<Sampled> sampled = sampler->Sample(logits, params, at);
  if (!sampled.ok()) return Fail(sequence, sampled.status());
  return Accept(sequence, *std::move(sampled), now);
}

StepResult ActiveRequest::Accept(const Sequence& sequence, Sampled sampled, absl::Time now) {
  const SamplingParams& params = request_->sampling;
  Sample& sample = samples_[sequence.sample];
  NoteFirstToken(sample, now);
  ++sample.output;
  ++result_.completion_tokens;
  FinishReason finish = FinishAfter(sampled.token, sample.output);
  StopMatcher::Released released = sample.stops.Push(sample.decoder.Push(sampled.token));
  if (!released.stopped && finish != FinishReason::kNone) {
    StopMatcher::Released last = sample.stops.Push(sample.decoder.Finish());
    released.text += last.text;
    released.stopped = last.stopped;
    if (!last.stopped) released.text += sample.stops.Finish();
  }
  if (released.stopped && sample.output >= params.min_tokens) finish = FinishReason::kStop;

  TokenEvent event{.sample = sequence.sample,
                   .token = sampled.token,
                   .text = std::move(released.text),
                   .logprob = sampled.logprob,
                   .top = std::move(sampled.top),
                   .finish = finish};
  const bool heard = sink_->OnToken(std::move(event));
  if (finish != FinishReason::kNone) {
    NoteSequence(sequence, finish);
  } else if (!heard) {
    EndSample(sequence, FinishReason::kCancelled,
              absl::CancelledError("the reader did not keep up or went away"));
    finish = FinishReason::kCancelled;
  }
  return {sampled.token, finish};
}

StepResult ActiveRequest::ScorePrompt(const ScheduledSequence& scheduled,
                                      std::span<const float> logits, int vocab_size,
                                      Sampler* sampler) {
  const Sequence& sequence = *scheduled.sequence;
  for (int row = scheduled.first_logit_row; row < scheduled.num_tokens; ++row) {
    const size_t target = static_cast<size_t>(sequence.computed + row + 1);
    if (target >= sequence.tokens.size()) break;
    const auto row_logits = logits.subspan(
        static_cast<size_t>(row - scheduled.first_logit_row) * vocab_size, vocab_size);
    absl::StatusOr<TokenLogprob> scored =
        sampler->Score(row_logits, sequence.tokens[target], 0, nullptr);
    if (!scored.ok()) return Fail(sequence, scored.status());
    result_.prompt_logprobs[target] = *scored;
  }
  if (sequence.computed + scheduled.num_tokens < static_cast<int>(sequence.tokens.size()))
    return {};
  NoteSequence(sequence, FinishReason::kStop);
  return {-1, FinishReason::kStop};
}

StepResult ActiveRequest::Pool(const ScheduledSequence& scheduled, std::span<const float> hidden) {
  const Sequence& sequence = *scheduled.sequence;
  NoteFirstScheduled(sequence);
  const int rows = scheduled.num_tokens - scheduled.first_logit_row;
  if (rows > 0) {
    const size_t width = hidden.size() / static_cast<size_t>(rows);
    pooled_.resize(width);
    for (size_t i = 0; i < hidden.size(); ++i) pooled_[i % width] += hidden[i];
  }
  if (!std::all_of(pooled_.begin(), pooled_.end(), [](double x) { return std::isfinite(x); })) {
    return Fail(sequence, absl::InternalError("the model's hidden states are not finite numbers"));
  }
  const int size = static_cast<int>(sequence.tokens.size());
  if (sequence.computed + scheduled.num_tokens < size) return {};
  const double divisor = request_->pooling == Pooling::kMean ? size : 1;
  for (const double sum : pooled_) {
    result_.embedding.push_back(static_cast<float>(sum / divisor));
  }
  NoteSequence(sequence, FinishReason::kStop);
  return {-1, FinishReason::kStop};
}

void ActiveRequest::NoteFirstScheduled(const Sequence& sequence) {
  if (first_scheduled_ == absl::InfinitePast()) first_scheduled_ = sequence.first_scheduled;
}

FinishReason ActiveRequest::FinishAfter(TokenId token, int output) const {
  const SamplingParams& params = request_->sampling;
  if (output >= params.min_tokens) {
    if (!params.ignore_eos && context_->tokenizer->IsEndOfGeneration(token)) {
      return FinishReason::kStop;
    }
    if (std::find(params.stop_tokens.begin(), params.stop_tokens.end(), token) !=
        params.stop_tokens.end()) {
      return FinishReason::kStop;
    }
  }
  return output >= params.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

void ActiveRequest::NoteFirstToken(Sample& sample, absl::Time now) {
  if (first_token_ == absl::InfinitePast()) first_token_ = now;
  if (sample.last_token != absl::InfinitePast() && context_->observer != nullptr) {
    context_->observer->OnInterTokenLatency(now - sample.last_token);
  }
  sample.last_token = now;
}

void ActiveRequest::NoteSequence(const Sequence& sequence, FinishReason reason) {
  Sample& sample = samples_[sequence.sample];
  if (sample.finish != FinishReason::kNone) return;
  sample.finish = reason;
  --unfinished_;
  result_.preemptions += sequence.preemptions;
  if (sequence.sample == 0) result_.cached_tokens = sequence.cached_tokens;
}

void ActiveRequest::EndSample(const Sequence& sequence, FinishReason reason, absl::Status why) {
  if (result_.status.ok()) result_.status = std::move(why);
  NoteSequence(sequence, reason);
}

StepResult ActiveRequest::Fail(const Sequence& sequence, absl::Status why) {
  EndSample(sequence, FinishReason::kError, std::move(why));
  return {-1, FinishReason::kError};
}

AttentionReport ActiveRequest::MakeReport(const AttentionAccumulator& accumulator) const {
  if (detail_ == AttentionDetail::kSummary)
    return accumulator.Summary(context_->policies, kLayerBands);
  return accumulator.Report(context_->policies, detail_ == AttentionDetail::kHeads);
}

AttentionReport ActiveRequest::Finish(absl::Time now, absl::Status early) {
  if (!early.ok()) result_.status = std::move(early);
  const auto since_arrival = [&](absl::Time t) {
    return t == absl::InfinitePast() ? absl::ZeroDuration() : t - request_->arrival;
  };
  result_.timings.queue = first_scheduled_ == absl::InfinitePast()
                              ? now - request_->arrival
                              : since_arrival(first_scheduled_);
  result_.timings.time_to_first_token = since_arrival(first_token_);
  result_.timings.total = now - request_->arrival;
  AttentionReport summary, layers;
  if (measures_attention()) {
    result_.prompt_attention = MakeReport(*prompt_attention_);
    result_.generated_attention = MakeReport(*generated_attention_);
    if (!prompt_attention_->empty()) {
      summary = prompt_attention_->Summary(context_->policies, kLayerBands);
      layers = prompt_attention_->Report(context_->policies, /*heads=*/false);
    }
  }
  if (prompt_spans_.has_value()) {
    result_.prompt_spans = prompt_spans_->Report();
    result_.generated_spans = generated_spans_->Report();
  }
  if (context_->observer != nullptr) {
    context_->observer->OnRequest({.request = request_.get(),
                                   .result = &result_,
                                   .finish = samples_[0].finish,
                                   .attention_summary = summary.empty() ? nullptr : &summary,
                                   .attention_layers = layers.empty() ? nullptr : &layers});
  }
  sink_->OnResult(std::move(result_));
  return summary;
}

}  // namespace acuity::engine
