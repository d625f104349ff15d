#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace acuity::engine {

StopMatcher::Released StopMatcher::Push(std::string_view text) {
  if (stops_->empty()) return {std::string(text), false};
  held_ += text;
  size_t first = std::string::npos;
  for (const std::string& stop : *stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    Released released{held_.substr(0, first), true};
    held_.clear();
    return released;
  }
  // Keep the longest tail that begins a stop string.
  size_t keep = 0;
  for (const std::string& stop : *stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (std::string_view(held_).substr(held_.size() - length) ==
          std::string_view(stop).substr(0, length)) {
        keep = length;
      }
    }
  }
  Released released{held_.substr(0, held_.size() - keep), false};
  held_.erase(0, held_.size() - keep);
  return released;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace acuity::engine
