// One caller's request, validated and tokenised. Immutable once submitted.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/base/ids.h"
#include "engine/base/sampling_params.h"
#include "kernels/attention_span.h"

namespace acuity::engine {

// Which of the prompt's final hidden states make its embedding.
enum class Pooling : uint8_t { kNone, kLast, kMean };

enum class AttentionDetail : uint8_t { kAuto, kOff, kSummary, kLayers, kHeads };

struct Request {
  RequestId id;
  std::vector<TokenId> prompt;  // 1 .. max_context tokens
  SamplingParams sampling;
  bool score = false;                // log-probabilities of the prompt, nothing generated
  Pooling pooling = Pooling::kNone;  // else an embedding of the prompt, nothing generated
  int priority = 0;                  // higher first
  std::string cache_salt;            // prefix reuse only among equal salts (tenant and salt)
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();  // also holds in the queue
  AttentionDetail attention = AttentionDetail::kAuto;
  // Parts of the prompt: how much attention do its last row and the output's give to each?
  std::vector<kernels::KeySpan> watch;
  std::string tenant;     // who asks; "" if not known
  std::string client_id;  // for logs only, never a key

  bool generates() const { return !score && pooling == Pooling::kNone; }
  // What comes of a row counts for every row of the prompt, so none can come from the prefix cache.
  bool needs_every_row() const { return score || pooling == Pooling::kMean; }
};

}  // namespace acuity::engine
