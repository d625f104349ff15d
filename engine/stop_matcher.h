// Finds stop strings in streamed text, holding back what may be the beginning of one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace acuity::engine {

// One sample's. Not thread-safe. Holds back at most the longest stop string less one byte.
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>* stops) : stops_(stops) {}

  struct Released {
    std::string text;      // never part of a stop string
    bool stopped = false;  // a stop string was completed; it and what follows are dropped
  };
  Released Push(std::string_view text);
  // What was held back, at an end that is not a stop string's.
  std::string Finish();

 private:
  const std::vector<std::string>* stops_;  // of the request, which outlives this
  std::string held_;
};

}  // namespace acuity::engine
