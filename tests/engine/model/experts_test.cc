#include "engine/model/experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace acuity::engine {
namespace {

// Against a sort of each row, in double precision.
void CheckRouting(const ExpertSpec& spec, int64_t rows, const std::vector<float>& logits) {
  ExpertRouter router(spec, rows + 3);
  router.Route(logits.data(), rows);
  std::vector<int> expert_rows(static_cast<size_t>(spec.count));
  for (int64_t row = 0; row < rows; ++row) {
    const float* z = logits.data() + row * spec.count;
    std::vector<int32_t> order(static_cast<size_t>(spec.count));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [z](int a, int b) { return z[a] > z[b]; });
    double sum = 0;
    const int in_sum = spec.normalised ? spec.per_token : spec.count;
    for (int i = 0; i < in_sum; ++i) sum += std::exp(double{z[order[i]]});
    for (int i = 0; i < spec.per_token; ++i) {
      const ExpertRouter::Choice& choice = router.choices(row)[i];
      EXPECT_EQ(choice.expert, order[i]);
      EXPECT_NEAR(choice.weight, std::exp(double{z[order[i]]}) / sum, 1e-6);
      const int64_t within = choice.slot - router.first_slot(choice.expert);
      ASSERT_EQ(router.rows(choice.expert)[within], row);
      ++expert_rows[choice.expert];
    }
  }
  for (int e = 0; e < spec.count; ++e) {
    EXPECT_EQ(router.rows(e).size(), expert_rows[e]);
    EXPECT_TRUE(std::is_sorted(router.rows(e).begin(), router.rows(e).end()));
  }
}

TEST(ExpertRouterTest, ChoosesTheLargest) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (const int count : {1, 2, 7, 64}) {
    for (const int per_token : {1, 2, 7, 64}) {
      if (per_token > count) continue;
      for (const bool normalised : {true, false}) {
        std::vector<float> logits(static_cast<size_t>(40 * count));
        for (float& z : logits) z = normal(rng) * 3;
        CheckRouting({count, per_token, normalised}, 40, logits);
      }
    }
  }
}

TEST(ExpertRouterTest, EqualLogitsGoToTheLowerExpert) {
  CheckRouting({4, 2, true}, 2, {1, 2, 2, 2, 0, 0, 0, 0});
}

TEST(ExpertRouterTest, NotANumberStaysInBounds) {
  const std::vector<float> logits(8, NAN);
  ExpertRouter router({4, 2, true}, 2);
  router.Route(logits.data(), 2);
  for (int64_t row = 0; row < 2; ++row) {
    for (const ExpertRouter::Choice& choice : router.choices(row)) {
      EXPECT_GE(choice.expert, 0);
      EXPECT_LT(choice.expert, 4);
      EXPECT_GE(choice.slot, 0);
      EXPECT_LT(choice.slot, 4);
    }
  }
}

}  // namespace
}  // namespace acuity::engine
