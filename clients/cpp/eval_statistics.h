// What `acuity eval` says of a number of observations: an estimate and how sure it is.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace acuity::client {

struct Estimate {
  double value = 0;
  double low = 0, high = 0;  // low <= value <= high
  int64_t count = 0;         // observations
};

// A share of successes with the 95 % interval of Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
// 0 <= successes <= trials, trials >= 1.
Estimate Share(int64_t successes, int64_t trials);

// Of several estimates of one thing (models trained from several seeds): their mean, the lowest and
// the highest of them, the sum of their counts. At least one.
Estimate Spread(std::span<const Estimate> estimates);

// A running mean (Welford, Technometrics 4 (1962) 419).
class Mean {
 public:
  void Add(double x);
  int64_t count() const { return count_; }
  double value() const { return mean_; }
  // Of the mean; 0 with fewer than two observations.
  double standard_error() const;
  // With 1.96 standard errors to either side.
  Estimate estimate() const;

 private:
  int64_t count_ = 0;
  double mean_ = 0, squares_ = 0;
};

// Uniform in [0, limit), limit >= 1: the same on every platform, unlike the standard's
// distributions.
uint64_t Below(std::mt19937_64& random, uint64_t limit);

// A generator for one piece of work, which does not depend on the order of the work.
std::mt19937_64 GeneratorOf(uint64_t seed, uint64_t a, uint64_t b);

}  // namespace acuity::client
