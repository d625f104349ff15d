// Writes safetensors files for tests, valid ones and damaged ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace acuity::engine::testing {

using Bytes = std::vector<uint8_t>;

// The header's length, the header as it is given, and `data_bytes` bytes that count up from 0.
inline Bytes Safetensors(std::string_view header, uint64_t data_bytes) {
  Bytes bytes(8 + header.size() + data_bytes);
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(uint64_t{header.size()} >> (8 * i));
  std::copy(header.begin(), header.end(), bytes.begin() + 8);
  for (uint64_t i = 0; i < data_bytes; ++i) {
    bytes[8 + header.size() + i] = static_cast<uint8_t>(i);
  }
  return bytes;
}

// "name":{"dtype":...}
inline std::string TensorText(const std::string& name, const std::string& dtype,
                              const std::string& shape, uint64_t begin, uint64_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape +
         "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

// A header of these tensors.
inline std::string HeaderText(const std::vector<std::string>& tensors) {
  std::string text = "{";
  for (const std::string& tensor : tensors) {
    if (text.size() > 1) text += ",";
    text += tensor;
  }
  text += "}";
  return text;
}

// Two tensors of 8 bytes each: a is F32 [2], b is BF16 [2, 2].
inline Bytes TwoTensors() {
  return Safetensors(
      HeaderText({TensorText("a", "F32", "2", 0, 8), TensorText("b", "BF16", "2,2", 8, 16)}), 16);
}

// A directory that is removed with it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "acuity_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

  void Write(std::string_view name, std::string_view text) const {
    std::ofstream(*this / name, std::ios::binary) << text;
  }
  void Write(std::string_view name, const Bytes& bytes) const {
    Write(name, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }

 private:
  std::string path_;
};

}  // namespace acuity::engine::testing
