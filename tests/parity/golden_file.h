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

// The folder of the goldens: the working directory is the repository's root.
inline constexpr const char* kGoldenFolder = "tests/parity/golden/";

// `name` in that folder, compressed or not.
inline std::string ReadGoldenBytes(const std::string& name) {
  const std::string path = kGoldenFolder + name;
  gzFile file = gzopen(path.c_str(), "rb");
  EXPECT_NE(file, nullptr) << path;
  if (file == nullptr) return {};
  std::string text;
  char buffer[1 << 16];
  for (int read; (read = gzread(file, buffer, sizeof buffer)) > 0;) text.append(buffer, read);
  gzclose(file);
  return text;
}

inline nlohmann::json ReadGolden(const std::string& name) {
  return nlohmann::json::parse(ReadGoldenBytes(name));
}

}  // namespace acuity::engine
