#include "clients/cpp/calibration.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace acuity::client {
namespace {

constexpr double kManyTurns = 32, kFewTurns = 1;
// Nats by which a probe must lower a head's entropy to be heard above rounding.
constexpr double kMinResponse = 1e-3;

// The largest power of two that is at most n; n >= 1.
int64_t PowerOfTwo(int64_t n) {
  int64_t power = 1;
  while (power <= n / 2) power *= 2;
  return power;
}

absl::StatusOr<double> EntropyOf(const v1::HeadAttention& head, const Bucket& bucket) {
  for (const v1::AttentionBucket& b : head.buckets()) {
    if (b.n_min() == bucket.first_n) return b.entropy();
  }
  return absl::InternalError(absl::StrCat("the report of head ", head.head(),
                                          " has no rows that see ", bucket.first_n, " keys"));
}

}  // namespace

double Bucket::mean_log_n() const {
  double sum = 0;
  for (int64_t n = first_n; n < first_n + rows; ++n) sum += std::log(static_cast<double>(n));
  return sum / static_cast<double>(rows);
}

absl::StatusOr<Buckets> ChooseBuckets(int64_t trained, int64_t context) {
  // Rows that see n keys, n in [2^b, 2^(b + 1)); n = trained counts as within.
  const int64_t end = PowerOfTwo(trained + 1);
  if (end < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("trained context: ", trained, "; at least 1 is needed"));
  }
  Buckets buckets{{end / 2, end / 2}, {}};
  int64_t first = end >= trained ? end : 2 * end;
  if (context <= first) {
    return absl::InvalidArgumentError(absl::StrCat("to-context: ", context, "; more than ", first,
                                                   " for a trained context of ", trained,
                                                   ", since statistics are kept by powers of two"));
  }
  for (; first < context; first *= 2) {
    buckets.beyond.push_back({first, std::min(first, context - first)});
  }
  return buckets;
}

absl::StatusOr<std::vector<std::vector<Entropies>>> ReadEntropies(const v1::AttentionReport& report,
                                                                  const Buckets& buckets) {
  std::vector<std::vector<Entropies>> layers;
  for (const v1::LayerAttention& layer : report.layers()) {
    std::vector<Entropies>& heads = layers.emplace_back();
    for (const v1::HeadAttention& head : layer.heads()) {
      Entropies& entropies = heads.emplace_back();
      const absl::StatusOr<double> within = EntropyOf(head, buckets.within);
      if (!within.ok()) return within.status();
      entropies.within = *within;
      for (const Bucket& bucket : buckets.beyond) {
        const absl::StatusOr<double> beyond = EntropyOf(head, bucket);
        if (!beyond.ok()) return beyond.status();
        entropies.beyond.push_back(*beyond);
      }
    }
  }
  return layers;
}

void AddEntropies(const std::vector<std::vector<Entropies>>& entropies, double weight,
                  std::vector<std::vector<Entropies>>* mean) {
  mean->resize(entropies.size());
  for (size_t layer = 0; layer < entropies.size(); ++layer) {
    (*mean)[layer].resize(entropies[layer].size());
    for (size_t head = 0; head < entropies[layer].size(); ++head) {
      const Entropies& from = entropies[layer][head];
      Entropies& to = (*mean)[layer][head];
      to.within += weight * from.within;
      to.beyond.resize(from.beyond.size());
      for (size_t i = 0; i < from.beyond.size(); ++i) to.beyond[i] += weight * from.beyond[i];
    }
  }
}

double Sharpening::excess(const Bucket& bucket, int64_t trained) const {
  return b + s * (bucket.mean_log_n() - std::log(static_cast<double>(trained)));
}

Sharpening FitHead(const Entropies& plain, const Entropies& probed, const Sharpening& probe,
                   const Buckets& buckets, int64_t trained) {
  const double origin = buckets.within.mean_log_n();
  double product = 0, square = 0;
  for (size_t i = 0; i < buckets.beyond.size(); ++i) {
    const Bucket& bucket = buckets.beyond[i];
    const double x = bucket.mean_log_n() - origin;
    const double response = plain.beyond[i] - probed.beyond[i];
    const double wanted = plain.beyond[i] - plain.within;
    double excess = 0;
    if (wanted > 0 && response > kMinResponse) {
      const double c = 1 + probe.excess(bucket, trained);
      excess = std::min(std::sqrt(1 + wanted / response * (c * c - 1)) - 1, kMaxExcess);
    }
    product += static_cast<double>(bucket.rows) * excess * x;
    square += static_cast<double>(bucket.rows) * x * x;
  }
  const double s = product / square;
  return {s, s * (std::log(static_cast<double>(trained)) - origin)};
}

double EqualStrength(const HeadSharpenings& heads, const Sharpening& global, const Buckets& buckets,
                     int64_t trained) {
  double wanted = 0, fitted = 0;
  for (const Bucket& bucket : buckets.beyond) {
    const auto rows = static_cast<double>(bucket.rows);
    for (const std::vector<Sharpening>& layer : heads) {
      for (const Sharpening& head : layer) {
        wanted += rows * global.excess(bucket, trained);
        fitted += rows * head.excess(bucket, trained);
      }
    }
  }
  return fitted > 0 ? std::min(1.0, wanted / fitted) : 0;
}

std::vector<double> KneeSlopes(std::span<const double> frequencies, int64_t knee, double slope) {
  std::vector<double> slopes;
  for (const double frequency : frequencies) {
    const double turns = static_cast<double>(knee) * frequency / (2 * std::numbers::pi);
    const double ramp =
        std::clamp(std::log(turns / kFewTurns) / std::log(kManyTurns / kFewTurns), 0.0, 1.0);
    slopes.push_back(ramp + (1 - ramp) * slope);
  }
  return slopes;
}

double MeanLoss(std::span<const double> logprobs, int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t row = begin; row < end; ++row) sum -= logprobs[static_cast<size_t>(row + 1)];
  return sum / static_cast<double>(end - begin);
}

std::vector<LossBin> LossByPosition(std::span<const double> logprobs, int64_t width) {
  std::vector<LossBin> bins;
  const int64_t rows = static_cast<int64_t>(logprobs.size()) - 1;
  for (int64_t begin = 0; begin < rows; begin += width) {
    const int64_t end = std::min(begin + width, rows);
    bins.push_back({begin, end, MeanLoss(logprobs, begin, end)});
  }
  return bins;
}

}  // namespace acuity::client
