// The oracle itself, on cases that can be done by hand.
#include "kernels/reference/attention_reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace acuity::kernels {
namespace {

// One sequence of one head of dimension 2, pages of one token in order.
struct Tiny {
  explicit Tiny(std::vector<float> keys, std::vector<float> values, int rows = 1)
      : k(std::move(keys)), v(std::move(values)) {
    const int n = static_cast<int>(k.size()) / 2;
    indptr = {0, rows};
    length = {n};
    for (int i = 0; i < n; ++i) table.push_back(i);
    q.assign(2 * rows, 0.0f);
    for (int i = 0; i < rows; ++i) q[2 * i] = 1;
    params.shape = {1, 1, 2, 1, DType::kFloat32};
    params.batch = {1, indptr.data(), length.data(), table.data(), n};
    params.q = q.data();
    params.q_stride = 2;
    params.k_pages = k.data();
    params.v_pages = v.data();
  }
  Tiny(const Tiny&) = delete;

  std::vector<float> q, k, v;
  std::vector<int32_t> indptr, length, table;
  AttentionParams params;
};

TEST(AttentionReference, TwoKeys) {
  Tiny tiny({std::log(3.0f), 0, 0, 0}, {1, 10, 5, 50});
  const ReferenceResult result = AttentionReference(tiny.params);
  EXPECT_NEAR(result.out[0], 0.75 * 1 + 0.25 * 5, 1e-6);
  EXPECT_NEAR(result.out[1], 0.75 * 10 + 0.25 * 50, 1e-5);
  EXPECT_NEAR(result.stats[0].max_probability, 0.75, 1e-7);
  EXPECT_NEAR(result.stats[0].log_sum_exp, std::log(4.0), 1e-6);
  EXPECT_NEAR(result.stats[0].entropy, -0.75 * std::log(0.75) - 0.25 * std::log(0.25), 1e-7);
  EXPECT_NEAR(result.stats[0].mean_logit, 0.75 * std::log(3.0), 1e-6);
}

TEST(AttentionReference, CausalRowsSeeTheirPast) {
  Tiny tiny({5, 0, 5, 0}, {1, 0, 3, 0}, 2);
  const ReferenceResult result = AttentionReference(tiny.params);
  EXPECT_NEAR(result.out[0], 1, 1e-12);
  EXPECT_NEAR(result.out[2], 2, 1e-12);
  EXPECT_NEAR(result.stats[1].entropy, std::log(2.0), 1e-12);
}

TEST(AttentionReference, SinkTakesPartInTheDenominatorOnly) {
  Tiny tiny({0, 0}, {8, 0});
  const float sink = std::log(3.0f);
  tiny.params.sinks = &sink;
  const ReferenceResult result = AttentionReference(tiny.params);
  EXPECT_NEAR(result.out[0], 2, 1e-6);
  EXPECT_NEAR(result.stats[0].sink_probability, 0.75, 1e-7);
  EXPECT_EQ(result.stats[0].max_probability, 1);
  EXPECT_EQ(result.stats[0].entropy, 0);
}

TEST(AttentionReference, WindowSoftcapAndScale) {
  Tiny tiny({9, 0, 1, 0, 2, 0}, {100, 0, 1, 0, 2, 0});
  tiny.params.window = 2;
  tiny.params.softmax_scale = 3;
  tiny.params.logit_softcap = 2;
  const double a = 2 * std::tanh(1.5), b = 2 * std::tanh(3.0);
  const double p = 1 / (1 + std::exp(a - b));
  EXPECT_NEAR(AttentionReference(tiny.params).out[0], (1 - p) + 2 * p, 1e-9);
}

TEST(AttentionReference, SsmaxIsAPowerOfN) {
  Tiny tiny({1, 0, 0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 0, 0, 0});
  const float s = 0.5f;  // 4^0.5 = 2
  tiny.params.policy = {RowScaleKind::kSsmax, &s};
  EXPECT_NEAR(AttentionReference(tiny.params).out[0], 2.0 / 5.0, 1e-7);
}

}  // namespace
}  // namespace acuity::kernels
