// Opens the input as a file of tensors or, if it begins with '{' and its fifth byte is not 0 (then
// it is no header length below 4 GiB), as an index; reads every tensor that there is.
#include <algorithm>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "engine/loader/safetensors.h"
#include "tests/fuzz/entry.h"

namespace acuity::engine {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void ReadEverything(const std::vector<SafetensorsTensor>& tensors) {
  std::vector<float> values;
  for (const SafetensorsTensor& tensor : tensors) {
    values.resize(static_cast<size_t>(tensor.elements));
    const absl::Status status = ReadAsFloat(tensor, 0, tensor.elements, values.data());
    Require(status.ok() == (tensor.type->to_float != nullptr));
  }
}

// Whatever parses lies inside the bytes, and is all of them but for the header.
void RunFile(std::span<const uint8_t> bytes) {
  const auto tensors = ParseSafetensors(bytes);
  if (!tensors.ok()) return;
  const uint8_t* const end = bytes.data() + bytes.size();
  size_t covered = 0;
  for (const SafetensorsTensor& tensor : *tensors) {
    Require(tensor.data.data() >= bytes.data() && tensor.data.data() + tensor.data.size() <= end);
    covered += tensor.data.size();
  }
  Require(covered < bytes.size());
  Require(std::is_sorted(tensors->begin(), tensors->end(),
                         [](const auto& a, const auto& b) { return a.name < b.name; }));
  ReadEverything(*tensors);
}

void RunIndex(std::span<const uint8_t> bytes) {
  size_t read = 0;
  const absl::Status status =
      ReadSafetensorsIndex(bytes, [&](const std::string& tensor, const std::string& file) {
        read += tensor.size() + file.size();
        return file == "stop" ? absl::CancelledError(tensor) : absl::OkStatus();
      });
  Require(read <= bytes.size());
  Require(status.ok() || absl::IsInvalidArgument(status) || absl::IsCancelled(status));
}

}  // namespace
}  // namespace acuity::engine

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  if (size > 0 && data[0] == '{' && (size < 8 || data[4] != 0)) {
    acuity::engine::RunIndex(bytes);
  } else {
    acuity::engine::RunFile(bytes);
  }
  return 0;
}
