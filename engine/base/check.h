// For our own bugs only: what a caller, a file or the environment can cause is an absl::Status
// instead.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace acuity::engine {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace acuity::engine

#define ACUITY_CHECK(condition)                        \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::acuity::engine::CheckFailed(#condition, __FILE__, __LINE__))
