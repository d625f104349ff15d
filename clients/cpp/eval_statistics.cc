#include "clients/cpp/eval_statistics.h"

#include <algorithm>
#include <cmath>

namespace acuity::client {
namespace {

constexpr double kNormal95 = 1.959963984540054;  // the normal distribution's 97.5th percentile

}  // namespace

Estimate Share(int64_t successes, int64_t trials) {
  const double n = static_cast<double>(trials), p = static_cast<double>(successes) / n;
  const double z = kNormal95, z2 = z * z;
  const double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = z / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {p, std::clamp(centre - half, 0.0, p), std::clamp(centre + half, p, 1.0), trials};
}

Estimate Spread(std::span<const Estimate> estimates) {
  if (estimates.size() == 1) return estimates[0];
  Estimate out = {0, estimates[0].value, estimates[0].value, 0};
  for (const Estimate& e : estimates) {
    out.value += e.value / static_cast<double>(estimates.size());
    out.low = std::min(out.low, e.value);
    out.high = std::max(out.high, e.value);
    out.count += e.count;
  }
  out.value = std::clamp(out.value, out.low, out.high);  // rounding
  return out;
}

void Mean::Add(double x) {
  ++count_;
  const double delta = x - mean_;
  mean_ += delta / static_cast<double>(count_);
  squares_ += delta * (x - mean_);
}

double Mean::standard_error() const {
  if (count_ < 2) return 0;
  const double n = static_cast<double>(count_);
  return std::sqrt(squares_ / (n - 1) / n);
}

Estimate Mean::estimate() const {
  const double half = kNormal95 * standard_error();
  return {mean_, mean_ - half, mean_ + half, count_};
}

uint64_t Below(std::mt19937_64& random, uint64_t limit) {
  const uint64_t largest = UINT64_MAX - UINT64_MAX % limit;  // a multiple of limit
  for (;;) {
    const uint64_t x = random();
    if (x < largest) return x % limit;
  }
}

std::mt19937_64 GeneratorOf(uint64_t seed, uint64_t a, uint64_t b) {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  std::seed_seq mixed = {low(seed), high(seed), low(a), high(a), low(b), high(b)};
  return std::mt19937_64(mixed);
}

}  // namespace acuity::client
