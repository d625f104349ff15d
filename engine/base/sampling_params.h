// What a caller asks of the sampler, validated (server/grpc/validate) before it gets here.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/ids.h"

namespace acuity::engine {

struct SamplingParams {
  float temperature = 1;  // 0: greedy
  int top_k = 0;          // 0: all
  float top_p = 1;        // (0, 1]
  float min_p = 0;        // [0, 1): of the most likely token's probability
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::vector<std::pair<TokenId, float>> logit_bias;
  uint64_t seed = 0;
  int n = 1;
  int max_tokens = 16;
  int min_tokens = 0;
  std::vector<std::string> stop_strings;
  std::vector<TokenId> stop_tokens;
  bool ignore_eos = false;
  int logprobs = -1;  // -1: none; 0: of the chosen token; k: and of the k most likely

  // Whether tokens are drawn from other logits than the model's, bans apart.
  bool changes_logits() const {
    return !logit_bias.empty() || repetition_penalty != 1 || presence_penalty != 0 ||
           frequency_penalty != 0;
  }
};

}  // namespace acuity::engine
