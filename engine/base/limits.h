// Every limit that is not a flag, in one place. What happens at each is said where it is enforced.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acuity::engine {

inline constexpr int kDefaultMaxTokens = 512;
inline constexpr int kMaxSamples = 16;         // n
inline constexpr int kMaxLogprobs = 20;        // alternatives per token
inline constexpr int kMaxStopStrings = 16;     // and as many stop token ids
inline constexpr size_t kMaxStopBytes = 256;   // of one stop string
inline constexpr int kMaxLogitBias = 300;      // entries
inline constexpr float kMaxTemperature = 100;  // 0 is greedy
inline constexpr float kMaxPenalty = 2;        // |presence|, |frequency|
inline constexpr float kMaxRepetitionPenalty = 10;
inline constexpr int kMaxPriority = 100;    // and its negative
inline constexpr size_t kMaxIdBytes = 128;  // request id, tenant, cache salt
inline constexpr size_t kMaxPromptBytes = 4u << 20;
inline constexpr int kMaxChatMessages = 1024;
inline constexpr int kMaxEmbedPrompts = 64;  // of one request
inline constexpr int kMaxToolCalls = 128;    // of one message
inline constexpr int kMaxWatchedSpans = 8;   // of a prompt
inline constexpr int kMaxContextTokens = 1 << 20;

}  // namespace acuity::engine
