// The architectures that are read from Hugging Face directories: for each, what its config.json
// means and what its tensors are called. Adding one is a reader and a row here, and a row in
// tests/parity/make_architectures.py.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/hf_config.h"
#include "engine/loader/hf_tensors.h"
#include "engine/loader/model_spec.h"

namespace acuity::engine {

struct HfArchitecture {
  std::string_view model_type;  // as config.json says
  // Fills everything but architecture and what the tensors say.
  absl::Status (*read)(const HfConfig& config, ModelSpec* spec);
  std::span<const HfTensorRule> rules;
  std::string_view base = "model.";  // see HfTensorMap
};

std::span<const HfArchitecture> HfArchitectures();

struct HfModel {
  const HfArchitecture* architecture = nullptr;
  ModelSpec spec;  // all but display_name and what the tensors say
};
// Reads a config.json. InvalidArgument if its model_type is not known, or any key not understood.
absl::StatusOr<HfModel> ReadHfModel(std::string_view config_json);

}  // namespace acuity::engine
