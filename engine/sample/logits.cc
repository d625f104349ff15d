#include "engine/sample/logits.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace acuity::engine {
namespace {

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

// e^x for x <= 0, relative error below 2e-7; 0 below -87, where float32 leaves its normal range.
// Inlined into loops, which then vectorise: the C library's expf is a call for each element.
inline float ExpOfNegative(float x) {
  constexpr float kSmallest = -87.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x > kSmallest ? x : kSmallest;
  const float n = (clamped * 1.44269504088896341f + kRound) - kRound;
  // ln 2 in two parts (Cody and Waite): the first has few enough bits for n * part to be exact.
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  // Cephes expf: e^r on [-ln2/2, ln2/2].
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const float power = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x < kSmallest ? 0.0f : p * power;
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
