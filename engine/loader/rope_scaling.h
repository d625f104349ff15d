// The formulas of scaled rotary embeddings, whatever format the parameters came in.
#pragma once

#include "engine/loader/model_spec.h"

namespace acuity::engine {

// Frequency i of `rope` before scaling, in radians per position.
double RopeFrequency(const RopeSpec& rope, size_t i);

// YaRN's factor of magnitude, 0.1 m ln(factor) + 1; 1 for a factor of at most 1.
double YarnMagnitude(double factor, double m);

// YaRN's divisors (arXiv 2309.00071): frequencies that turn at most few_turns times within the
// original context are divided by `factor`, those that turn at least many_turns times are left
// alone, and those between are mixed.
struct YarnScaling {
  float factor = 1;
  float many_turns = 32, few_turns = 1;
  int original_context = 0;
  bool truncate = true;  // the ramp begins and ends at whole dimensions
};
// Fills rope->factors, and makes *max_context at least original_context * factor.
void ApplyYarn(const YarnScaling& yarn, RopeSpec* rope, int* max_context);

// LongRoPE's magnitude (arXiv 2402.13753): sqrt(1 + ln(context / original) / ln(original)).
double LongRopeMagnitude(int max_context, int original_context);

}  // namespace acuity::engine
