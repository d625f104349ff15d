// Sums of the attention statistics of many rows, made where the attention ran: what a report of
// (layer, head, context bucket) is divided from.
//
//   H   ln n >= H >= 0    the row's entropy, in nats
//   H / ln n              1 at n = 1
//   e^H, e^H / n          how many keys, and which part of them, an even distribution would have
//   p                     the largest probability
//
// of a row that sees n keys. Each term is rounded once, to a multiple of its unit below; from there
// on sums are of integers. So they are the same bits in any order: however rows were cut into
// steps, on any number of threads, and on a GPU as on the CPU from the same RowStats (no FMA: see
// kernels/sampling_math.h).
//
// No sum wraps: with n < 2^21 the terms are below 2^4 (H), 1, n, 1 and 1, up to float32's rounding,
// and 2^25 of them below 2^(25 + 4 + 32), 2^(25 + 32) and 2^(25 + 21 + 16), of 2^63. Whoever adds
// more together needs wider integers. The units are far below what float32 resolves: a term is
// rounded by 2^-33 at most, e^H by 2^-17; the arithmetic adds 3e-7, relative.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "kernels/attention_stats.h"
#include "kernels/host_device.h"
#include "kernels/parallel.h"
#include "kernels/sampling_math.h"

namespace acuity::kernels {

inline constexpr float kRowSumUnit = 0x1p-32f;         // of entropy, normalized, fraction and p
inline constexpr float kEffectiveUnit = 0x1p-16f;      // of e^H
inline constexpr int kMostTermsLog2 = 25;              // rows x heads in one sum
inline constexpr int kMostSummedKeys = (1 << 21) - 1;  // that a summed row sees

// Sums over rows, or over rows and heads, in the units above.
struct RowSums {
  int64_t rows = 0;  // that were summed (each as often as it has heads in the sum)
  int64_t entropy = 0;
  int64_t normalized = 0;
  int64_t effective = 0;  // e^H
  int64_t fraction = 0;   // e^H / n
  int64_t max_probability = 0;

  bool operator==(const RowSums&) const = default;
};

// Rows of one sequence in a step, whose n are all in one [2^b, 2^(b + 1)). A window w caps n, and
// they stay together: below 2^b it makes each n = w, above it leaves the range or cuts its top off.
struct MeasuredRows {
  int32_t row_begin = 0, row_end = 0;  // in the step; empty: padding, which writes nothing
  int32_t first_n = 1;                 // keys that row_begin sees; the next one sees one more
  bool by_head = false;                // sums of each head, else of all heads together
  int64_t at = 0;                      // its sums are sums[at, at + SumsOf(rows))

  int32_t num_rows() const { return row_end - row_begin; }
};

// [num_layers, num_heads, or 1 unless by_head].
inline int64_t SumsOf(const MeasuredRows& rows, int num_layers, int num_heads) {
  return int64_t{num_layers} * (rows.by_head ? num_heads : 1);
}
// Of all of them, which lie one behind the other.
inline int64_t SumsOf(const std::vector<MeasuredRows>& rows, int num_layers, int num_heads) {
  return rows.empty() ? 0 : rows.back().at + SumsOf(rows.back(), num_layers, num_heads);
}
// The bucket b of n >= 1.
inline int ContextBucket(int64_t n) { return std::bit_width(static_cast<uint64_t>(n)) - 1; }
// Appends `rows`, whose `at` is not read, cut at powers of two of n.
void AppendMeasured(MeasuredRows rows, int num_layers, int num_heads,
                    std::vector<MeasuredRows>* list);

struct SumRowsParams {
  const RowStats* stats = nullptr;  // [num_layers, rows, num_heads], as RunAttention filled it
  int64_t rows = 0;                 // of the step
  int num_layers = 0, num_heads = 0;
  const int32_t* windows = nullptr;        // [num_layers] > 0 caps n
  const MeasuredRows* measured = nullptr;  // [count], as AppendMeasured made them
  int32_t count = 0;
  RowSums* sums = nullptr;  // written
};
void SumRows(const SumRowsParams& params, const ParallelFor& parallel);

// ---- A row's terms: the arithmetic of all backends ----

// ln n for n in [1, 2^24), relative error below 2e-7; 0 for 1.
constexpr float LogOfCount(int32_t n) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(n));
  float exponent = static_cast<float>(static_cast<int32_t>(bits >> 23) - 127);
  float m = std::bit_cast<float>((bits & 0x7fffffu) | 0x3f800000u);
  if (m > 1.41421356f) {
    m *= 0.5f;
    exponent += 1;
  }
  // ln m = 2 artanh((m - 1) / (m + 1)); the series' next term is below 2e-9 of it.
  const float s = (m - 1) / (m + 1), z = s * s;
  float p = 1.0f / 9;
  p = p * z + 1.0f / 7;
  p = p * z + 1.0f / 5;
  p = p * z + 1.0f / 3;
  const float log_m = 2 * s + 2 * s * (z * p);
  // ln 2 in two parts, as in ExpOfNegative.
  return exponent * 0.693359375f + (log_m - exponent * 2.12194440e-4f);
}

// What the terms need of n: the same for all heads.
struct KeyCount {
  float log, one_over_log, one_over_n;

  constexpr explicit KeyCount(int32_t n)
      : log(LogOfCount(n)),
        one_over_log(n > 1 ? 1 / log : 0),
        one_over_n(1 / static_cast<float>(n)) {}
};

// Adds one (row, head). Not if its entropy is NaN or infinite: it tells nothing of attention. What
// rounding has put above a bound (1 for p, ln n for H) counts as the bound.
constexpr void AddRow(const RowStats& row, const KeyCount& n, RowSums* sums) {
  if (!(row.entropy <= 3e38f)) return;
  const auto units = [](float value, float unit) {
    return static_cast<int64_t>(value * (1 / unit) + 0.5f);
  };
  const auto part = [&](float value) { return units(value < 1 ? value : 1, kRowSumUnit); };
  const float entropy = row.entropy < n.log ? row.entropy : n.log;
  const float effective = 1 / ExpOfNegative(-entropy);
  ++sums->rows;
  sums->entropy += units(entropy, kRowSumUnit);
  sums->normalized += n.log > 0 ? part(entropy * n.one_over_log) : part(1);
  sums->effective += units(effective, kEffectiveUnit);
  sums->fraction += part(effective * n.one_over_n);
  sums->max_probability += part(row.max_probability);
}

}  // namespace acuity::kernels
