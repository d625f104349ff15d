#include "engine/loader/gguf.h"

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr std::string_view kTypeNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                           "int32",  "float32", "bool",   "string", "array",
                                           "uint64", "int64",   "float64"};
// Bytes of one value; a string's is the least it takes (its length), an array's its type and count.
constexpr uint64_t kTypeBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
constexpr uint32_t kNumTypes = std::size(kTypeNames);
// The shortest key (length, one byte, type, one byte) and tensor (length, one byte, dims, type,
// offset).
constexpr uint64_t kMinKeyValueBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("GGUF: ", parts...);
}

std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A position in the file. Every read says what it was reading when it runs out of bytes.
class Cursor {
 public:
  explicit Cursor(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  template <typename T>
  absl::Status Read(std::string_view what, T* value) {
    std::span<const uint8_t> bytes;
    ACUITY_RETURN_IF_ERROR(Take(what, sizeof(T), &bytes));
    std::memcpy(value, bytes.data(), sizeof(T));
    return absl::OkStatus();
  }

  absl::Status Take(std::string_view what, uint64_t count, std::span<const uint8_t>* bytes) {
    if (count > remaining()) {
      return Bad(what, " at byte ", position_, " takes ", count, " bytes, but only ", remaining(),
                 " of the file's ", bytes_.size(), " are left");
    }
    *bytes = bytes_.subspan(position_, count);
    position_ += count;
    return absl::OkStatus();
  }

  absl::Status ReadString(std::string_view what, uint64_t max_bytes, std::string_view* text) {
    uint64_t length = 0;
    ACUITY_RETURN_IF_ERROR(Read(what, &length));
    if (length > max_bytes) {
      return Bad(what, " at byte ", position_, " has a length of ", length,
                 " bytes, more than the limit of ", max_bytes);
    }
    std::span<const uint8_t> bytes;
    ACUITY_RETURN_IF_ERROR(Take(what, length, &bytes));
    *text = AsText(bytes);
    return absl::OkStatus();
  }

 private:
  const std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
};

absl::Status ReadType(std::string_view what, Cursor* cursor, GgufType* type) {
  uint32_t number = 0;
  ACUITY_RETURN_IF_ERROR(cursor->Read(what, &number));
  if (number >= kNumTypes) {
    return Bad(what, " has value type ", number, "; the last one known is ", kNumTypes - 1);
  }
  *type = static_cast<GgufType>(number);
  return absl::OkStatus();
}

absl::Status CheckBools(std::string_view what, std::span<const uint8_t> payload) {
  for (const uint8_t byte : payload) {
    if (byte > 1) return Bad(what, " has the bool value ", byte, "; it must be 0 or 1");
  }
  return absl::OkStatus();
}

absl::Status ReadArray(std::string_view what, Cursor* cursor, GgufValue* value) {
  ACUITY_RETURN_IF_ERROR(ReadType(what, cursor, &value->element_type));
  ACUITY_RETURN_IF_ERROR(cursor->Read(what, &value->count));
  if (value->element_type == GgufType::kArray) return Bad(what, " is an array of arrays");
  const uint64_t element_bytes = kTypeBytes[static_cast<uint32_t>(value->element_type)];
  if (value->count > cursor->remaining() / element_bytes) {
    return Bad(what, " has ", value->count, " elements of at least ", element_bytes,
               " bytes, but only ", cursor->remaining(), " bytes of the file are left");
  }
  if (value->element_type != GgufType::kString) {
    ACUITY_RETURN_IF_ERROR(cursor->Take(what, value->count * element_bytes, &value->payload));
    return value->element_type == GgufType::kBool ? CheckBools(what, value->payload)
                                                  : absl::OkStatus();
  }
  Cursor walker = *cursor;
  for (uint64_t i = 0; i < value->count; ++i) {
    std::string_view ignored;
    ACUITY_RETURN_IF_ERROR(walker.ReadString(what, walker.remaining(), &ignored));
  }
  return cursor->Take(what, walker.position() - cursor->position(), &value->payload);
}

absl::Status ReadValue(std::string_view what, Cursor* cursor, GgufValue* value) {
  ACUITY_RETURN_IF_ERROR(ReadType(what, cursor, &value->type));
  if (value->type == GgufType::kArray) return ReadArray(what, cursor, value);
  if (value->type == GgufType::kString) {
    std::string_view text;
    ACUITY_RETURN_IF_ERROR(cursor->ReadString(what, cursor->remaining(), &text));
    value->payload = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
    return absl::OkStatus();
  }
  const uint64_t bytes = kTypeBytes[static_cast<uint32_t>(value->type)];
  ACUITY_RETURN_IF_ERROR(cursor->Take(what, bytes, &value->payload));
  return value->type == GgufType::kBool ? CheckBools(what, value->payload) : absl::OkStatus();
}

struct Header {
  uint64_t num_tensors = 0;
  uint64_t num_keys = 0;
};

absl::Status CheckCount(std::string_view what, uint64_t count, uint64_t limit, uint64_t min_bytes,
                        uint64_t remaining) {
  if (count > limit) return Bad(what, " is ", count, ", more than the limit of ", limit);
  if (count > remaining / min_bytes) {
    return Bad(what, " is ", count, ", but only ", remaining, " bytes of the file are left for it");
  }
  return absl::OkStatus();
}

absl::Status ReadHeader(Cursor* cursor, uint32_t* version, Header* header) {
  std::span<const uint8_t> magic;
  if (!cursor->Take("magic", 4, &magic).ok() || AsText(magic) != "GGUF") {
    return Bad("the file does not start with \"GGUF\"");
  }
  ACUITY_RETURN_IF_ERROR(cursor->Read("version", version));
  if (*version != 2 && *version != 3) {
    const bool swapped = (*version & 0xffffu) == 0 && *version != 0;
    return Bad("version ", *version, " is not supported", swapped ? " (a big-endian file?)" : "",
               "; supported: 2, 3");
  }
  ACUITY_RETURN_IF_ERROR(cursor->Read("tensor count", &header->num_tensors));
  ACUITY_RETURN_IF_ERROR(cursor->Read("key count", &header->num_keys));
  ACUITY_RETURN_IF_ERROR(CheckCount("key count", header->num_keys, kMaxGgufKeys, kMinKeyValueBytes,
                                    cursor->remaining()));
  return CheckCount("tensor count", header->num_tensors, kMaxGgufTensors, kMinTensorInfoBytes,
                    cursor->remaining());
}

absl::Status ReadMetadata(uint64_t count, Cursor* cursor, std::vector<GgufKeyValue>* metadata) {
  metadata->reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    GgufKeyValue entry;
    const std::string what = Concat("key ", i, " of ", count);
    ACUITY_RETURN_IF_ERROR(cursor->ReadString(what, kMaxGgufKeyBytes, &entry.key));
    if (entry.key.empty()) return Bad(what, " is empty");
    ACUITY_RETURN_IF_ERROR(
        ReadValue(Concat("key ", QuoteForError(entry.key)), cursor, &entry.value));
    metadata->push_back(entry);
  }
  std::sort(metadata->begin(), metadata->end(),
            [](const GgufKeyValue& a, const GgufKeyValue& b) { return a.key < b.key; });
  const auto twice = std::adjacent_find(
      metadata->begin(), metadata->end(),
      [](const GgufKeyValue& a, const GgufKeyValue& b) { return a.key == b.key; });
  if (twice != metadata->end()) return Bad("key ", QuoteForError(twice->key), " occurs twice");
  return absl::OkStatus();
}

absl::Status ReadAlignment(GgufFile* file) {
  const GgufValue* value = file->FindValue("general.alignment");
  if (value == nullptr) return absl::OkStatus();
  if (value->type != GgufType::kUint32) {
    return Bad("general.alignment is of type ", GgufTypeName(value->type), "; it must be uint32");
  }
  uint32_t alignment = 0;
  std::memcpy(&alignment, value->payload.data(), sizeof(alignment));
  if (alignment < kMinGgufAlignment || alignment > kMaxGgufAlignment ||
      (alignment & (alignment - 1)) != 0) {
    return Bad("general.alignment is ", alignment, "; it must be a power of two from ",
               kMinGgufAlignment, " to ", kMaxGgufAlignment);
  }
  file->alignment = alignment;
  return absl::OkStatus();
}

// A tensor and where it says its data lies, relative to the data section.
struct TensorEntry {
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

std::string SupportedTypesText() {
  std::string text;
  for (const TensorType& type : SupportedTensorTypes()) {
    text += Concat(text.empty() ? "" : ", ", type.name, " (", type.id, ")");
  }
  return text;
}

absl::Status ReadDims(std::string_view what, Cursor* cursor, GgufTensor* tensor,
                      int64_t* elements) {
  uint32_t num_dims = 0;
  ACUITY_RETURN_IF_ERROR(cursor->Read(what, &num_dims));
  if (num_dims < 1 || num_dims > kMaxGgufDims) {
    return Bad(what, " has ", num_dims, " dimensions; it must have 1 to ", kMaxGgufDims);
  }
  tensor->num_dims = static_cast<int>(num_dims);
  *elements = 1;
  for (uint32_t i = 0; i < num_dims; ++i) {
    uint64_t dim = 0;
    ACUITY_RETURN_IF_ERROR(cursor->Read(what, &dim));
    if (dim == 0 || dim > static_cast<uint64_t>(INT64_MAX)) {
      return Bad(what, " has dimension ", i, " = ", dim, "; it must be from 1 to ", INT64_MAX);
    }
    tensor->dims[i] = static_cast<int64_t>(dim);
    if (__builtin_mul_overflow(*elements, tensor->dims[i], elements)) {
      return Bad(what, " has more than ", INT64_MAX, " elements (dimension ", i, " = ", dim, ")");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTensorInfo(uint64_t index, uint64_t count, Cursor* cursor, TensorEntry* entry) {
  GgufTensor* tensor = &entry->tensor;
  ACUITY_RETURN_IF_ERROR(cursor->ReadString(Concat("name of tensor ", index, " of ", count),
                                            kMaxGgufTensorNameBytes, &tensor->name));
  if (tensor->name.empty()) return Bad("the name of tensor ", index, " of ", count, " is empty");
  const std::string what = Concat("tensor ", QuoteForError(tensor->name));
  int64_t elements = 0;
  ACUITY_RETURN_IF_ERROR(ReadDims(what, cursor, tensor, &elements));
  uint32_t type = 0;
  ACUITY_RETURN_IF_ERROR(cursor->Read(what, &type));
  ACUITY_RETURN_IF_ERROR(cursor->Read(what, &entry->offset));
  tensor->type = FindTensorType(type);
  if (tensor->type == nullptr) {
    return Bad(what, " has type ", type,
               ", which is not supported; supported: ", SupportedTypesText());
  }
  const int64_t block = tensor->type->elements_per_block;
  if (tensor->dims[0] % block != 0) {
    return Bad(what, " has rows of ", tensor->dims[0], " elements; ", tensor->type->name,
               " needs a multiple of ", block);
  }
  if (__builtin_mul_overflow(static_cast<uint64_t>(elements / block),
                             static_cast<uint64_t>(tensor->type->bytes_per_block), &entry->bytes)) {
    return Bad(what, " of ", elements, " elements has more than ", UINT64_MAX, " bytes");
  }
  return absl::OkStatus();
}

// Points each tensor at its data, which must lie inside `section` and belong to no other tensor.
absl::Status PlaceTensors(std::span<const uint8_t> section, uint64_t alignment,
                          std::vector<TensorEntry>* entries) {
  std::sort(entries->begin(), entries->end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.offset < b.offset; });
  uint64_t end_of_previous = 0;
  std::string_view previous;
  for (TensorEntry& entry : *entries) {
    const std::string what = Concat("tensor ", QuoteForError(entry.tensor.name));
    if (entry.offset % alignment != 0) {
      return Bad(what, " has offset ", entry.offset, ", not a multiple of the alignment ",
                 alignment);
    }
    uint64_t end = 0;
    if (__builtin_add_overflow(entry.offset, entry.bytes, &end) || end > section.size()) {
      return Bad(what, " has ", entry.bytes, " bytes at offset ", entry.offset,
                 ", beyond the data section's ", section.size(), " bytes");
    }
    if (entry.offset < end_of_previous) {
      return Bad(what, " at offset ", entry.offset, " overlaps tensor ", QuoteForError(previous),
                 ", which ends at ", end_of_previous);
    }
    entry.tensor.data = section.subspan(entry.offset, entry.bytes);
    end_of_previous = end;
    previous = entry.tensor.name;
  }
  return absl::OkStatus();
}

absl::Status ReadTensors(uint64_t count, std::span<const uint8_t> bytes, Cursor* cursor,
                         GgufFile* file) {
  std::vector<TensorEntry> entries(count);
  for (uint64_t i = 0; i < count; ++i) {
    ACUITY_RETURN_IF_ERROR(ReadTensorInfo(i, count, cursor, &entries[i]));
  }
  // The position is below the file's size, so rounding up cannot wrap.
  const uint64_t begin = (cursor->position() + file->alignment - 1) & ~(file->alignment - 1);
  const std::span<const uint8_t> section = bytes.subspan(std::min<uint64_t>(begin, bytes.size()));
  ACUITY_RETURN_IF_ERROR(PlaceTensors(section, file->alignment, &entries));
  file->tensors.reserve(count);
  for (const TensorEntry& entry : entries) file->tensors.push_back(entry.tensor);
  std::sort(file->tensors.begin(), file->tensors.end(),
            [](const GgufTensor& a, const GgufTensor& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(file->tensors.begin(), file->tensors.end(),
                         [](const GgufTensor& a, const GgufTensor& b) { return a.name == b.name; });
  if (twice != file->tensors.end()) {
    return Bad("tensor ", QuoteForError(twice->name), " occurs twice");
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view GgufTypeName(GgufType type) { return kTypeNames[static_cast<uint32_t>(type)]; }

std::string QuoteForError(std::string_view name) {
  constexpr size_t kMaxShown = 80;
  const bool cut = name.size() > kMaxShown;
  return Concat("'", absl::CEscape(ToAbseil(name.substr(0, kMaxShown))), cut ? "...'" : "'");
}

const GgufValue* GgufFile::FindValue(std::string_view key) const {
  const auto at = std::lower_bound(
      metadata.begin(), metadata.end(), key,
      [](const GgufKeyValue& entry, std::string_view wanted) { return entry.key < wanted; });
  return at != metadata.end() && at->key == key ? &at->value : nullptr;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto at = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const GgufTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

std::string_view GgufStringWalker::Next() {
  uint64_t length = 0;
  std::memcpy(&length, rest_.data(), sizeof(length));
  const std::string_view text = AsText(rest_.subspan(sizeof(length), length));
  rest_ = rest_.subspan(sizeof(length) + length);
  return text;
}

absl::StatusOr<GgufFile> ParseGguf(std::span<const uint8_t> bytes) {
  Cursor cursor(bytes);
  GgufFile file;
  Header header;
  ACUITY_RETURN_IF_ERROR(ReadHeader(&cursor, &file.version, &header));
  ACUITY_RETURN_IF_ERROR(ReadMetadata(header.num_keys, &cursor, &file.metadata));
  ACUITY_RETURN_IF_ERROR(ReadAlignment(&file));
  ACUITY_RETURN_IF_ERROR(ReadTensors(header.num_tensors, bytes, &cursor, &file));
  return file;
}

}  // namespace acuity::engine
