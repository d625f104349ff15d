// From logits to a token. Pure: the same logits, history, seed and position give the same token,
// whatever the batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/sampling_params.h"

namespace acuity::engine {

struct TokenLogprob {
  TokenId token = -1;
  // Natural log, of the model's own distribution (before temperature, penalties, truncation).
  float logprob = 0;
};

struct Sampled {
  TokenId token = -1;
  float logprob = 0;  // with params.logprobs >= 0, else 0: it costs a pass over the vocabulary
  // The `logprobs` most likely, most likely first; ties by id. Tokens of probability 0 are left
  // out.
  std::vector<TokenLogprob> top;
};

// Internal: why nothing can be drawn, by whomever.
absl::Status BadLogits(const char* which = "from the model");

// Scratch for one vocabulary, reused from call to call: nothing is allocated but `top`. One thread
// at a time.
class Sampler {
 public:
  explicit Sampler(int vocab_size);  // >= 1

  struct Context {
    std::span<const TokenId> tokens;  // prompt and output so far: repetition penalty
    int prompt_size = 0;              // output only: presence and frequency penalties
    std::span<const TokenId> banned;  // may not be sampled (end of generation before min_tokens)
    uint64_t seed = 0;                // of this sample
    int64_t position = 0;  // index of the token to be sampled: the RNG is keyed on (seed, position)
  };

  // Order: bias, penalties (repetition, then frequency and presence), bans, temperature, top-k,
  // top-p, min-p. Greedy (temperature 0) takes the lowest id among equal logits. Top-k keeps
  // exactly k, ties by id. Top-p keeps the fewest most likely tokens that hold top_p of what top-k
  // kept. Min-p is relative to the most likely token, so at least one token always remains. A logit
  // of -infinity is a token of probability 0. Internal if a logit is NaN or +infinity (bias and
  // penalties included), if none is finite (bans included), or if logits, tokens or prompt_size do
  // not fit the vocabulary or each other; InvalidArgument if logit_bias names a token outside the
  // vocabulary.
  absl::StatusOr<Sampled> Sample(std::span<const float> logits, const SamplingParams& params,
                                 const Context& context);

  // log p(token) under softmax(logits), and the k most likely into `top` (may be null if k is 0),
  // which is cleared first. Internal as above; InvalidArgument if the token is outside the
  // vocabulary.
  absl::StatusOr<TokenLogprob> Score(std::span<const float> logits, TokenId token, int k,
                                     std::vector<TokenLogprob>* top);

 private:
  bool InVocabulary(TokenId token) const;
  // Bias, penalties and bans, on work_.
  absl::Status Adjust(const SamplingParams& params, const Context& context);
  absl::Status Penalise(const SamplingParams& params, const Context& context);
  // Counts `tokens` into counts_; the distinct ones become distinct_[0 .. result).
  size_t Count(std::span<const TokenId> tokens);
  // From work_, whose maximum is `max`, which becomes weights.
  TokenId Draw(const SamplingParams& params, float max, double uniform);
  TokenId DrawFromAll(float min_p, double uniform);
  TokenId DrawFromFirst(size_t kept, float min_p, double uniform) const;
  size_t GatherCandidates(size_t count, double mass);
  size_t SmallestNucleus(size_t candidates, double mass);
  // Puts the most likely of candidates_[begin .. end) before `middle`, the others behind; ties by
  // id.
  void Partition(size_t begin, size_t middle, size_t end);
  // Puts candidates_[0 .. kept), the most likely of all, into the order of their ids. What is drawn
  // then depends neither on how the library partitions nor on the device that draws.
  void OrderById(size_t kept);
  double Mass(size_t begin, size_t end) const;

  std::vector<float> work_;  // [vocab_size] logits, then weights relative to the most likely
  std::vector<uint64_t> candidates_;  // [vocab_size] weight and token; see Candidate()
  std::vector<int32_t> distinct_;     // [vocab_size] tokens of the history
  std::vector<int32_t> counts_;       // [vocab_size] all 0 between calls
};

}  // namespace acuity::engine
