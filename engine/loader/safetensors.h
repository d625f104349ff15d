// The safetensors container: one file, and a model directory's set of them. Knows nothing of
// models. Every length, offset, name and type in the bytes is distrusted. Format:
// https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header, the data).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/loader/mapped_file.h"

namespace acuity::engine {

// Limits, each far above any real file, and low enough that a parsed file costs less than 64 MB
// besides its own bytes.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;  // the format's own limit
inline constexpr uint64_t kMaxSafetensors = 1 << 17;       // per set; the largest real one: 92,000
inline constexpr uint64_t kMaxSafetensorsNameBytes = 256;  // of a tensor; real ones have < 128
inline constexpr uint64_t kMaxSafetensorsDims = 8;         // real ones have <= 5
inline constexpr uint64_t kMaxSafetensorsMetadata = 4096;  // keys of __metadata__
inline constexpr uint64_t kMaxSafetensorsTokenBytes = 4 << 20;  // one string, number or gap of JSON
inline constexpr uint64_t kMaxSafetensorsShards = 4096;         // real sets have < 200
inline constexpr uint64_t kMaxSafetensorsIndexBytes = 16 << 20;  // the largest real one: 9 MB

// One storage type.
struct SafetensorsType {
  std::string_view name;  // "BF16", as in the file
  int bits;               // of one element
  // Writes `count` floats; null if Acuity does not read weights of this type (integers, bool). The
  // nearest float of every value: exact but for F64. Any bits are valid input.
  void (*to_float)(const uint8_t* elements, int64_t count, float* out);
};

// Every type of the format: BOOL, U8, I8, F8_E5M2, F8_E4M3, I16, U16, F16, BF16, I32, U32, F32,
// I64, U64, F64, and those of fewer users.
std::span<const SafetensorsType> SafetensorsTypes();

struct SafetensorsTensor {
  std::string name;
  const SafetensorsType* type = nullptr;   // lives for ever
  int num_dims = 0;                        // 0: a scalar, of one element
  int64_t dims[kMaxSafetensorsDims] = {};  // outermost first, as in the file; a dimension may be 0
  int64_t elements = 0;                    // the product of the dimensions
  int file = 0;                            // index into SafetensorsSet::files()
  std::span<const uint8_t> data;           // exactly the tensor's bytes, at any alignment

  std::span<const int64_t> shape() const { return {dims, static_cast<size_t>(num_dims)}; }
};

// The tensors of one file, sorted by name: views into `bytes`, which outlive them. InvalidArgument
// names the tensor, the field, its value and the limit or rule that it breaks: header length, JSON,
// duplicate or unknown keys, a type that the format has not, a product that overflows, a length
// that is not the shape's, data that overlap, leave a hole or do not end where the file ends. Reads
// no byte outside `bytes`, and allocates in proportion to the tensors that are really there.
absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(std::span<const uint8_t> bytes);

// Writes elements [begin, begin + count) of `tensor`, in row-major order, to out [count].
// InvalidArgument if its type cannot be read as float, or if the range is not inside. Thread-safe.
absl::Status ReadAsFloat(const SafetensorsTensor& tensor, int64_t begin, int64_t count, float* out);

// Calls `on_entry` for each entry of "weight_map" in an index, JSON text: the tensor's name and the
// file that has it, both unchecked; the first error ends it. InvalidArgument for other damage; what
// else the index holds is skipped.
absl::Status ReadSafetensorsIndex(
    std::span<const uint8_t> json,
    const std::function<absl::Status(const std::string& tensor, const std::string& file)>&
        on_entry);

// All tensors of a model directory. Immutable after Open; thread-safe. The files stay mapped while
// it lives, and must not be shrunk meanwhile (see MappedFile).
class SafetensorsSet {
 public:
  // Reads DIRECTORY/model.safetensors or else the files that
  // DIRECTORY/model.safetensors.index.json names in "weight_map"; other files are never opened.
  // NotFound if there is neither, and says so if there are only pickle files (*.bin, *.pt, *.pth),
  // which are never read. InvalidArgument, in front of it the file's path, if a file is damaged
  // (see ParseSafetensors and
  // OpenModelFile), if a tensor is not in the file that the index says,
  // or if a file has a tensor that the index has not. Allocates less than 64 MB.
  static absl::StatusOr<std::unique_ptr<SafetensorsSet>> Open(const std::string& directory);

  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }  // sorted by name
  const SafetensorsTensor* Find(std::string_view name) const;                 // null if absent
  const std::vector<std::string>& files() const { return files_; }            // paths
  uint64_t file_bytes() const { return file_bytes_; }  // of all tensor files together

 private:
  SafetensorsSet() = default;
  absl::Status AddFile(const std::string& directory, std::string_view name);
  absl::Status OpenIndexed(const std::string& directory, std::span<const uint8_t> index);
  absl::Status SortByName();
  absl::Status CheckIndex(const std::string& directory, std::span<const uint8_t> index) const;

  std::vector<std::string> files_;
  std::vector<std::unique_ptr<MappedFile>> mappings_;  // parallel to files_
  std::vector<SafetensorsTensor> tensors_;
  uint64_t file_bytes_ = 0;
};

}  // namespace acuity::engine
