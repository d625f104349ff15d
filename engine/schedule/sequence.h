// One sample of a request on its way: its tokens, its blocks, how far its keys and values are
// computed.
#pragma once

#include <memory>
#include <vector>

#include "engine/cache/block_table.h"
#include "engine/schedule/request.h"

namespace acuity::engine {

enum class FinishReason : uint8_t {
  kNone,
  kStop,
  kLength,
  kCancelled,
  kDeadline,
  kError,
};

enum class SequenceState : uint8_t { kWaiting, kRunning, kFinished };

// Owned by the Scheduler; others may read it between Plan and Commit, on the engine thread.
struct Sequence {
  std::shared_ptr<const Request> request;
  int sample = 0;  // 0 .. n - 1

  std::vector<TokenId> tokens;  // prompt, then output
  int prompt_size = 0;
  int computed = 0;  // tokens whose keys and values are in the blocks
  BlockTable blocks;
  SequenceState state = SequenceState::kWaiting;
  FinishReason finish = FinishReason::kNone;

  int cached_tokens = 0;  // prompt tokens found in the prefix cache at first admission
  int preemptions = 0;
  uint64_t order = 0;  // admission order: ties in priority go to the older
  absl::Time first_scheduled = absl::InfinitePast();

  // What its draws are keyed on, with the position of the token to be drawn.
  uint64_t seed() const { return request->sampling.seed + static_cast<uint64_t>(sample); }
  int num_output() const { return static_cast<int>(tokens.size()) - prompt_size; }
};

}  // namespace acuity::engine
