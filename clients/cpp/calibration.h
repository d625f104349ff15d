// The arithmetic of `acuity calibrate`: from how flat each head's attention is, by context, to how
// much to sharpen it beyond the trained length. docs/calibration.md derives it. Pure functions.
//
// A head whose scaled logits are roughly normal with deviation sigma has entropy ln n - c^2 sigma^2
// / 2 when they are multiplied by c, so entropy is linear in c^2: one probe at a known c > 1 gives
// the slope, and with it the c at which the entropy is what it was at the trained length.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "acuity/v1/acuity.pb.h"

namespace acuity::client {

// Rows of one bucket of context lengths: rows that see first_n, first_n + 1, ... keys.
struct Bucket {
  int64_t first_n = 0, rows = 0;
  double mean_log_n() const;
};

// Which of the daemon's buckets (powers of two) tell about a model trained to `trained` tokens that
// is to serve `context`.
struct Buckets {
  Bucket within;               // the last that lies wholly within the trained length
  std::vector<Bucket> beyond;  // those beyond it, cut at `context`; at least one
};
// InvalidArgument if there is no bucket on either side.
absl::StatusOr<Buckets> ChooseBuckets(int64_t trained, int64_t context);

// Mean entropies (nats) of one head, or of all.
struct Entropies {
  double within = 0;
  std::vector<double> beyond;  // as Buckets::beyond
};
// [layers][heads], from a report of detail HEADS on a text of `context` tokens. Internal if a
// bucket is not there.
absl::StatusOr<std::vector<std::vector<Entropies>>> ReadEntropies(const v1::AttentionReport& report,
                                                                  const Buckets& buckets);

// `*mean` += weight * entropies; an empty `*mean` counts as zeros.
void AddEntropies(const std::vector<std::vector<Entropies>>& entropies, double weight,
                  std::vector<std::vector<Entropies>>* mean);

// 1 + b + s ln(n / trained) beyond the trained length.
struct Sharpening {
  double s = 0, b = 0;
  double excess(const Bucket& bucket, int64_t trained) const;  // mean of the scale - 1
};

inline constexpr double kMaxExcess = 0.5;  // of a fitted head: a scale of 1.5

// The sharpening that brings the head's entropy beyond the trained length down to what it is
// within. Scale - 1 grows from 0 at the bucket within, in proportion to ln n: least squares over
// the buckets beyond. `plain` and `probed` are the head's entropies without sharpening and with
// `probe`. Zero for a head that is not flatter beyond than within, or that does not respond.
Sharpening FitHead(const Entropies& plain, const Entropies& probed, const Sharpening& probe,
                   const Buckets& buckets, int64_t trained);

using HeadSharpenings = std::vector<std::vector<Sharpening>>;  // [layers][heads]

// How much of `heads` sharpens as much as `global` does, in the mean over heads and rows beyond the
// trained length; at most 1, and 0 if no head is to be sharpened.
double EqualStrength(const HeadSharpenings& heads, const Sharpening& global, const Buckets& buckets,
                     int64_t trained);

// Slopes of a rotary embedding beyond a knee at `knee` (RopeSpec::slopes): 1 for pairs that turn 32
// times or more within it, `slope` for those that turn once or less, and in between by the
// logarithm of the turns (YaRN's ramp, arXiv 2309.00071). frequencies: radians per position.
std::vector<double> KneeSlopes(std::span<const double> frequencies, int64_t knee, double slope);

// Mean loss (nats a token) of a text's tokens that are predicted by the rows at positions
// [begin, end).
struct LossBin {
  int64_t begin = 0, end = 0;
  double loss = 0;
};
// logprobs[i], i >= 1: of token i, which row i - 1 predicts.
double MeanLoss(std::span<const double> logprobs, int64_t begin, int64_t end);
// Bins of `width` positions from 0 on; the last one may be shorter. No bin is empty.
std::vector<LossBin> LossByPosition(std::span<const double> logprobs, int64_t width);

}  // namespace acuity::client
