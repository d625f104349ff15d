// What the needle evaluations make of their prompts: how many needles were found, and how much of
// each head's attention they had.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "clients/cpp/eval_results.h"
#include "clients/cpp/eval_run.h"

namespace acuity::client {

// Of one head, means over the rows of a prompt that look for a needle.
struct HeadAttention {
  Mean needle;  // the probability of the needle's tokens
  Mean normalized_entropy, effective_context, max_probability;
};

// Of one prompt.
struct NeedleOutcome {
  int asked = 0, found = 0;
  std::vector<HeadAttention> heads;  // [layer * num_heads + head], all layers

  // `report` is of a request that watches the needle, and that alone.
  void AddSpans(const v1::SpanReport& report);
};

using NeedleOutcomes = std::vector<std::map<int, std::vector<NeedleOutcome>>>;  // [model][length]

// The curves over the prompts' length, accuracy first, and a line for people about each model.
// outcomes: [arm]; every length has a prompt, and every prompt was watched.
void AddNeedleCurves(const std::vector<Arm>& arms, const std::vector<NeedleOutcomes>& outcomes,
                     Results* results);

// For Results::bars.
inline constexpr char kNeedleBars[] =
    "95 % by Wilson for accuracy, else 1.96 standard errors over prompts; of several models the "
    "lowest and the highest";

}  // namespace acuity::client
