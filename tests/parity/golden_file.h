// The goldens of this folder, and the model they were made from.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

namespace acuity::engine {

inline std::string DefaultModelPath() {
  const char* deps = std::getenv("ACUITY_DEPS");
  const char* home = std::getenv("HOME");
  const std::string folder =
      deps != nullptr ? deps : std::string(home != nullptr ? home : "") + "/.cache/acuity";
  return folder + "/models/smollm2-135m-instruct-q4_1.gguf";
}

// `name` in tests/parity/golden, compressed or not; the working directory is the repository's root.
inline nlohmann::json ReadGolden(const std::string& name) {
  const std::string path = "tests/parity/golden/" + name;
  gzFile file = gzopen(path.c_str(), "rb");
  EXPECT_NE(file, nullptr) << path;
  if (file == nullptr) return {};
  std::string text;
  char buffer[1 << 16];
  for (int read; (read = gzread(file, buffer, sizeof buffer)) > 0;) text.append(buffer, read);
  gzclose(file);
  return nlohmann::json::parse(text);
}

}  // namespace acuity::engine
