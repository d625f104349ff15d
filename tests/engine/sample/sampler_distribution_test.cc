// What the sampler draws against exact probabilities, computed here in float64 by a full sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/sample/sampler.h"

namespace acuity::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int kDraws = 40000;

struct Case {
  std::string name;
  SamplingParams params;
  std::vector<TokenId> tokens = {};
  int prompt_size = 0;
  std::vector<TokenId> banned = {};
};

std::vector<double> Adjusted(const std::vector<float>& logits, const Case& c) {
  std::vector<double> z(logits.begin(), logits.end());
  const SamplingParams& p = c.params;
  for (const auto& [token, bias] : p.logit_bias) z[token] += bias;
  for (size_t t = 0; t < z.size(); ++t) {
    const auto token = static_cast<TokenId>(t);
    if (std::count(c.tokens.begin(), c.tokens.end(), token) > 0) {
      z[t] = z[t] > 0 ? z[t] / p.repetition_penalty : z[t] * p.repetition_penalty;
    }
    const auto count = std::count(c.tokens.begin() + c.prompt_size, c.tokens.end(), token);
    if (count > 0) z[t] -= count * p.frequency_penalty + p.presence_penalty;
  }
  for (const TokenId token : c.banned) z[token] = -kInf;
  return z;
}

std::vector<double> Exact(const std::vector<float>& logits, const Case& c) {
  const std::vector<double> z = Adjusted(logits, c);
  const size_t n = z.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return z[a] > z[b]; });
  std::vector<double> w(n);
  for (size_t i = 0; i < n; ++i) w[i] = std::exp((z[i] - z[order[0]]) / c.params.temperature);
  const auto total = [&] { return std::accumulate(w.begin(), w.end(), 0.0); };
  if (c.params.top_k > 0) {
    for (size_t i = c.params.top_k; i < n; ++i) w[order[i]] = 0;
  }
  const double need = c.params.top_p * total();
  double before = 0;
  for (size_t i = 0; i < n; ++i) {
    const double weight = w[order[i]];
    if (i > 0 && c.params.top_p < 1 && before >= need) w[order[i]] = 0;
    before += weight;
  }
  for (double& weight : w) weight = weight < c.params.min_p ? 0 : weight;
  const double sum = total();
  for (double& weight : w) weight /= sum;
  return w;
}

// Pearson's statistic; tokens with fewer than 5 expected draws are pooled. Tokens of probability 0
// must not occur.
void ExpectDistribution(const std::vector<float>& logits, const Case& c) {
  SCOPED_TRACE(c.name);
  const std::vector<double> exact = Exact(logits, c);
  Sampler sampler(static_cast<int>(logits.size()));
  std::vector<int> drawn(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    // Half over seeds, half over positions.
    const uint64_t seed = i % 2 == 0 ? 11 : static_cast<uint64_t>(i);
    const absl::StatusOr<Sampled> sampled = sampler.Sample(logits, c.params,
                                                           {.tokens = c.tokens,
                                                            .prompt_size = c.prompt_size,
                                                            .banned = c.banned,
                                                            .seed = seed,
                                                            .position = i});
    ASSERT_TRUE(sampled.ok()) << sampled.status();
    ++drawn[sampled->token];
  }
  double statistic = 0, pooled = 0;
  int degrees = -1, pooled_drawn = 0;
  for (size_t t = 0; t < logits.size(); ++t) {
    const double expected = exact[t] * kDraws;
    ASSERT_TRUE(exact[t] > 0 || drawn[t] == 0) << "token " << t;
    if (expected < 5) {
      pooled += expected;
      pooled_drawn += drawn[t];
      continue;
    }
    statistic += (drawn[t] - expected) * (drawn[t] - expected) / expected;
    ++degrees;
  }
  if (pooled >= 5) {
    statistic += (pooled_drawn - pooled) * (pooled_drawn - pooled) / pooled;
    ++degrees;
  } else {
    EXPECT_LE(pooled_drawn, 20);
  }
  // Wilson and Hilferty's approximation of the quantile at p = 0.0005 (3.29 standard deviations).
  const double k = std::max(degrees, 1);
  const double limit = k * std::pow(1 - 2 / (9 * k) + 3.29 * std::sqrt(2 / (9 * k)), 3);
  EXPECT_LT(statistic, limit) << degrees << " degrees of freedom";
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const auto add = [&](std::string name, auto set) {
    Case c{std::move(name), {}};
    set(c);
    cases.push_back(std::move(c));
  };
  add("plain", [](Case&) {});
  add("temperature .5", [](Case& c) { c.params.temperature = 0.5f; });
  add("temperature 3", [](Case& c) { c.params.temperature = 3; });
  add("temperature 100", [](Case& c) { c.params.temperature = 100; });
  add("top_k 1", [](Case& c) { c.params.top_k = 1; });
  add("top_k 7", [](Case& c) { c.params.top_k = 7; });
  add("top_k beyond", [](Case& c) { c.params.top_k = 1 << 20; });
  add("top_p .9", [](Case& c) { c.params.top_p = 0.9f; });
  add("top_p .35", [](Case& c) { c.params.top_p = 0.35f; });
  add("top_p 1e-6", [](Case& c) { c.params.top_p = 1e-6f; });
  add("min_p .1", [](Case& c) { c.params.min_p = 0.1f; });
  add("min_p .999", [](Case& c) { c.params.min_p = 0.999f; });
  add("bias", [](Case& c) { c.params.logit_bias = {{0, 3.0f}, {2, -kInf}, {5, -1.5f}}; });
  add("repetition", [](Case& c) {
    c.params.repetition_penalty = 1.4f;
    c.tokens = {0, 1, 2, 3, 3, 9}, c.prompt_size = 3;
  });
  add("presence", [](Case& c) {
    c.params.presence_penalty = 1.2f;
    c.tokens = {0, 1, 2, 3, 3, 9}, c.prompt_size = 3;
  });
  add("frequency", [](Case& c) {
    c.params.frequency_penalty = -0.6f;
    c.tokens = {0, 1, 2, 3, 3, 9}, c.prompt_size = 3;
  });
  add("banned", [](Case& c) { c.banned = {1, 4, 8}; });
  add("top_k 12, top_p .8", [](Case& c) { c.params.top_k = 12, c.params.top_p = 0.8f; });
  add("top_k 12, min_p .2", [](Case& c) { c.params.top_k = 12, c.params.min_p = 0.2f; });
  add("top_p .95, min_p .05", [](Case& c) { c.params.top_p = 0.95f, c.params.min_p = 0.05f; });
  add("everything", [](Case& c) {
    c.params.temperature = 1.7f, c.params.top_k = 15, c.params.top_p = 0.93f;
    c.params.min_p = 0.02f, c.params.repetition_penalty = 1.2f, c.params.presence_penalty = 0.3f;
    c.params.frequency_penalty = 0.2f, c.params.logit_bias = {{6, 2.0f}, {1, -2.0f}};
    c.tokens = {0, 1, 2, 6, 6, 7}, c.prompt_size = 2, c.banned = {3};
  });
  return cases;
}

std::vector<float> Logits(size_t n, float deviation, int seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST(Distribution, SmallVocabulary) {
  std::vector<float> logits = Logits(40, 1.5f, 3);
  logits[33] = -kInf;
  for (const Case& c : Cases()) ExpectDistribution(logits, c);
}

TEST(Distribution, SeveralBlocksAndATail) {
  const std::vector<float> logits = Logits(1300, 2.5f, 4);
  for (const Case& c : Cases()) ExpectDistribution(logits, c);
}

TEST(Distribution, WeightsBelowTheFirstThresholds) {
  // Two peaks hold little more than half; the rest is spread over tokens below 2^-8 of the maximum.
  std::vector<float> logits(1000, -6.5f);
  logits[500] = 0, logits[999] = -0.5f;
  for (const Case& c : Cases()) ExpectDistribution(logits, c);
}

TEST(Distribution, EqualLogitsAreCutById) {
  const std::vector<float> logits(600, 1.25f);
  for (const Case& c : Cases()) ExpectDistribution(logits, c);
}

TEST(Distribution, OnlyTheLastTokenOfALargeVocabulary) {
  constexpr int kVocab = 49152;
  std::vector<float> logits(kVocab, -kInf);
  logits[kVocab - 1] = -3;
  Sampler sampler(kVocab);
  for (const Case& c : Cases()) {
    if (c.params.logit_bias.size() + c.tokens.size() + c.banned.size() > 0) continue;
    for (int i = 0; i < 20; ++i) {
      const absl::StatusOr<Sampled> sampled = sampler.Sample(logits, c.params, {.position = i});
      ASSERT_TRUE(sampled.ok());
      EXPECT_EQ(sampled->token, kVocab - 1) << c.name;
    }
  }
}

// The set that survives, exactly: every token of it is drawn, none beside it, at the size of a real
// vocabulary.
TEST(Distribution, SupportAtFullSize) {
  const std::vector<float> logits = Logits(49152, 4, 9);
  Sampler sampler(49152);
  for (const Case& c : Cases()) {
    const std::vector<double> exact = Exact(logits, c);
    for (int i = 0; i < 300; ++i) {
      const absl::StatusOr<Sampled> sampled = sampler.Sample(logits, c.params,
                                                             {.tokens = c.tokens,
                                                              .prompt_size = c.prompt_size,
                                                              .banned = c.banned,
                                                              .seed = 5,
                                                              .position = i});
      ASSERT_TRUE(sampled.ok());
      ASSERT_GT(exact[sampled->token], 0) << c.name << " token " << sampled->token;
    }
  }
}

}  // namespace
}  // namespace acuity::engine
