// What the smoke tests of the ordinary suite share: seeds from a folder, one run, and changes to
// text, the same in every run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/entry.h"

namespace acuity::engine::testing {

// In a heap block of exactly this size: ASan sees a byte too far.
template <typename Bytes>  // a string, or a vector of bytes
void RunOnce(const Bytes& bytes) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), copy.get());
  ASSERT_EQ(LLVMFuzzerTestOneInput(copy.get(), bytes.size()), 0);
}

// The files of a folder, by name.
inline std::vector<std::string> ReadFolder(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> files;
  for (const std::filesystem::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return files;
}

// What breaks JSON and its numbers.
inline constexpr std::string_view kJsonPieces[] = {"null",   "-1",  "1e999", "99999999999999999999",
                                                   "524288", "0.5", "1e-45", "true",
                                                   "{}",     "[]",  "\"\"",  "\\u0000",
                                                   "\xFF",   ",",   "}",     ":"};

class TextMutator {
 public:
  explicit TextMutator(std::span<const std::string_view> pieces) : pieces_(pieces) {}

  size_t Below(size_t limit) { return random_() % limit; }

  // One to four changes: a byte, a stretch removed or copied, a piece put in or in its place.
  std::string Mutate(std::string text) {
    for (size_t left = 1 + Below(4); left > 0; --left) {
      const size_t at = Below(text.size() + 1), length = Below(24);
      const std::string_view piece = pieces_[Below(pieces_.size())];
      switch (Below(5)) {
        case 0:
          if (at < text.size()) text[at] = static_cast<char>(Below(256));
          break;
        case 1:
          text.erase(at, length);
          break;
        case 2:
          text.insert(at, text.substr(Below(text.size() + 1), length));
          break;
        case 3:
          text.insert(at, piece);
          break;
        default:
          text.replace(at, std::min(length, text.size() - at), piece);
      }
    }
    return text;
  }

 private:
  const std::span<const std::string_view> pieces_;
  std::mt19937_64 random_{1};
};

}  // namespace acuity::engine::testing
