// The table of what fades and what does not: all logits -2 but one, which is 3; the largest
// probability of n keys under softmax and under SSMax with s = 0.43 (Nakanishi, arXiv 2501.19399),
// through every kernel that serves.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/attention_fixture.h"

namespace acuity::kernels {
namespace {

constexpr AttentionShape kShape = {1, 1, 16, 16, DType::kFloat32};
constexpr float kS[] = {0.43f};

double LargestProbability(const AttentionKernels& kernels, int n, const LogitPolicy& policy) {
  SequenceData sequence = MakeSequence(kShape, n, 1);
  for (int i = 0; i < n; ++i) {
    for (int d = 0; d < 16; ++d) {
      sequence.q[i * 16 + d] = d == 0 ? 1.0f : 0.0f;
      sequence.k[i * 16 + d] = d != 0 ? 0.0f : i == n - 1 ? 3.0f : -2.0f;
    }
  }
  AttentionCase attention(kShape, {{&sequence, n - 1, n}});
  attention.params().softmax_scale = 1;
  attention.params().policy = policy;
  return attention.Run(kernels).stats[0].max_probability;
}

TEST(AttentionTableTest, SoftmaxFadesAndSsmaxDoesNot) {
  struct Row {
    int n;
    double softmax, ssmax;                // as printed
    double softmax_digits, ssmax_digits;  // half a unit of the last digit
  };
  const Row rows[] = {{10, 0.9428, 0.9401, 5e-5, 5e-5},
                      {100, 0.5999, 0.9951, 5e-5, 5e-5},
                      {1000, 0.1293, 0.99965, 5e-5, 5e-6},
                      {10000, 0.01463, 0.99997, 5e-6, 5e-6}};
  for (const NamedKernels& kernels : AllKernels()) {
    for (const Row& row : rows) {
      const double softmax = LargestProbability(*kernels.kernels, row.n, {});
      const double ssmax = LargestProbability(*kernels.kernels, row.n, {RowScaleKind::kSsmax, kS});
      EXPECT_NEAR(softmax, row.softmax, row.softmax_digits) << kernels.name << ", n " << row.n;
      EXPECT_NEAR(ssmax, row.ssmax, row.ssmax_digits) << kernels.name << ", n " << row.n;
      EXPECT_NEAR(softmax, 1 / (1 + (row.n - 1) * std::exp(-5.0)), 1e-6);
      EXPECT_NEAR(ssmax, 1 / (1 + (row.n - 1) * std::pow(row.n, -5 * 0.43)), 1e-6);
    }
  }
}

}  // namespace
}  // namespace acuity::kernels
