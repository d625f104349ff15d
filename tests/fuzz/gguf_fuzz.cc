// Opens the input as a GGUF file and, if it is a model, reads every row of every tensor.
#include <cstdlib>
#include <memory>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "engine/loader/gguf.h"
#include "engine/loader/gguf_checkpoint.h"
#include "tests/fuzz/entry.h"

namespace acuity::engine {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

// Whatever parses lies inside the bytes.
void CheckViews(const GgufFile& file, std::span<const uint8_t> bytes) {
  const uint8_t* const end = bytes.data() + bytes.size();
  for (const GgufKeyValue& entry : file.metadata) {
    const std::span<const uint8_t> payload = entry.value.payload;
    if (payload.empty()) continue;
    Require(payload.data() >= bytes.data() && payload.data() + payload.size() <= end);
  }
  for (const GgufTensor& tensor : file.tensors) {
    Require(!tensor.data.empty());
    Require(tensor.data.data() >= bytes.data() && tensor.data.data() + tensor.data.size() <= end);
  }
}

void ReadEverything(const Checkpoint& checkpoint) {
  std::vector<float> row;
  for (const Checkpoint::TensorInfo& info : checkpoint.tensors()) {
    Require(checkpoint.Find(info.name) == &info);
    row.resize(static_cast<size_t>(info.columns));
    for (int64_t i = 0; i < info.rows; ++i) {
      Require(checkpoint.ReadRows(info, i, 1, row.data()).ok());
    }
  }
}

}  // namespace
}  // namespace acuity::engine

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace engine = acuity::engine;
  const std::span<const uint8_t> bytes(data, size);
  const absl::StatusOr<engine::GgufFile> file = engine::ParseGguf(bytes);
  if (file.ok()) engine::CheckViews(*file, bytes);
  const absl::StatusOr<std::unique_ptr<engine::Checkpoint>> checkpoint = engine::OpenGguf(bytes);
  if (checkpoint.ok()) engine::ReadEverything(**checkpoint);
  engine::Require(file.ok() || !checkpoint.ok());
  return 0;
}
