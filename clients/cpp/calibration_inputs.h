// What `acuity calibrate` reads before it measures anything, checked: a calibration takes long, and
// must not fail at its end for what could be seen at its start.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cpp/calibration.h"
#include "clients/cpp/commands.h"

namespace acuity::client {

struct CalibrationInputs {
  int64_t trained_context = 0;  // the model's, or what the options say
  int64_t context = 0;          // of the sidecar: to_context, but at least the model's own
  Buckets buckets;
  // Of the first layer with full attention, in radians per position; empty: there is no rotary
  // embedding.
  std::vector<double> frequencies;
  std::vector<std::vector<int32_t>> texts, held_out;  // to_context tokens each
  std::string daemon;
  std::vector<std::string> daemon_arguments;  // all but addresses and --attention; model "model"
};

// An error names the option, the value and the limit.
absl::StatusOr<CalibrationInputs> OpenCalibrationInputs(const CalibrateOptions& options);

}  // namespace acuity::client
