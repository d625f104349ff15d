// Building and passing on absl::Status. For sources only: no header of ours includes this.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace acuity::engine {

// Abseil's string_view is a type of its own where Abseil was built as C++14 (Debian): neither
// converts to the other.
inline absl::string_view ToAbseil(std::string_view text) { return {text.data(), text.size()}; }
template <typename T>
const T& ToAbseil(const T& value) {
  return value;
}

// absl::StrCat that takes std::string_view whatever Abseil was built with.
template <typename... Parts>
std::string Concat(const Parts&... parts) {
  return absl::StrCat(ToAbseil(parts)...);
}

template <typename... Parts>
absl::Status InvalidArgument(const Parts&... parts) {
  return absl::InvalidArgumentError(Concat(parts...));
}

// `status` with the name of a file in front of its message.
inline absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace acuity::engine

// Returns from the enclosing function if the absl::Status is not OK.
#define ACUITY_RETURN_IF_ERROR(expression)                                  \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

// ACUITY_ASSIGN_OR_RETURN(const int x, F()): declares or assigns the value of an absl::StatusOr.
#define ACUITY_ASSIGN_OR_RETURN(target, expression) \
  ACUITY_ASSIGN_OR_RETURN_(ACUITY_JOIN_(status_or_, __LINE__), target, expression)
#define ACUITY_ASSIGN_OR_RETURN_(result, target, expression) \
  auto result = (expression);                                \
  if (!result.ok()) return result.status();                  \
  target = std::move(*result)
#define ACUITY_JOIN_(a, b) ACUITY_JOIN_INNER_(a, b)
#define ACUITY_JOIN_INNER_(a, b) a##b
