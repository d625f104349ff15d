// What a damaged GGUF is refused with.
#pragma once

#include <gmock/gmock.h>

#include <memory>
#include <string>

#include "engine/loader/gguf_checkpoint.h"
#include "tests/engine/loader/gguf_builder.h"

namespace acuity::engine::testing {

// The error of opening it as a checkpoint, which must be InvalidArgument; "no error" if there is
// none.
inline std::string CheckpointError(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenGguf(bytes);
  if (checkpoint.ok()) return "no error";
  EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(checkpoint.status().message());
}

// A message that has all of these in it.
template <typename... Parts>
::testing::Matcher<std::string> Says(const Parts&... parts) {
  return ::testing::AllOf(::testing::HasSubstr(parts)...);
}

}  // namespace acuity::engine::testing
