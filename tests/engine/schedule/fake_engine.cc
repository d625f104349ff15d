#include "tests/engine/schedule/fake_engine.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace acuity::engine {
namespace {

constexpr uint64_t kGarbage = 0xdead;
constexpr int kStopToken = 7;  // one in kVocabulary
constexpr int kVocabulary = 101;

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 29)) * 0x94d049bb133111eb;
  return x ^ (x >> 32);
}

uint64_t ChainRoot(const std::string& salt) { return Mix(1, std::hash<std::string>{}(salt)); }

// The model: the next token follows from all tokens before it, and from the sample's number.
TokenId NextToken(uint64_t prefix_hash, int sample) {
  return static_cast<TokenId>(Mix(prefix_hash, 1000 + sample) % kVocabulary);
}

FinishReason FinishAfter(const Request& request, TokenId token, int num_output) {
  if (token == kStopToken && !request.sampling.ignore_eos) return FinishReason::kStop;
  if (num_output == request.sampling.max_tokens) return FinishReason::kLength;
  return FinishReason::kNone;
}

}  // namespace

FakeEngine::FakeEngine(const FakeEngineOptions& options)
    : options_(options),
      pool_(options.num_blocks, options.block_size),
      scheduler_(options.limits, &pool_),
      random_(options.seed),
      memory_(static_cast<size_t>(options.num_blocks) * options.block_size, kGarbage),
      written_(memory_.size(), -1) {}

bool FakeEngine::Check(bool condition, const char* what) {
  if (!condition && !failed_) {
    failed_ = true;
    ADD_FAILURE() << what << ", seed " << options_.seed << ", step " << counts_.steps;
  }
  return condition;
}

uint64_t FakeEngine::Submit(Request request) {
  request.id = RequestId{next_id_++};
  auto shared = std::make_shared<const Request>(std::move(request));
  if (!scheduler_.Add(shared).ok()) {
    ++counts_.refused;
    return 0;
  }
  ++counts_.added;
  Flight flight{.request = shared, .samples = {}};
  const int samples = shared->generates() ? shared->sampling.n : 1;
  for (int i = 0; i < samples; ++i) {
    Sample sample;
    sample.chain = {ChainRoot(shared->cache_salt)};
    uint64_t hash = sample.chain[0];
    for (const TokenId token : shared->prompt) hash = Mix(hash, token);
    if (!shared->generates()) sample.expected_finish = FinishReason::kStop;
    if (shared->needs_every_row()) sample.row_uses.assign(shared->prompt.size(), 0);
    while (sample.expected_finish == FinishReason::kNone) {
      const TokenId token = NextToken(hash, i);
      sample.expected.push_back(token);
      hash = Mix(hash, token);
      sample.expected_finish =
          FinishAfter(*shared, token, static_cast<int>(sample.expected.size()));
    }
    flight.samples.push_back(std::move(sample));
  }
  live_ += samples;
  flights_.emplace(shared->id.value, std::move(flight));
  return shared->id.value;
}

void FakeEngine::Cancel(uint64_t id) {
  ++counts_.cancels;
  scheduler_.Cancel(RequestId{id});
}

FakeEngine::Sample& FakeEngine::SampleOf(const Sequence& sequence) {
  Flight& flight = flights_.at(sequence.request->id.value);
  Check(flight.request == sequence.request, "sequence of another request");
  return flight.samples.at(sequence.sample);
}

uint64_t& FakeEngine::Slot(const Sequence& sequence, int position) {
  const int block = sequence.blocks.blocks()[position / options_.block_size].value;
  return memory_[static_cast<size_t>(block) * options_.block_size + position % options_.block_size];
}

void FakeEngine::Step(absl::Time now) {
  finished_ids_.clear();
  scheduler_.Plan(now, &plan_);
  CheckPlan();
  CheckDecoders();
  for (Sequence* sequence : plan_.ended) {
    const bool late = sequence->request->deadline <= now;
    Check(sequence->finish == FinishReason::kCancelled ||
              (sequence->finish == FinishReason::kDeadline && late),
          "ended without a reason");
    Finish(*sequence, sequence->finish, -1);
  }
  for (const ScheduledSequence& s : plan_.scheduled) {
    Check(s.sequence->request->deadline > now, "past its deadline and running");
    CheckChunk(s);
  }
  if (failed_) return;
  // As a layer does: all append, then all attend.
  for (const ScheduledSequence& s : plan_.scheduled) WriteChunk(s);
  for (const ScheduledSequence& s : plan_.scheduled) ReadBack(s);
  results_.clear();
  decoders_.clear();
  for (const ScheduledSequence& s : plan_.scheduled) results_.push_back(RunModel(s));
  scheduler_.Commit(plan_, results_);

  if (options_.check_every_step || counts_.steps % 16 == 0) scheduler_.CheckInvariants();
  Check(live_ == scheduler_.num_waiting() + scheduler_.num_running(), "a sequence got lost");
  Check(!scheduler_.idle() || pool_.free_blocks() == pool_.num_blocks(), "leaked blocks");
  ++counts_.steps;
  counts_.chunks += static_cast<int64_t>(plan_.scheduled.size());
  counts_.tokens += plan_.num_tokens;
  counts_.preemptions += plan_.preempted;
}

void FakeEngine::CheckPlan() {
  const SchedulerLimits& limits = options_.limits;
  int tokens = 0, rows = 0;
  for (const ScheduledSequence& s : plan_.scheduled) {
    tokens += s.num_tokens;
    if (s.sequence->request->pooling == Pooling::kNone) rows += s.num_tokens - s.first_logit_row;
    trace_ = Mix(trace_, s.sequence->request->id.value * 64 + s.sequence->sample);
    trace_ = Mix(trace_, s.num_tokens);
    for (const BlockId block : s.sequence->blocks.blocks()) trace_ = Mix(trace_, block.value);
  }
  Check(tokens == plan_.num_tokens && tokens <= limits.max_batch_tokens, "token budget");
  Check(rows <= limits.max_logit_rows, "logit rows");
  Check(static_cast<int>(plan_.scheduled.size()) <= limits.max_running, "max_running");
  Check(scheduler_.idle() || !plan_.scheduled.empty() || !plan_.ended.empty(), "no progress");
}

// Whatever needed one token after the last step runs in this one, or was ended or preempted.
void FakeEngine::CheckDecoders() {
  for (const Decoder& decoder : decoders_) {
    const Sequence* sequence = decoder.sequence;
    const bool scheduled =
        std::any_of(plan_.scheduled.begin(), plan_.scheduled.end(),
                    [&](const ScheduledSequence& s) { return s.sequence == sequence; });
    Check(scheduled || sequence->state == SequenceState::kFinished ||
              sequence->preemptions > decoder.preemptions,
          "a decoding sequence was passed over");
  }
}

void FakeEngine::CheckChunk(const ScheduledSequence& s) {
  const Sequence& sequence = *s.sequence;
  const int size = static_cast<int>(sequence.tokens.size());
  const int end = sequence.computed + s.num_tokens;
  Check(s.num_tokens > 0 && end <= size, "chunk out of range");
  Check(sequence.state == SequenceState::kRunning, "scheduled while not running");
  Check(sequence.blocks.MissingBlocks(end) == 0, "no blocks for the chunk");
  Check(s.samples == (sequence.request->generates() && end == size), "samples");
  if (sequence.request->needs_every_row()) {
    Sample& sample = SampleOf(sequence);
    for (int row = s.first_logit_row; row < s.num_tokens; ++row) {
      ++sample.row_uses[sequence.computed + row];
    }
  } else {
    Check(s.first_logit_row == (end == size ? s.num_tokens - 1 : s.num_tokens), "logit rows");
  }
  if (sequence.request->sampling.n > 1 && sequence.sample > 0 && sequence.num_output() == 0 &&
      sequence.preemptions == 0) {
    counts_.cached_tokens += sequence.cached_tokens;
  }
}

void FakeEngine::WriteChunk(const ScheduledSequence& s) {
  Sequence& sequence = *s.sequence;
  uint64_t hash = sequence.computed == 0 ? ChainRoot(sequence.request->cache_salt)
                                         : Slot(sequence, sequence.computed - 1);
  for (int p = sequence.computed; p < sequence.computed + s.num_tokens; ++p) {
    hash = Mix(hash, sequence.tokens[p]);
    uint64_t& slot = Slot(sequence, p);
    slot = hash;
    int64_t& written = written_[&slot - memory_.data()];
    Check(written != counts_.steps, "two writes to one place in one step");
    written = counts_.steps;
    const BlockId block = sequence.blocks.blocks()[p / options_.block_size];
    Check(pool_.references(block) == 1, "a write to a shared block");
  }
}

void FakeEngine::ReadBack(const ScheduledSequence& s) {
  const Sequence& sequence = *s.sequence;
  std::vector<uint64_t>& chain = SampleOf(sequence).chain;
  for (int p = 0; p < sequence.computed + s.num_tokens; ++p) {
    if (p + 1 == static_cast<int>(chain.size())) {
      chain.push_back(Mix(chain.back(), sequence.tokens[p]));
    }
    if (!Check(Slot(*s.sequence, p) == chain[p + 1], "KV memory holds something else")) return;
  }
}

StepResult FakeEngine::RunModel(const ScheduledSequence& s) {
  Sequence& sequence = *s.sequence;
  const int end = sequence.computed + s.num_tokens;
  StepResult result;
  if (std::uniform_real_distribution<>()(random_) < options_.error_rate) {
    ScribbleOver(sequence);
    result.finish = FinishReason::kError;
  } else if (s.samples) {
    result.token = NextToken(Slot(sequence, end - 1), sequence.sample);
    result.finish = FinishAfter(*sequence.request, result.token, sequence.num_output() + 1);
  } else if (!sequence.request->generates() && end == sequence.prompt_size) {
    result.finish = FinishReason::kStop;
  }
  if (result.finish != FinishReason::kNone) {
    Finish(sequence, result.finish, result.token);
  } else if (s.samples || end + 1 == static_cast<int>(sequence.tokens.size())) {
    decoders_.push_back({&sequence, sequence.preemptions});
  }
  return result;
}

void FakeEngine::ScribbleOver(const Sequence& sequence) {
  for (const BlockId block : sequence.blocks.blocks()) {
    if (pool_.references(block) > 1) continue;
    std::fill_n(&memory_[static_cast<size_t>(block.value) * options_.block_size],
                options_.block_size, kGarbage);
  }
}

void FakeEngine::Finish(const Sequence& sequence, FinishReason reason, TokenId last_token) {
  Sample& sample = SampleOf(sequence);
  Check(!sample.ended, "ended twice");
  sample.ended = true;
  --live_;
  ++counts_.finished[reason];
  std::vector<TokenId> output(sequence.tokens.begin() + sequence.prompt_size,
                              sequence.tokens.end());
  if (last_token >= 0) output.push_back(last_token);
  Check(std::equal(sequence.request->prompt.begin(), sequence.request->prompt.end(),
                   sequence.tokens.begin()),
        "the prompt changed");
  if (reason == FinishReason::kStop || reason == FinishReason::kLength) {
    Check(output == sample.expected && reason == sample.expected_finish, "output differs");
    // The last row of a prompt to be scored predicts nothing.
    const int rows = static_cast<int>(sample.row_uses.size()) - sequence.request->score;
    for (int row = 0; row < rows; ++row) {
      Check(sample.row_uses[row] == 1, "a row to be scored or pooled not exactly once");
    }
  } else {
    Check(output.size() <= sample.expected.size() &&
              std::equal(output.begin(), output.end(), sample.expected.begin()),
          "output so far differs");
  }
  const uint64_t id = sequence.request->id.value;
  const auto& samples = flights_.at(id).samples;
  if (std::all_of(samples.begin(), samples.end(), [](const Sample& s) { return s.ended; })) {
    flights_.erase(id);
    finished_ids_.push_back(id);
  }
}

}  // namespace acuity::engine
