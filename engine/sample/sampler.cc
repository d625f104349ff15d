#include "engine/sample/sampler.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/sample/logits.h"
#include "engine/sample/random.h"

namespace acuity::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Weight and token in one integer, which orders by weight, then by the lower id: positive floats
// order as their bits do. Selection then compares and moves plain integers, side by side in memory.
uint64_t Candidate(float weight, TokenId token) {
  return uint64_t{std::bit_cast<uint32_t>(weight)} << 32 | ~static_cast<uint32_t>(token);
}
float WeightOf(uint64_t candidate) {
  return std::bit_cast<float>(static_cast<uint32_t>(candidate >> 32));
}
TokenId TokenOf(uint64_t candidate) {
  return static_cast<TokenId>(~static_cast<uint32_t>(candidate));
}

// The k most likely, by insertion: k is at most kMaxLogprobs, and most logits fail the first test.
void MostLikely(std::span<const float> logits, int k, double log_sum_exp,
                std::vector<TokenLogprob>* top) {
  const size_t size = std::min(static_cast<size_t>(k), logits.size());
  top->reserve(size);
  float threshold = -kInfinity;  // of the last place, once all are taken
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > threshold)) continue;
    if (top->size() == size) top->pop_back();
    auto at = top->end();
    while (at != top->begin() && (at - 1)->logprob < logits[i]) --at;
    top->insert(at, {static_cast<TokenId>(i), logits[i]});
    if (top->size() == size) threshold = top->back().logprob;
  }
  for (TokenLogprob& entry : *top) {
    entry.logprob = static_cast<float>(static_cast<double>(entry.logprob) - log_sum_exp);
  }
}

}  // namespace

absl::Status BadLogits(const char* which) {
  return absl::InternalError(
      absl::StrCat("logits ", which, ": NaN or +infinity among them, or none is finite"));
}

Sampler::Sampler(int vocab_size)
    : work_(vocab_size), candidates_(vocab_size), distinct_(vocab_size), counts_(vocab_size) {}

bool Sampler::InVocabulary(TokenId token) const {
  return token >= 0 && static_cast<size_t>(token) < work_.size();
}

absl::StatusOr<Sampled> Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                                        const Context& context) {
  if (logits.size() != work_.size()) return absl::InternalError("logits of another vocabulary");
  LogitScan scan = Scan(logits);
  if (!scan.valid) return BadLogits();
  const bool greedy = params.temperature == 0;
  const bool changes = params.changes_logits() || !context.banned.empty();
  if (changes || !greedy) std::copy(logits.begin(), logits.end(), work_.begin());
  if (changes) {
    if (absl::Status status = Adjust(params, context); !status.ok()) return status;
    scan = Scan(work_);
    if (!scan.valid) return BadLogits("after bias, penalties and bans");
  }
  Sampled sampled;
  sampled.token =
      greedy ? scan.argmax : Draw(params, scan.max, UniformAt(context.seed, context.position));
  if (params.logprobs >= 0) {
    absl::StatusOr<TokenLogprob> scored =
        Score(logits, sampled.token, params.logprobs, &sampled.top);
    if (!scored.ok()) return scored.status();
    sampled.logprob = scored->logprob;
  }
  return sampled;
}

absl::StatusOr<TokenLogprob> Sampler::Score(std::span<const float> logits, TokenId token, int k,
                                            std::vector<TokenLogprob>* top) {
  if (logits.size() != work_.size()) return absl::InternalError("logits of another vocabulary");
  if (!InVocabulary(token)) {
    return absl::InvalidArgumentError(absl::StrCat("token ", token, " is outside the vocabulary"));
  }
  const LogitScan scan = Scan(logits);
  if (!scan.valid) return BadLogits();
  const double log_sum_exp = LogSumExp(logits, scan.max);
  if (top != nullptr) top->clear();
  if (k > 0) MostLikely(logits, k, log_sum_exp, top);
  const double logprob = static_cast<double>(logits[token]) - log_sum_exp;
  return TokenLogprob{token, static_cast<float>(logprob)};
}

absl::Status Sampler::Adjust(const SamplingParams& params, const Context& context) {
  for (const auto& [token, bias] : params.logit_bias) {
    if (!InVocabulary(token)) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias: token ", token, " is outside the vocabulary"));
    }
    work_[token] += bias;
  }
  if (absl::Status status = Penalise(params, context); !status.ok()) return status;
  for (const TokenId token : context.banned) {
    if (InVocabulary(token)) work_[token] = -kInfinity;
  }
  return absl::OkStatus();
}

// Repetition as in CTRL (arXiv 1909.05858) and Transformers; frequency and presence as OpenAI
// defines them.
absl::Status Sampler::Penalise(const SamplingParams& params, const Context& context) {
  const bool repetition = params.repetition_penalty != 1;
  const bool counted = params.presence_penalty != 0 || params.frequency_penalty != 0;
  if (!repetition && !counted) return absl::OkStatus();
  if (context.prompt_size < 0 || static_cast<size_t>(context.prompt_size) > context.tokens.size() ||
      !std::ranges::all_of(context.tokens, [this](TokenId t) { return InVocabulary(t); })) {
    return absl::InternalError("a history that does not fit the prompt size or the vocabulary");
  }
  if (repetition) {
    const size_t distinct = Count(context.tokens);
    for (size_t i = 0; i < distinct; ++i) {
      float& logit = work_[distinct_[i]];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      counts_[distinct_[i]] = 0;
    }
  }
  if (counted) {
    const size_t distinct = Count(context.tokens.subspan(context.prompt_size));
    for (size_t i = 0; i < distinct; ++i) {
      const int32_t token = distinct_[i];
      work_[token] -=
          params.frequency_penalty * static_cast<float>(counts_[token]) + params.presence_penalty;
      counts_[token] = 0;
    }
  }
  return absl::OkStatus();
}

size_t Sampler::Count(std::span<const TokenId> tokens) {
  size_t distinct = 0;
  for (const TokenId token : tokens) {
    if (counts_[token]++ == 0) distinct_[distinct++] = token;
  }
  return distinct;
}

TokenId Sampler::Draw(const SamplingParams& params, float max, double uniform) {
  Weigh(work_, max, params.temperature);
  const size_t k = params.top_k > 0 && static_cast<size_t>(params.top_k) < work_.size()
                       ? static_cast<size_t>(params.top_k)
                       : 0;
  const bool nucleus = params.top_p < 1;
  if (k == 0 && !nucleus) return DrawFromAll(params.min_p, uniform);

  double mass = k == 0 ? params.top_p * Sum(work_) : 0;
  size_t kept = GatherCandidates(k, mass);
  if (k > 0) {
    if (k < kept) {
      Partition(0, k, kept);
      kept = k;
    }
    mass = params.top_p * Mass(0, kept);
  }
  if (nucleus) kept = SmallestNucleus(kept, mass);
  OrderById(kept);
  return DrawFromFirst(kept, params.min_p, uniform);
}

// Candidates candidates_[0 .. result): at least the `count` most likely (count > 0) or the most
// likely that hold `mass` (count = 0), as far as there are tokens of weight > 0. Thresholds replace
// a sort: one pass does for the peaked distributions of trained models.
size_t Sampler::GatherCandidates(size_t count, double mass) {
  constexpr float kThresholds[] = {0x1p-8f, 0x1p-16f, std::numeric_limits<float>::min()};
  size_t size = 0;
  for (const float threshold : kThresholds) {
    size = 0;
    for (size_t i = 0; i < work_.size(); ++i) {
      candidates_[size] = Candidate(work_[i], static_cast<TokenId>(i));
      size += work_[i] >= threshold;
    }
    if (count > 0 ? size >= count : Mass(0, size) >= mass) break;
  }
  return size;
}

// Moves the fewest most likely of the candidates that hold `mass` to the front; returns their
// number, >= 1. Quickselect by mass: linear time on average, where a sort would order what nobody
// looks at.
size_t Sampler::SmallestNucleus(size_t candidates, double mass) {
  size_t begin = 0, end = candidates;  // the last of the nucleus is in candidates_[begin .. end)
  while (end - begin > 1) {
    const size_t middle = begin + (end - begin) / 2;
    Partition(begin, middle, end);
    const double upper = Mass(begin, middle);
    if (upper >= mass) {
      end = middle;
    } else {
      mass -= upper;
      begin = middle;
    }
  }
  return begin + 1;
}

// One pass over the vocabulary picks them up again, which costs less than sorting a wide nucleus.
void Sampler::OrderById(size_t kept) {
  const uint64_t least = *std::min_element(candidates_.begin(), candidates_.begin() + kept);
  size_t size = 0;
  for (size_t i = 0; size < kept; ++i) {
    candidates_[size] = Candidate(work_[i], static_cast<TokenId>(i));
    size += candidates_[size] >= least;
  }
}

void Sampler::Partition(size_t begin, size_t middle, size_t end) {
  std::nth_element(candidates_.begin() + begin, candidates_.begin() + middle,
                   candidates_.begin() + end, std::greater<>());
}

double Sampler::Mass(size_t begin, size_t end) const {
  double mass = 0;
  for (size_t i = begin; i < end; ++i) mass += static_cast<double>(WeightOf(candidates_[i]));
  return mass;
}

// The first token at which the running mass exceeds uniform * total: its weight is not 0.
TokenId Sampler::DrawFromFirst(size_t kept, float min_p, double uniform) const {
  double total = 0;
  for (size_t i = 0; i < kept; ++i) {
    const float weight = WeightOf(candidates_[i]);
    if (weight >= min_p) total += static_cast<double>(weight);
  }
  const double target = uniform * total;
  double mass = 0;
  TokenId last = -1;  // what rounding leaves
  for (size_t i = 0; i < kept; ++i) {
    const float weight = WeightOf(candidates_[i]);
    if (weight < min_p) continue;
    last = TokenOf(candidates_[i]);
    mass += static_cast<double>(weight);
    if (mass > target) return last;
  }
  return last;
}

// As above over the whole vocabulary, block by block: only one block is walked token by token.
TokenId Sampler::DrawFromAll(float min_p, double uniform) {
  constexpr size_t kBlock = 512;  // 1 % of a vocabulary of 50,000 is walked one by one
  if (min_p > 0) {
    for (float& weight : work_) weight = weight < min_p ? 0.0f : weight;
  }
  const std::span<const float> weights(work_);
  const auto block = [&](size_t begin) {
    return weights.subspan(begin, std::min(kBlock, weights.size() - begin));
  };
  double total = 0;
  for (size_t begin = 0; begin < weights.size(); begin += kBlock) total += Sum(block(begin));
  double target = uniform * total;
  size_t begin = 0;
  for (; begin + kBlock < weights.size(); begin += kBlock) {
    const double block_mass = Sum(block(begin));
    if (target < block_mass) break;
    target -= block_mass;
  }
  double mass = 0;
  TokenId last = -1;
  const std::span<const float> chosen = block(begin);
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i] == 0) continue;
    last = static_cast<TokenId>(begin + i);
    mass += static_cast<double>(chosen[i]);
    if (mass > target) return last;
  }
  if (last >= 0) return last;
  // Rounding led past the last weight: into a final block of zeros.
  while (weights[begin - 1] == 0) --begin;
  return static_cast<TokenId>(begin - 1);
}

}  // namespace acuity::engine
