// Everything of the sampler but the distribution it draws from: greedy, penalties, bans, errors,
// scores.
#include "engine/sample/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "engine/base/limits.h"

namespace acuity::engine {
namespace {

using ::testing::ElementsAre;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

TokenId MustSample(Sampler& sampler, const std::vector<float>& logits, const SamplingParams& params,
                   const Sampler::Context& context = {}) {
  const absl::StatusOr<Sampled> sampled = sampler.Sample(logits, params, context);
  EXPECT_TRUE(sampled.ok()) << sampled.status();
  return sampled.ok() ? sampled->token : -1;
}

absl::StatusCode Code(const std::vector<float>& logits, const SamplingParams& params,
                      const Sampler::Context& context = {}) {
  Sampler sampler(static_cast<int>(logits.size()));
  return sampler.Sample(logits, params, context).status().code();
}

std::vector<float> Normal(size_t n, float deviation, int seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST(Greedy, TakesTheLowestIdAmongEquals) {
  Sampler sampler(5);
  EXPECT_EQ(MustSample(sampler, {1, 3, 2, 3, 3}, Greedy()), 1);
  EXPECT_EQ(MustSample(sampler, {-0.0f, 0.0f, -1, -1, -1}, Greedy()), 0);
  EXPECT_EQ(MustSample(sampler, {-kInf, -kInf, -7, -kInf, -7}, Greedy()), 2);
}

TEST(Greedy, WithPenaltiesTakesTheLowestIdToo) {
  Sampler sampler(4);
  SamplingParams params = Greedy();
  params.logit_bias = {{3, 1.0f}};
  EXPECT_EQ(MustSample(sampler, {1, 3, 3, 2}, params), 1);
}

TEST(Greedy, IgnoresTruncationAndSeed) {
  Sampler sampler(4);
  SamplingParams params = Greedy();
  params.top_k = 1, params.top_p = 0.01f, params.min_p = 0.9f;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(MustSample(sampler, {1, 2, 4, 3}, params, {.seed = seed}), 2);
  }
}

// The penalised logits are seen through greedy choices: a rival's logit is moved around the
// expected value.
void ExpectAdjusted(const SamplingParams& params, const Sampler::Context& context, float logit,
                    double expected) {
  Sampler sampler(3);
  const float margin = 1e-4f;
  const float rival = static_cast<float>(expected);
  EXPECT_EQ(MustSample(sampler, {-kInf, logit, rival - margin}, params, context), 1) << expected;
  EXPECT_EQ(MustSample(sampler, {-kInf, logit, rival + margin}, params, context), 2) << expected;
}

TEST(Penalties, RepetitionDividesPositiveAndMultipliesNegativeLogits) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 1.5f;
  const std::vector<TokenId> tokens = {1, 0, 1, 1};
  for (const int prompt_size :
       {0, 2, 4}) {  // prompt and output alike, once however often it occurs
    ExpectAdjusted(params, {.tokens = tokens, .prompt_size = prompt_size}, 3.0f, 2.0);
    ExpectAdjusted(params, {.tokens = tokens, .prompt_size = prompt_size}, -2.0f, -3.0);
    ExpectAdjusted(params, {.tokens = tokens, .prompt_size = prompt_size}, 0.0f, 0.0);
  }
  const std::vector<TokenId> others = {0, 0};
  ExpectAdjusted(params, {.tokens = others, .prompt_size = 1}, 3.0f, 3.0);
}

TEST(Penalties, RepetitionBelowOneEncourages) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 0.5f;
  const std::vector<TokenId> tokens = {1};
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 1}, 3.0f, 6.0);
}

TEST(Penalties, PresenceCountsOnceOverOutputOnly) {
  SamplingParams params = Greedy();
  params.presence_penalty = 0.75f;
  const std::vector<TokenId> tokens = {1, 1, 0, 1, 1};
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 2}, 1.0f, 0.25);
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 4}, -1.0f, -1.75);
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 5}, 1.0f, 1.0);
}

TEST(Penalties, FrequencyCountsEveryOutput) {
  SamplingParams params = Greedy();
  params.frequency_penalty = 0.5f;
  const std::vector<TokenId> tokens = {1, 1, 0, 1, 1};
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 2}, 1.0f, 0.0);
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 0}, 1.0f, -1.0);
  params.frequency_penalty = -0.5f;
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 0}, 1.0f, 3.0);
}

TEST(Penalties, CombineInTheDocumentedOrder) {
  SamplingParams params = Greedy();
  params.logit_bias = {{1, 3.0f}, {1, 1.0f}};  // entries add up
  params.repetition_penalty = 2;
  params.frequency_penalty = 0.25f;
  params.presence_penalty = 0.5f;
  const std::vector<TokenId> tokens = {0, 1, 1, 1};
  // (-2 + 4) / 2 - 3 * 0.25 - 0.5
  ExpectAdjusted(params, {.tokens = tokens, .prompt_size = 1}, -2.0f, -0.25);
}

TEST(Penalties, LeaveNothingBehindForTheNextCall) {
  Sampler sampler(3);
  SamplingParams params = Greedy();
  params.frequency_penalty = 1;
  const std::vector<TokenId> once = {2};
  for (int i = 0; i < 5; ++i) {
    const Sampler::Context context{.tokens = once};
    EXPECT_EQ(MustSample(sampler, {-kInf, 1.5f, 2.6f}, params, context), 2);
    EXPECT_EQ(MustSample(sampler, {-kInf, 1.7f, 2.6f}, params, context), 1);
  }
}

TEST(Penalties, AMaskedTokenStaysMasked) {
  Sampler sampler(2);
  SamplingParams params = Greedy();
  params.repetition_penalty = 2, params.presence_penalty = -2, params.logit_bias = {{0, 100.0f}};
  const std::vector<TokenId> tokens = {0, 0};
  EXPECT_EQ(MustSample(sampler, {-kInf, -50}, params, {.tokens = tokens}), 1);
}

TEST(Bias, MovesTheChoiceAndMayForbid) {
  Sampler sampler(3);
  SamplingParams params = Greedy();
  params.logit_bias = {{2, 5.0f}};
  EXPECT_EQ(MustSample(sampler, {4, 1, 0}, params), 2);
  params.logit_bias = {{0, -100.0f}};
  EXPECT_EQ(MustSample(sampler, {4, 1, 0}, params), 1);
}

TEST(Bias, OutsideTheVocabularyIsInvalidArgument) {
  SamplingParams params = Greedy();
  for (const TokenId token : {-1, 3, std::numeric_limits<TokenId>::max()}) {
    params.logit_bias = {{token, 1.0f}};
    EXPECT_EQ(Code({1, 2, 3}, params), absl::StatusCode::kInvalidArgument) << token;
  }
}

TEST(Banned, IsNeverSampledUntilTheCallerLiftsIt) {
  // As an engine does for min_tokens: end of generation is banned until enough tokens are out.
  Sampler sampler(3);
  const std::vector<TokenId> end = {2};
  for (const float temperature : {0.0f, 1.0f, 100.0f}) {
    SamplingParams params;
    params.temperature = temperature;
    params.min_tokens = 50;
    for (int output = 0; output < 50; ++output) {
      const TokenId token =
          MustSample(sampler, {1, 1, 30}, params, {.banned = end, .position = output});
      EXPECT_NE(token, 2);
    }
  }
  SamplingParams params;
  EXPECT_EQ(MustSample(sampler, {1, 1, 30}, params, {.position = 50}), 2);
}

TEST(Banned, BiasCannotLiftItAndStrangersAreIgnored) {
  Sampler sampler(2);
  SamplingParams params = Greedy();
  params.logit_bias = {{1, 100.0f}};
  const std::vector<TokenId> banned = {1, -5, 2, 1 << 30};
  EXPECT_EQ(MustSample(sampler, {0, 0}, params, {.banned = banned}), 0);
}

TEST(Errors, NanAndInfinityAreInternalInEveryMode) {
  for (const float temperature : {0.0f, 1.0f}) {
    for (const float bad : {kNan, kInf}) {
      SamplingParams params;
      params.temperature = temperature;
      EXPECT_EQ(Code({1, bad, 2}, params), absl::StatusCode::kInternal);
      params.presence_penalty = 1;
      EXPECT_EQ(Code({1, bad, 2}, params), absl::StatusCode::kInternal);
      params.logit_bias = {{1, -kInf}};  // cannot hide it
      EXPECT_EQ(Code({1, bad, 2}, params), absl::StatusCode::kInternal);
    }
    SamplingParams params;
    params.temperature = temperature;
    EXPECT_EQ(Code({-kInf, -kInf}, params), absl::StatusCode::kInternal);
    const std::vector<TokenId> all = {0, 1};
    EXPECT_EQ(Code({1, 2}, params, {.banned = all}), absl::StatusCode::kInternal);
    params.logit_bias = {{0, 3e38f}};
    EXPECT_EQ(Code({3e38f, 2}, params), absl::StatusCode::kInternal);
  }
}

TEST(Errors, ArgumentsThatDoNotFitAreInternal) {
  Sampler sampler(3);
  SamplingParams params;
  EXPECT_EQ(sampler.Sample(std::vector<float>{1, 2}, params, {}).status().code(),
            absl::StatusCode::kInternal);
  params.repetition_penalty = 2;
  const std::vector<TokenId> tokens = {0, 3};
  EXPECT_EQ(Code({1, 2, 3}, params, {.tokens = tokens}), absl::StatusCode::kInternal);
  EXPECT_EQ(Code({1, 2, 3, 4}, params, {.tokens = tokens, .prompt_size = 3}),
            absl::StatusCode::kInternal);
  EXPECT_EQ(Code({1, 2, 3, 4}, params, {.tokens = tokens, .prompt_size = -1}),
            absl::StatusCode::kInternal);
}

TEST(Errors, AnErrorLeavesTheSamplerUsable) {
  Sampler sampler(3);
  SamplingParams params;
  params.frequency_penalty = 1;
  const std::vector<TokenId> tokens = {1, 1};
  EXPECT_FALSE(sampler.Sample(std::vector<float>{kNan, 2, 3}, params, {.tokens = tokens}).ok());
  params.temperature = 0;
  EXPECT_EQ(MustSample(sampler, {0, 3, 1.5f}, params, {.tokens = tokens}), 2);
}

TEST(Vocabulary, OfOneToken) {
  Sampler sampler(1);
  for (const float temperature : {0.0f, 0.5f}) {
    SamplingParams params;
    params.temperature = temperature;
    params.top_k = 5, params.top_p = 0.5f, params.min_p = 0.5f, params.logprobs = 3;
    const absl::StatusOr<Sampled> sampled = sampler.Sample(std::vector<float>{-12}, params, {});
    ASSERT_TRUE(sampled.ok());
    EXPECT_EQ(sampled->token, 0);
    EXPECT_EQ(sampled->logprob, 0);
    EXPECT_EQ(sampled->top.size(), 1u);
  }
}

TEST(Logprobs, AreOfTheModelsOwnDistribution) {
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 1.0f};
  Sampler sampler(4);
  SamplingParams params;
  params.temperature = 0.3f, params.top_k = 2, params.repetition_penalty = 1.3f;
  params.logit_bias = {{2, 20.0f}};
  params.logprobs = 2;
  const std::vector<TokenId> tokens = {1};
  const absl::StatusOr<Sampled> sampled =
      sampler.Sample(logits, params, {.tokens = tokens, .prompt_size = 1});
  ASSERT_TRUE(sampled.ok());
  EXPECT_EQ(sampled->token, 2);
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit));
  EXPECT_NEAR(sampled->logprob, -1 - std::log(sum), 1e-6);
  ASSERT_EQ(sampled->top.size(), 2u);
  EXPECT_EQ(sampled->top[0].token, 1);
  EXPECT_EQ(sampled->top[1].token, 3);
  EXPECT_NEAR(sampled->top[0].logprob, 2 - std::log(sum), 1e-6);
}

TEST(Logprobs, OnlyWhenAskedFor) {
  Sampler sampler(3);
  for (const int logprobs : {-1, 0}) {
    SamplingParams params = Greedy();
    params.logprobs = logprobs;
    const absl::StatusOr<Sampled> sampled = sampler.Sample(std::vector<float>{1, 1, 1}, params, {});
    ASSERT_TRUE(sampled.ok());
    EXPECT_TRUE(sampled->top.empty());
    EXPECT_NEAR(sampled->logprob, logprobs < 0 ? 0 : -std::log(3.0), 1e-6);
  }
}

TEST(Score, AgreesWithFloat64AndASort) {
  for (const int vocab : {1, 2, 19, 21, 1000, 49152}) {
    for (const float deviation : {0.1f, 3.0f, 20.0f}) {
      const std::vector<float> logits = Normal(vocab, deviation, vocab);
      double max = -1e300, sum = 0;
      for (float logit : logits) max = std::max<double>(max, logit);
      for (float logit : logits) sum += std::exp(logit - max);
      std::vector<int> order(vocab);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int a, int b) { return logits[a] > logits[b]; });
      Sampler sampler(vocab);
      std::vector<TokenLogprob> top;
      for (const TokenId token : {0, vocab / 2, vocab - 1, order[0]}) {
        const absl::StatusOr<TokenLogprob> scored =
            sampler.Score(logits, token, kMaxLogprobs, &top);
        ASSERT_TRUE(scored.ok());
        const double exact = logits[token] - max - std::log(sum);
        EXPECT_EQ(scored->token, token);
        EXPECT_NEAR(scored->logprob, exact, 4e-7 + 1e-7 * std::abs(exact));
      }
      ASSERT_EQ(top.size(), std::min<size_t>(vocab, kMaxLogprobs));
      for (size_t i = 0; i < top.size(); ++i) {
        EXPECT_EQ(top[i].token, order[i]);
        EXPECT_NEAR(top[i].logprob, logits[order[i]] - max - std::log(sum), 4e-6);
      }
    }
  }
}

TEST(Score, TiesById) {
  Sampler sampler(6);
  std::vector<TokenLogprob> top = {{7, 7}};
  ASSERT_TRUE(sampler.Score(std::vector<float>{1, 2, 1, 2, 2, 1}, 0, 4, &top).ok());
  std::vector<TokenId> ids;
  for (const TokenLogprob& entry : top) ids.push_back(entry.token);
  EXPECT_THAT(ids, ElementsAre(1, 3, 4, 0));
}

TEST(Score, MaskedTokensHaveProbabilityZeroAndAreNotInTheTop) {
  Sampler sampler(4);
  std::vector<TokenLogprob> top;
  const absl::StatusOr<TokenLogprob> scored =
      sampler.Score(std::vector<float>{-kInf, 1, -kInf, 1}, 2, 4, &top);
  ASSERT_TRUE(scored.ok());
  EXPECT_EQ(scored->logprob, -kInf);
  ASSERT_EQ(top.size(), 2u);
  EXPECT_NEAR(top[1].logprob, -std::log(2.0), 1e-6);
}

TEST(Score, Errors) {
  Sampler sampler(2);
  EXPECT_EQ(sampler.Score(std::vector<float>{1, kNan}, 0, 0, nullptr).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(sampler.Score(std::vector<float>{1}, 0, 0, nullptr).status().code(),
            absl::StatusCode::kInternal);
  for (const TokenId token : {-1, 2}) {
    EXPECT_EQ(sampler.Score(std::vector<float>{1, 2}, token, 0, nullptr).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(sampler.Score(std::vector<float>{1, 2}, 0, 0, nullptr).ok());
}

TEST(Reproducibility, TheSameWhateverWasSampledBeforeAndByWhichSampler) {
  constexpr int kVocab = 5000;
  const std::vector<float> logits = Normal(kVocab, 2, 1), others = Normal(kVocab, 5, 2);
  for (const int top_k : {0, 40}) {
    for (const float top_p : {1.0f, 0.9f}) {
      SamplingParams params;
      params.top_k = top_k, params.top_p = top_p;
      Sampler used(kVocab);
      for (int64_t position = 0; position < 50; ++position) {
        Sampler fresh(kVocab);
        const Sampler::Context context{.seed = 42, .position = position};
        MustSample(used, others, params, {.seed = 7, .position = position});
        EXPECT_EQ(MustSample(used, logits, params, context),
                  MustSample(fresh, logits, params, context));
      }
    }
  }
}

TEST(Reproducibility, SeedsAndPositionsGiveDifferentTokens) {
  constexpr int kVocab = 10000;
  Sampler sampler(kVocab);
  const std::vector<float> flat(kVocab, 0);
  std::vector<TokenId> tokens;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (int64_t position = 0; position < 10; ++position) {
      tokens.push_back(MustSample(sampler, flat, {}, {.seed = seed, .position = position}));
    }
  }
  std::sort(tokens.begin(), tokens.end());
  const auto distinct = std::unique(tokens.begin(), tokens.end()) - tokens.begin();
  EXPECT_GE(distinct, 96);  // 100 draws of 10,000: half a collision expected
}

}  // namespace
}  // namespace acuity::engine
