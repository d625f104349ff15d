// Which experts compute which rows of a step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/loader/model_spec.h"

namespace acuity::engine {

// Assigns each row to `per_token` experts and sorts the assignments ("slots") by expert, so that
// every expert is one GEMM. A row's experts, their order and their weights depend on its own logits
// only. Reused from step to step: allocates nothing once `max_rows` were reserved.
class ExpertRouter {
 public:
  ExpertRouter() = default;
  ExpertRouter(const ExpertSpec& spec, int64_t max_rows);

  // logits: [rows, count]; of equal ones the lower expert wins.
  void Route(const float* logits, int64_t rows);

  // The rows that an expert computes, ascending; they are slots first_slot(expert), ... .
  std::span<const int32_t> rows(int64_t expert) const {
    return {rows_.data() + begin_[expert],
            static_cast<size_t>(begin_[expert + 1] - begin_[expert])};
  }
  int64_t first_slot(int64_t expert) const { return begin_[expert]; }

  struct Choice {
    int32_t expert;
    int32_t slot;
    float weight;  // of the expert's output
  };
  // The row's choices, likeliest first.
  std::span<const Choice> choices(int64_t row) const {
    return {choices_.data() + row * spec_.per_token, static_cast<size_t>(spec_.per_token)};
  }

 private:
  void ChooseFor(const float* logits, Choice* choices);

  ExpertSpec spec_;
  std::vector<int32_t> begin_;   // [count + 1] first slot of each expert
  std::vector<int32_t> rows_;    // [rows * per_token] the slots' rows
  std::vector<Choice> choices_;  // [rows, per_token]
};

}  // namespace acuity::engine
