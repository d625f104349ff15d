#include "engine/sample/logits.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/sampling_math.h"

namespace acuity::engine {
namespace {

using kernels::ExpOfNegative;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 16;    // independent chains: enough to hide the latency of one operation
constexpr size_t kBlock = 1024;  // how much Scan re-reads to find the index of the maximum

struct BlockScan {
  float max = -kInfinity;
  bool bad = false;  // NaN or +infinity
};

BlockScan ScanBlock(const float* x, size_t n) {
  float high[kLanes];
  int32_t bad[kLanes];
  std::fill_n(high, kLanes, -kInfinity);
  std::fill_n(bad, kLanes, 0);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
      bad[j] |= !(x[i + j] < kInfinity);
    }
  }
  BlockScan scan;
  for (size_t j = 0; j < kLanes; ++j) {
    scan.max = std::max(scan.max, high[j]);
    scan.bad |= bad[j] != 0;
  }
  for (; i < n; ++i) {
    scan.max = std::max(scan.max, x[i]);
    scan.bad |= !(x[i] < kInfinity);
  }
  return scan;
}

}  // namespace

LogitScan Scan(std::span<const float> logits) {
  LogitScan scan;
  float max = -kInfinity;
  size_t best_block = 0;
  bool bad = false;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const BlockScan block = ScanBlock(&logits[begin], std::min(kBlock, logits.size() - begin));
    bad |= block.bad;
    if (block.max > max) {  // strictly: the first block among equals
      max = block.max;
      best_block = begin;
    }
  }
  if (bad || max == -kInfinity) return scan;
  const auto first = logits.begin() + best_block;
  scan.argmax = static_cast<TokenId>(std::find(first, logits.end(), max) - logits.begin());
  scan.max = max;
  scan.valid = true;
  return scan;
}

double LogSumExp(std::span<const float> logits, float max) {
  float weights[kBlock];
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, logits.size() - begin);
    for (size_t i = 0; i < n; ++i) weights[i] = ExpOfNegative(logits[begin + i] - max);
    sum += Sum({weights, n});
  }
  return static_cast<double>(max) + std::log(sum);
}

void Weigh(std::span<float> logits, float max, float temperature) {
  // Divided, not multiplied by 1 / temperature, which overflows for the smallest temperatures.
  for (float& logit : logits) logit = ExpOfNegative((logit - max) / temperature);
}

double Sum(std::span<const float> values) {
  double sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) sums[j] += static_cast<double>(values[i + j]);
  }
  double sum = 0;
  for (const double lane : sums) sum += lane;
  for (; i < values.size(); ++i) sum += static_cast<double>(values[i]);
  return sum;
}

}  // namespace acuity::engine
