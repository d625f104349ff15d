// Passes over a vocabulary's logits, written so that the compiler vectorises them. Pure.
#pragma once

#include <span>

#include "engine/base/ids.h"

namespace acuity::engine {

struct LogitScan {
  TokenId argmax = -1;  // the lowest id among equals
  float max = 0;
  // No logit is NaN or +infinity and at least one is finite; else the other members say nothing.
  bool valid = false;
};
LogitScan Scan(std::span<const float> logits);

// ln sum e^logit. REQUIRES a valid scan, whose max is `max`. Within 3e-7 of the exact value.
double LogSumExp(std::span<const float> logits, float max);

// Replaces each logit by e^((logit - max) / temperature): 1 for the most likely, 0 below e^-87.
// REQUIRES a valid scan, whose max is `max`, and temperature > 0.
void Weigh(std::span<float> logits, float max, float temperature);

double Sum(std::span<const float> values);

}  // namespace acuity::engine
