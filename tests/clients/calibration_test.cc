// The arithmetic of calibration against heads whose entropies are summed in double.
#include "clients/cpp/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/logit_policy.h"

namespace acuity::client {
namespace {

constexpr int64_t kTrained = 256, kContext = 1024;

// Entropy of softmax(c z[0..n)).
double Entropy(const std::vector<double>& z, int64_t n, double c) {
  double maximum = -HUGE_VAL, sum = 0, weighted = 0;
  for (int64_t j = 0; j < n; ++j) maximum = std::max(maximum, c * z[static_cast<size_t>(j)]);
  for (int64_t j = 0; j < n; ++j) {
    const double u = c * z[static_cast<size_t>(j)] - maximum;
    sum += std::exp(u);
    weighted += u * std::exp(u);
  }
  return std::log(sum) - weighted / sum;
}

// A head whose row n scales `z` as the kernels do.
Entropies Measure(const std::vector<double>& z, const Sharpening& sharpening,
                  const Buckets& buckets) {
  const auto s = static_cast<float>(sharpening.s), b = static_cast<float>(sharpening.b);
  const kernels::LogitPolicy policy = {kernels::RowScaleKind::kSharpen, &s, &b, kTrained};
  const auto mean = [&](const Bucket& bucket) {
    double sum = 0;
    for (int64_t n = bucket.first_n; n < bucket.first_n + bucket.rows; ++n) {
      sum += Entropy(z, n, kernels::RowScale(policy, 0, n, n - 1));
    }
    return sum / static_cast<double>(bucket.rows);
  };
  Entropies entropies{mean(buckets.within), {}};
  for (const Bucket& bucket : buckets.beyond) entropies.beyond.push_back(mean(bucket));
  return entropies;
}

std::vector<double> NormalLogits(double deviation, int seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::normal_distribution<double> normal(0, deviation);
  std::vector<double> z(kContext);
  for (double& value : z) value = normal(random);
  return z;
}

TEST(Calibration, BucketsOnBothSidesOfTheTrainedLength) {
  auto buckets = ChooseBuckets(8192, 16384);
  ASSERT_TRUE(buckets.ok()) << buckets.status();
  EXPECT_EQ(buckets->within.first_n, 4096);
  EXPECT_EQ(buckets->within.rows, 4096);
  ASSERT_EQ(buckets->beyond.size(), 1u);
  EXPECT_EQ(buckets->beyond[0].first_n, 8192);
  EXPECT_EQ(buckets->beyond[0].rows, 8192);

  buckets = ChooseBuckets(6144, 20000);  // [4096, 8191] has rows of both sides
  ASSERT_TRUE(buckets.ok());
  EXPECT_EQ(buckets->within.first_n, 2048);
  ASSERT_EQ(buckets->beyond.size(), 2u);
  EXPECT_EQ(buckets->beyond[0].first_n, 8192);
  EXPECT_EQ(buckets->beyond[1].first_n, 16384);
  EXPECT_EQ(buckets->beyond[1].rows, 20000 - 16384);

  EXPECT_TRUE(ChooseBuckets(8191, 8193).ok());
  EXPECT_TRUE(ChooseBuckets(8192, 8193).ok());
  EXPECT_NE(std::string(ChooseBuckets(6144, 8192).status().message()).find("more than 8192"),
            std::string::npos);
  EXPECT_FALSE(ChooseBuckets(8192, 8192).ok());
  EXPECT_FALSE(ChooseBuckets(0, 100).ok());
}

// The part of the gap beyond - within that is left, over a dozen heads.
double GapLeft(double deviation) {
  const Buckets buckets = *ChooseBuckets(kTrained, kContext);
  const Sharpening probe{0.2, 0.1};
  double gap = 0, left = 0;
  for (int seed = 0; seed < 12; ++seed) {
    const std::vector<double> z = NormalLogits(deviation, seed);
    const Entropies plain = Measure(z, {}, buckets);
    const Sharpening fit = FitHead(plain, Measure(z, probe, buckets), probe, buckets, kTrained);
    const Entropies fitted = Measure(z, fit, buckets);
    EXPECT_EQ(fitted.within, plain.within) << "rows within the trained length are left alone";
    for (size_t i = 0; i < buckets.beyond.size(); ++i) {
      gap += plain.beyond[i] - plain.within;
      left += fitted.beyond[i] - plain.within;
    }
  }
  return left / gap;
}

TEST(Calibration, FittedHeadsAreAsSharpBeyondAsWithin) {
  for (const double deviation : {1.5, 2.0, 2.5}) {
    EXPECT_NEAR(GapLeft(deviation), 0.1, 0.2) << deviation;
  }
  const double limited = GapLeft(1);  // a scale of 1.5 is not enough
  EXPECT_GT(limited, 0.2);
  EXPECT_LT(limited, 0.8);
}

TEST(Calibration, EqualStrengthSharpensAsMuchInTheMean) {
  const Buckets buckets = *ChooseBuckets(kTrained, kContext);
  const Sharpening global{0.2, 0.1};
  EXPECT_NEAR(EqualStrength({{{0.8, 0.4}, {0, 0}}}, global, buckets, kTrained), 0.5, 1e-9);
  EXPECT_NEAR(EqualStrength({{{0.4, 0.2}}, {{0.4, 0.2}}}, global, buckets, kTrained), 0.5, 1e-9);
  EXPECT_EQ(EqualStrength({{{0.1, 0.05}}}, global, buckets, kTrained), 1);
  EXPECT_EQ(EqualStrength({{{0, 0}}}, global, buckets, kTrained), 0);
}

TEST(Calibration, FitIsZeroForHeadsThatNeedNoneOrDoNotRespond) {
  const Buckets buckets = *ChooseBuckets(kTrained, kContext);
  const Sharpening probe{0.2, 0.1};
  std::vector<double> local(kContext, -50);  // sees its first keys only, whatever n is
  for (size_t j = 0; j < 4; ++j) local[j] = 0.1 * static_cast<double>(j);
  EXPECT_NEAR(
      FitHead(Measure(local, {}, buckets), Measure(local, probe, buckets), probe, buckets, kTrained)
          .s,
      0, 1e-6);
  const std::vector<double> flat(kContext, 1);  // no scale changes it
  EXPECT_EQ(
      FitHead(Measure(flat, {}, buckets), Measure(flat, probe, buckets), probe, buckets, kTrained)
          .s,
      0);
  EXPECT_EQ(FitHead({3, {2, 2.5}}, {3, {1, 1.5}}, probe, buckets, kTrained).s,
            0);  // sharper beyond
}

TEST(Calibration, FitIsLimited) {
  const Buckets buckets = *ChooseBuckets(kTrained, kContext);
  const Sharpening fit = FitHead({1, {6, 6}}, {1, {5.9, 5.9}}, {0.2, 0.1}, buckets, kTrained);
  EXPECT_GT(fit.s, 0);
  for (const Bucket& bucket : buckets.beyond) {
    EXPECT_LT(fit.excess(bucket, kTrained), 1.5 * kMaxExcess);
  }
}

TEST(Calibration, KneeSlopesLeaveQuickPairsAloneAndSlowOnesTheirSlope) {
  constexpr double kTurn = 2 * 3.14159265358979;
  const std::vector<double> frequencies = {1, kTurn * 32 / 8192, kTurn * std::sqrt(32.0) / 8192,
                                           kTurn / 8192, 1e-6};
  const std::vector<double> slopes = KneeSlopes(frequencies, 8192, 0.25);
  const double expected[] = {1, 1, 0.625, 0.25, 0.25};
  for (size_t i = 0; i < slopes.size(); ++i) EXPECT_NEAR(slopes[i], expected[i], 1e-9) << i;
}

TEST(Calibration, LossIsOfTheTokensThatRowsPredict) {
  const std::vector<double> logprobs = {NAN, -1, -2, -3, -4, -5};  // rows 0 to 4
  EXPECT_EQ(MeanLoss(logprobs, 0, 5), 3);
  EXPECT_EQ(MeanLoss(logprobs, 3, 5), 4.5);
  const std::vector<LossBin> bins = LossByPosition(logprobs, 2);
  ASSERT_EQ(bins.size(), 3u);
  EXPECT_EQ(bins[1].begin, 2);
  EXPECT_EQ(bins[1].end, 4);
  EXPECT_EQ(bins[1].loss, 3.5);
  EXPECT_EQ(bins[2].end, 5);
  EXPECT_EQ(bins[2].loss, 5);
  EXPECT_TRUE(LossByPosition(std::vector<double>{NAN}, 4).empty());
}

TEST(Calibration, EntropiesOfTheReportAndTheirMean) {
  const Buckets buckets = *ChooseBuckets(8, 16);
  v1::AttentionReport report;
  v1::HeadAttention* head = report.add_layers()->add_heads();
  for (const auto& [n, entropy] : {std::pair{2, 0.5}, {4, 1.0}, {8, 2.0}}) {
    v1::AttentionBucket* bucket = head->add_buckets();
    bucket->set_n_min(n);
    bucket->set_entropy(entropy);
  }
  const auto entropies = ReadEntropies(report, buckets);
  ASSERT_TRUE(entropies.ok()) << entropies.status();
  std::vector<std::vector<Entropies>> mean;
  AddEntropies(*entropies, 0.5, &mean);
  AddEntropies(*entropies, 0.25, &mean);
  EXPECT_EQ(mean[0][0].within, 0.75);
  EXPECT_EQ(mean[0][0].beyond[0], 1.5);
  head->mutable_buckets()->RemoveLast();
  EXPECT_EQ(ReadEntropies(report, buckets).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace acuity::client
