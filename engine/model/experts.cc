#include "engine/model/experts.h"

#include <algorithm>
#include <cmath>

namespace acuity::engine {

ExpertRouter::ExpertRouter(const ExpertSpec& spec, int64_t max_rows)
    : spec_(spec),
      begin_(static_cast<size_t>(spec.count) + 1),
      rows_(static_cast<size_t>(max_rows * spec.per_token)),
      choices_(static_cast<size_t>(max_rows * spec.per_token)) {}

// A softmax over the chosen logits, or over all of them.
void ExpertRouter::ChooseFor(const float* logits, Choice* choices) {
  int chosen = 0;
  for (int32_t expert = 0; expert < spec_.count; ++expert) {
    int at = chosen;
    while (at > 0 && logits[expert] > logits[choices[at - 1].expert]) --at;
    if (at == spec_.per_token) continue;
    chosen = std::min(chosen + 1, spec_.per_token);
    for (int i = chosen - 1; i > at; --i) choices[i] = choices[i - 1];
    choices[at] = {expert, 0, 0};
  }
  const float highest = logits[choices[0].expert];
  float sum = 0;
  for (int i = 0; i < spec_.per_token; ++i) {
    choices[i].weight = std::exp(logits[choices[i].expert] - highest);
    sum += choices[i].weight;
  }
  if (!spec_.normalised) {
    sum = 0;
    for (int32_t expert = 0; expert < spec_.count; ++expert) {
      sum += std::exp(logits[expert] - highest);
    }
  }
  for (int i = 0; i < spec_.per_token; ++i) choices[i].weight /= sum;
}

void ExpertRouter::Route(const float* logits, int64_t rows) {
  const int64_t assignments = rows * spec_.per_token;
  std::fill(begin_.begin(), begin_.end(), 0);
  for (int64_t row = 0; row < rows; ++row) {
    ChooseFor(logits + row * spec_.count, &choices_[static_cast<size_t>(row * spec_.per_token)]);
  }
  // A counting sort: begin_[e + 1] counts, then is where e's slots end.
  for (int64_t i = 0; i < assignments; ++i) {
    ++begin_[static_cast<size_t>(choices_[static_cast<size_t>(i)].expert) + 1];
  }
  for (size_t e = 1; e < begin_.size(); ++e) begin_[e] += begin_[e - 1];
  for (int64_t i = 0; i < assignments; ++i) {
    Choice& choice = choices_[static_cast<size_t>(i)];
    choice.slot = begin_[static_cast<size_t>(choice.expert)]++;
    rows_[static_cast<size_t>(choice.slot)] = static_cast<int32_t>(i / spec_.per_token);
  }
  // Each begin_[e] has moved to its end, which is where e + 1 begins.
  for (size_t e = begin_.size() - 1; e > 0; --e) begin_[e] = begin_[e - 1];
  begin_[0] = 0;
}

}  // namespace acuity::engine
