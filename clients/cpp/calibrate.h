// `acuity calibrate MODEL`: chooses a rotary extension and a sharpening per head for a model that
// is to serve more tokens than it was trained to. docs/calibration.md says how, and what it gained.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cpp/calibration.h"
#include "clients/cpp/commands.h"
#include "clients/cpp/json.h"

namespace acuity::client {

// One candidate, measured: every text scored by a daemon that served the model with this sidecar.
struct CalibrationPass {
  std::string name;
  Json sidecar;
  std::vector<std::vector<double>> logprobs;      // [texts][tokens]
  std::vector<std::vector<Entropies>> entropies;  // [layers][heads], mean over texts
  double within = 0, beyond = 0;  // mean loss over texts, up to the trained length and past it
  double seconds = 0;
};

// The passes, side by side: loss by position. `within` and `beyond` come last.
std::string LossTable(const std::vector<const CalibrationPass*>& passes, int64_t trained);
Json ToJson(const CalibrationPass& pass, int64_t trained);

}  // namespace acuity::client
