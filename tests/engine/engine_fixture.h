// What tests of the façade share: a small random model with a poisoned token, and who listens.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/loader/gguf_builder.h"

namespace acuity::engine::testing {

inline constexpr int kVocab = 261;
inline constexpr int kPoison = 7;  // a token whose embedding is NaN

// `b`, made from ServableLlama, with random float32 weights, an output matrix of its own, and one
// poisoned embedding.
inline Bytes PoisonedLlama(GgufBuilder b) {
  constexpr uint32_t kF32 = 0;
  b.AddTensor("output.weight", {32, kVocab}, kF32);
  for (GgufBuilder::Tensor& tensor : b.tensors) tensor.type = kF32;
  Bytes file = b.Build();
  size_t floats = 0, before_embedding = 0;
  for (const GgufBuilder::Tensor& tensor : b.tensors) {
    if (tensor.name == "token_embd.weight") before_embedding = floats;
    size_t size = 1;  // each is a multiple of 8 floats: no gaps
    for (const uint64_t dim : tensor.dims) size *= dim;
    floats += size;
  }
  uint8_t* data = file.data() + file.size() - floats * sizeof(float);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.5);
  for (size_t i = 0; i < floats; ++i) {
    const bool poisoned =
        i >= before_embedding + kPoison * 32 && i < before_embedding + (kPoison + 1) * 32;
    const float value = poisoned ? std::numeric_limits<float>::quiet_NaN() : normal(random);
    std::memcpy(data + i * sizeof value, &value, sizeof value);
  }
  return file;
}

// Keeps what a request said, and can refuse to hear more.
class Recorder : public EventSink {
 public:
  explicit Recorder(int tokens_to_hear = 1 << 30) : tokens_to_hear_(tokens_to_hear) {}

  bool OnToken(TokenEvent event) override {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(results_, 0) << "a token after the result";
    if (event.token >= 0) {
      tokens_.resize(std::max<size_t>(tokens_.size(), event.sample + 1));
      tokens_[event.sample].push_back(event.token);
      ++heard_;
    }
    changed_.notify_all();
    return heard_ < tokens_to_hear_;
  }
  void OnResult(RequestResult result) override {
    const std::lock_guard lock(mutex_);
    ++results_;
    result_ = std::move(result);
    changed_.notify_all();
  }

  void WaitForTokens(int count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::minutes(5),
                                  [&] { return heard_ >= count || results_ > 0; }));
  }
  RequestResult Wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::minutes(5), [&] { return results_ > 0; }));
    return result_;
  }
  // One sample after the other.
  std::vector<TokenId> tokens() {
    const std::lock_guard lock(mutex_);
    std::vector<TokenId> all;
    for (const auto& sample : tokens_) all.insert(all.end(), sample.begin(), sample.end());
    return all;
  }
  int results() {
    const std::lock_guard lock(mutex_);
    return results_;
  }

 private:
  const int tokens_to_hear_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<TokenId>> tokens_;  // by sample
  int heard_ = 0;
  RequestResult result_;
  int results_ = 0;
};

}  // namespace acuity::engine::testing
