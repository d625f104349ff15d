// Scores that an interrupted calibration has had, so that the next one goes on from there.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "acuity/v1/acuity.pb.h"
#include "clients/cpp/json.h"

namespace acuity::client {

// A folder with a file for each score. Not thread-safe.
class ScoreCache {
 public:
  // `folder`: "" keeps nothing. `model`: a path; a model that was written since has other scores.
  ScoreCache(std::string folder, const std::string& model);

  // Of these tokens by the model with this sidecar, if it is there and whole.
  std::optional<v1::ScoreResponse> Find(const Json& sidecar, std::span<const int32_t> tokens,
                                        bool heads) const;
  // Does nothing if it cannot be written: the score is then made again.
  void Keep(const Json& sidecar, std::span<const int32_t> tokens, bool heads,
            const v1::ScoreResponse& response) const;
  // Once the calibration is complete.
  void Clear() const;

 private:
  std::string Path(const Json& sidecar, std::span<const int32_t> tokens, bool heads) const;

  const std::string folder_;
  std::string model_;  // path and time
};

}  // namespace acuity::client
