// The GGUF container (versions 2 and 3, little-endian): metadata and a table of tensors. Knows
// nothing of models. Every count, length, offset and type in the bytes is distrusted.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loader/dequantise.h"

namespace acuity::engine {

// Limits, each far above any real file, and low enough that a parsed file costs a few MB besides
// its own bytes.
inline constexpr uint64_t kMaxGgufKeys = 4096;      // real files have < 100
inline constexpr uint64_t kMaxGgufTensors = 16384;  // 1024 layers of 9 tensors, and some
inline constexpr uint64_t kMaxGgufKeyBytes = 256;   // the format allows 65535; real keys have < 64
inline constexpr uint64_t kMaxGgufTensorNameBytes = 64;  // the format's own limit
inline constexpr uint64_t kMaxGgufDims = 4;              // the format's own limit
inline constexpr uint64_t kMinGgufAlignment = 8;         // the format's own limit
inline constexpr uint64_t kMaxGgufAlignment = 1 << 16;   // a large page; the default is 32
inline constexpr uint64_t kDefaultGgufAlignment = 32;

// Value types, numbered as in the file.
enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
std::string_view GgufTypeName(GgufType type);  // "uint32"

// One metadata value: a view into the file. `payload` holds the value, a string's bytes, or an
// array's elements (strings each behind their 64-bit length, all checked to lie inside).
struct GgufValue {
  GgufType type = GgufType::kUint8;
  GgufType element_type = GgufType::kUint8;  // of kArray
  uint64_t count = 1;                        // elements of kArray
  std::span<const uint8_t> payload;
};

struct GgufKeyValue {
  std::string_view key;
  GgufValue value;
};

// Dimensions as in the file, contiguous one first; all >= 1, and their product fits int64.
struct GgufTensor {
  std::string_view name;
  const TensorType* type = nullptr;
  int num_dims = 0;
  int64_t dims[kMaxGgufDims] = {1, 1, 1, 1};
  std::span<const uint8_t> data;  // exactly the tensor's bytes
};

// Views into the parsed bytes, which outlive it.
struct GgufFile {
  uint32_t version = 0;
  uint64_t alignment = kDefaultGgufAlignment;
  std::vector<GgufKeyValue> metadata;  // sorted by key, no duplicates
  std::vector<GgufTensor> tensors;     // sorted by name, no duplicates, no overlaps

  const GgufValue* FindValue(std::string_view key) const;     // null if absent
  const GgufTensor* FindTensor(std::string_view name) const;  // null if absent
};

// InvalidArgument names the field, its value and the limit it breaks. Reads no byte outside
// `bytes`, and allocates in proportion to the keys and tensors that are really there, never to a
// count that the file claims.
absl::StatusOr<GgufFile> ParseGguf(std::span<const uint8_t> bytes);

// Walks the strings of an array of strings that ParseGguf returned.
class GgufStringWalker {
 public:
  // REQUIRES: value is an array of strings.
  explicit GgufStringWalker(const GgufValue& value) : rest_(value.payload) {}
  // REQUIRES: called at most value.count times.
  std::string_view Next();

 private:
  std::span<const uint8_t> rest_;
};

// A name out of a file, fit for an error message: quoted, escaped and cut after 80 bytes.
std::string QuoteForError(std::string_view name);

}  // namespace acuity::engine
