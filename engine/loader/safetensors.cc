#include "engine/loader/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "engine/loader/dequantise.h"
#include "engine/loader/gguf.h"
#include "engine/loader/status_util.h"
#include "nlohmann/json.hpp"

namespace acuity::engine {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::string_view kTensorKeys[] = {"dtype", "shape", "data_offsets"};
// {"name": {"shape": [0]}} is 3 deep.
constexpr int kMaxDepth = 3;

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return InvalidArgument("safetensors: ", parts...);
}

// ---- element types ----

// GGUF's ids of the types that both formats have.
constexpr uint32_t kGgufF32 = 0, kGgufF16 = 1, kGgufBF16 = 30;

template <uint32_t gguf_type>
void SameAsGguf(const uint8_t* elements, int64_t count, float* out) {
  FindTensorType(gguf_type)->dequantise(elements, count, out);
}

void FloatsFromDoubles(const uint8_t* elements, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    double value;
    std::memcpy(&value, elements + i * sizeof(value), sizeof(value));
    out[i] = static_cast<float>(value);  // to nearest even; beyond the largest float: infinity
  }
}

// The value of a float of 8 bits with `mantissa_bits`: the bias is half the exponents'.
float SmallFloat(int code, int mantissa_bits) {
  const int bias = (1 << (6 - mantissa_bits)) - 1;
  const int exponent = (code & 0x7f) >> mantissa_bits;
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const int significand = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  const float magnitude =
      std::ldexp(static_cast<float>(significand), std::max(exponent, 1) - bias - mantissa_bits);
  return code < 0x80 ? magnitude : -magnitude;
}

using SmallFloats = std::array<float, 256>;

// E5M2: as IEEE's, the last exponent is for infinity and NaN.
SmallFloats MakeE5M2() {
  SmallFloats values;
  for (int code = 0; code < 256; ++code) {
    values[code] = SmallFloat(code, 2);
    if ((code & 0x7c) == 0x7c)
      values[code] = (code & 3) != 0 ? NAN : code < 0x80 ? HUGE_VALF : -HUGE_VALF;
  }
  return values;
}

// E4M3 ("fn"): no infinity, one NaN of either sign, largest 448.
SmallFloats MakeE4M3() {
  SmallFloats values;
  for (int code = 0; code < 256; ++code)
    values[code] = (code & 0x7f) == 0x7f ? NAN : SmallFloat(code, 3);
  return values;
}

template <SmallFloats (*make)()>
void FloatsFromTable(const uint8_t* elements, int64_t count, float* out) {
  static const SmallFloats values = make();
  for (int64_t i = 0; i < count; ++i) out[i] = values[elements[i]];
}

constexpr SafetensorsType kTypes[] = {
    {"BOOL", 8, nullptr},
    {"F4", 4, nullptr},
    {"F6_E2M3", 6, nullptr},
    {"F6_E3M2", 6, nullptr},
    {"U8", 8, nullptr},
    {"I8", 8, nullptr},
    {"F8_E5M2", 8, FloatsFromTable<MakeE5M2>},
    {"F8_E4M3", 8, FloatsFromTable<MakeE4M3>},
    {"F8_E8M0", 8, nullptr},
    {"F8_E4M3FNUZ", 8, nullptr},
    {"F8_E5M2FNUZ", 8, nullptr},
    {"I16", 16, nullptr},
    {"U16", 16, nullptr},
    {"F16", 16, SameAsGguf<kGgufF16>},
    {"BF16", 16, SameAsGguf<kGgufBF16>},
    {"I32", 32, nullptr},
    {"U32", 32, nullptr},
    {"F32", 32, SameAsGguf<kGgufF32>},
    {"C64", 64, nullptr},
    {"F64", 64, FloatsFromDoubles},
    {"I64", 64, nullptr},
    {"U64", 64, nullptr},
};

std::string TypeNames(bool readable_only) {
  std::string text;
  for (const SafetensorsType& type : kTypes) {
    if (readable_only && type.to_float == nullptr) continue;
    text += Concat(text.empty() ? "" : ", ", type.name);
  }
  return text;
}

// ---- header ----

// Receives the header's JSON piece by piece (nlohmann's SAX interface: false ends the parse) and
// builds the tensors.
class HeaderReader {
 public:
  HeaderReader(std::span<const uint8_t> data, std::vector<SafetensorsTensor>* tensors)
      : data_(data), tensors_(tensors) {}

  absl::Status status() const { return status_; }

  bool null() { return Mistyped("null"); }
  bool boolean(bool) { return Mistyped("a bool"); }
  bool number_integer(int64_t value) { return Mistyped(Concat("the negative number ", value)); }
  bool number_float(double, const std::string& text) {
    return Mistyped(Concat("the number ", text.substr(0, kMaxShown)));
  }
  bool binary(Json::binary_t&) { return Mistyped("binary"); }
  bool number_unsigned(uint64_t value);
  bool string(std::string& value);
  bool key(std::string& name);
  bool start_object(size_t);
  bool end_object();
  bool start_array(size_t);
  bool end_array();
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    return Fail("the header is not valid JSON at its byte ", position);
  }

 private:
  enum class Place { kStart, kHeader, kTensor, kMetadata, kNumbers };
  enum Field { kDtype, kShape, kOffsets, kNumFields };
  static constexpr size_t kMaxShown = 32;

  template <typename... Parts>
  bool Fail(const Parts&... parts) {
    status_ = Bad(parts...);
    return false;
  }
  template <typename... Parts>
  bool FailTensor(const Parts&... parts) {
    return Fail("tensor ", QuoteForError(tensor_.name), ": ", parts...);
  }

  // A value that is of the wrong type for its place.
  bool Mistyped(std::string_view what);
  bool HeaderKey(const std::string& name);
  bool MetadataKey(const std::string& name);
  bool TensorKey(const std::string& name);
  bool FinishTensor();

  const std::span<const uint8_t> data_;
  std::vector<SafetensorsTensor>* const tensors_;
  absl::Status status_;
  Place place_ = Place::kStart;
  bool metadata_next_ = false;  // the header's key is __metadata__
  bool metadata_seen_ = false;
  std::set<std::string> metadata_keys_;
  std::string metadata_key_;
  SafetensorsTensor tensor_;  // being read
  Field field_ = kDtype;      // of it
  bool field_seen_[kNumFields] = {};
  uint64_t offsets_[2] = {};
  uint64_t num_offsets_ = 0;
};

bool HeaderReader::Mistyped(std::string_view what) {
  switch (place_) {
    case Place::kStart:
      break;
    case Place::kHeader:
      if (metadata_next_) return Fail(kMetadataKey, " is ", what, "; it must be an object");
      return FailTensor("it is ", what, "; it must be an object");
    case Place::kMetadata:
      return Fail(kMetadataKey, " has ", QuoteForError(metadata_key_), " = ", what,
                  "; it must be a string");
    case Place::kTensor:
      return FailTensor(kTensorKeys[field_], " is ", what, "; it must be ",
                        field_ == kDtype ? "a string" : "an array");
    case Place::kNumbers:
      return FailTensor(kTensorKeys[field_], " holds ", what, "; it must hold integers from 0 to ",
                        field_ == kShape ? static_cast<uint64_t>(INT64_MAX) : UINT64_MAX);
  }
  return Fail("the header is ", what, "; it must be an object");
}

bool HeaderReader::number_unsigned(uint64_t value) {
  if (place_ != Place::kNumbers) return Mistyped(Concat("the number ", value));
  if (field_ == kOffsets) {
    if (num_offsets_ == 2) return FailTensor("data_offsets has more than 2 elements");
    offsets_[num_offsets_++] = value;
    return true;
  }
  if (tensor_.num_dims == kMaxSafetensorsDims) {
    return FailTensor("shape has more than ", kMaxSafetensorsDims, " dimensions");
  }
  if (value > static_cast<uint64_t>(INT64_MAX)) return Mistyped(Concat("the number ", value));
  const int64_t dim = static_cast<int64_t>(value);
  tensor_.dims[tensor_.num_dims++] = dim;
  if (__builtin_mul_overflow(tensor_.elements, dim, &tensor_.elements)) {
    return FailTensor("shape has more than ", INT64_MAX, " elements (dimension ",
                      tensor_.num_dims - 1, " = ", dim, ")");
  }
  return true;
}

bool HeaderReader::string(std::string& value) {
  if (place_ == Place::kMetadata) return true;
  if (place_ != Place::kTensor || field_ != kDtype) {
    return Mistyped(Concat("the string ", QuoteForError(value)));
  }
  const auto type =
      std::find_if(std::begin(kTypes), std::end(kTypes),
                   [&value](const SafetensorsType& candidate) { return candidate.name == value; });
  if (type == std::end(kTypes)) {
    return FailTensor("dtype is ", QuoteForError(value), "; known: ", TypeNames(false));
  }
  tensor_.type = type;
  return true;
}

bool HeaderReader::key(std::string& name) {
  if (place_ == Place::kHeader) return HeaderKey(name);
  if (place_ == Place::kMetadata) return MetadataKey(name);
  return TensorKey(name);
}

bool HeaderReader::HeaderKey(const std::string& name) {
  metadata_next_ = name == kMetadataKey;
  if (metadata_next_) {
    if (metadata_seen_) return Fail(kMetadataKey, " occurs twice");
    metadata_seen_ = true;
    return true;
  }
  if (name.empty() || name.size() > kMaxSafetensorsNameBytes) {
    return Fail("tensor ", QuoteForError(name), " has a name of ", name.size(),
                " bytes; it must have 1 to ", kMaxSafetensorsNameBytes);
  }
  if (tensors_->size() == kMaxSafetensors) {
    return Fail("more than the limit of ", kMaxSafetensors, " tensors");
  }
  tensor_ = SafetensorsTensor{.name = name, .elements = 1};
  return true;
}

bool HeaderReader::MetadataKey(const std::string& name) {
  if (name.size() > kMaxSafetensorsNameBytes) {
    return Fail(kMetadataKey, " key ", QuoteForError(name), " has ", name.size(),
                " bytes, more than the limit of ", kMaxSafetensorsNameBytes);
  }
  if (metadata_keys_.size() == kMaxSafetensorsMetadata) {
    return Fail(kMetadataKey, " has more than the limit of ", kMaxSafetensorsMetadata, " keys");
  }
  if (!metadata_keys_.insert(name).second) {
    return Fail(kMetadataKey, " key ", QuoteForError(name), " occurs twice");
  }
  metadata_key_ = name;
  return true;
}

bool HeaderReader::TensorKey(const std::string& name) {
  const auto found = std::find(std::begin(kTensorKeys), std::end(kTensorKeys), name);
  if (found == std::end(kTensorKeys)) {
    return FailTensor("unknown key ", QuoteForError(name), "; known: dtype, shape, data_offsets");
  }
  field_ = static_cast<Field>(found - std::begin(kTensorKeys));
  if (field_seen_[field_]) return FailTensor(name, " occurs twice");
  field_seen_[field_] = true;
  return true;
}

bool HeaderReader::start_object(size_t) {
  if (place_ == Place::kStart) {
    place_ = Place::kHeader;
    return true;
  }
  if (place_ != Place::kHeader) return Mistyped("an object");
  place_ = metadata_next_ ? Place::kMetadata : Place::kTensor;
  std::fill(std::begin(field_seen_), std::end(field_seen_), false);
  num_offsets_ = 0;
  return true;
}

bool HeaderReader::end_object() {
  const bool was_tensor = place_ == Place::kTensor;
  place_ = Place::kHeader;
  return !was_tensor || FinishTensor();
}

bool HeaderReader::start_array(size_t) {
  if (place_ != Place::kTensor || field_ == kDtype) return Mistyped("an array");
  place_ = Place::kNumbers;
  return true;
}

bool HeaderReader::end_array() {
  place_ = Place::kTensor;
  if (field_ == kOffsets && num_offsets_ != 2) {
    return FailTensor("data_offsets has ", num_offsets_, " elements; it must have 2");
  }
  return true;
}

bool HeaderReader::FinishTensor() {
  for (int field = 0; field < kNumFields; ++field) {
    if (!field_seen_[field]) return FailTensor(kTensorKeys[field], " is missing");
  }
  const auto [begin, end] = offsets_;
  if (begin > end || end > data_.size()) {
    return FailTensor("data_offsets are [", begin, ", ", end,
                      "]; it must be begin <= end <= the data's ", data_.size(), " bytes");
  }
  uint64_t bits = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(tensor_.elements),
                             static_cast<uint64_t>(tensor_.type->bits), &bits)) {
    return FailTensor("shape of ", tensor_.elements, " elements of ", tensor_.type->name,
                      " has more than ", UINT64_MAX, " bits");
  }
  if (bits % 8 != 0 || end - begin != bits / 8) {
    return FailTensor("data_offsets are [", begin, ", ", end, "], ", end - begin, " bytes, but ",
                      tensor_.elements, " elements of ", tensor_.type->name, " are ", bits,
                      " bits");
  }
  tensor_.data = data_.subspan(begin, end - begin);
  tensors_->push_back(std::move(tensor_));
  return true;
}

// What bounds the memory of the parse, found before it: nesting, and the length of any one token or
// gap between tokens (the JSON library buffers each). *objects is at least the number of tensors.
absl::Status CheckTokens(std::string_view header, uint64_t* objects) {
  uint64_t token_begin = 0;
  int depth = 0;
  bool in_string = false;
  *objects = 0;
  for (uint64_t i = 0; i < header.size(); ++i) {
    const char c = header[i];
    if (i - token_begin > kMaxSafetensorsTokenBytes) {
      return Bad("a string or gap of the header, at its byte ", token_begin,
                 ", is longer than the limit of ", kMaxSafetensorsTokenBytes, " bytes");
    }
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
        token_begin = i;
      }
      continue;
    }
    if (c != '"' && c != '{' && c != '[' && c != '}' && c != ']' && c != ',' && c != ':') continue;
    token_begin = i;
    in_string = c == '"';
    *objects += c == '{';
    if (c == '}' || c == ']') --depth;
    if ((c == '{' || c == '[') && ++depth > kMaxDepth) {
      return Bad("the header is nested deeper than ", kMaxDepth, " at its byte ", i);
    }
  }
  return absl::OkStatus();
}

// ---- data ----

// Every byte of `data` belongs to one tensor. Reorders `tensors`.
absl::Status CheckCoverage(std::span<const uint8_t> data, std::vector<SafetensorsTensor>* tensors) {
  // Empty tensors first where they share the place of another.
  std::sort(tensors->begin(), tensors->end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              if (a.data.data() != b.data.data()) return a.data.data() < b.data.data();
              return a.data.size() < b.data.size();
            });
  uint64_t covered = 0;
  const SafetensorsTensor* previous = nullptr;
  for (const SafetensorsTensor& tensor : *tensors) {
    const uint64_t begin = static_cast<uint64_t>(tensor.data.data() - data.data());
    if (begin < covered) {
      return Bad("tensor ", QuoteForError(tensor.name), ": data_offsets begin at ", begin,
                 ", within tensor ", QuoteForError(previous->name), ", which ends at ", covered);
    }
    if (begin > covered) {
      return Bad("tensor ", QuoteForError(tensor.name), ": data_offsets begin at ", begin,
                 ", but bytes ", covered, " to ", begin, " belong to no tensor");
    }
    covered += tensor.data.size();
    previous = &tensor;
  }
  if (covered != data.size()) {
    return Bad("the tensors end at byte ", covered, " of the data's ", data.size(),
               "; the rest belongs to no tensor");
  }
  return absl::OkStatus();
}

absl::Status SortByName(std::vector<SafetensorsTensor>* tensors) {
  std::sort(tensors->begin(), tensors->end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(
      tensors->begin(), tensors->end(),
      [](const SafetensorsTensor& a, const SafetensorsTensor& b) { return a.name == b.name; });
  if (twice != tensors->end()) {
    return Bad("tensor ", QuoteForError(twice->name), " occurs twice");
  }
  return absl::OkStatus();
}

// Cuts `bytes` into the header's text, without the spaces that may follow it, and the data.
absl::Status Split(std::span<const uint8_t> bytes, std::string_view* header,
                   std::span<const uint8_t>* data) {
  if (bytes.size() < kLengthBytes) {
    return Bad("the file has ", bytes.size(), " bytes; the header's length alone takes ",
               kLengthBytes);
  }
  static_assert(std::endian::native == std::endian::little);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kMaxSafetensorsHeaderBytes) {
    return Bad("the header's length is ", length, ", more than the limit of ",
               kMaxSafetensorsHeaderBytes, " bytes");
  }
  if (length > bytes.size() - kLengthBytes) {
    return Bad("the header's length is ", length, ", but only ", bytes.size() - kLengthBytes,
               " bytes of the file are left");
  }
  *header = {reinterpret_cast<const char*>(bytes.data() + kLengthBytes), length};
  *data = bytes.subspan(kLengthBytes + length);
  if (!header->starts_with('{')) return Bad("the header does not start with '{'");
  if (header->find('\0') != std::string_view::npos) {  // the JSON library would stop there
    return Bad("the header has a byte of 0");
  }
  header->remove_suffix(header->size() - header->find_last_not_of(' ') - 1);
  return absl::OkStatus();
}

}  // namespace

std::span<const SafetensorsType> SafetensorsTypes() { return kTypes; }

absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(std::span<const uint8_t> bytes) {
  std::string_view header;
  std::span<const uint8_t> data;
  ACUITY_RETURN_IF_ERROR(Split(bytes, &header, &data));
  uint64_t objects = 0;
  ACUITY_RETURN_IF_ERROR(CheckTokens(header, &objects));
  std::vector<SafetensorsTensor> tensors;
  tensors.reserve(std::min(objects, kMaxSafetensors));
  HeaderReader reader(data, &tensors);
  const bool parsed = Json::sax_parse(header.begin(), header.end(), &reader);
  ACUITY_RETURN_IF_ERROR(reader.status());
  if (!parsed) return Bad("the header is not valid JSON");
  ACUITY_RETURN_IF_ERROR(CheckCoverage(data, &tensors));
  ACUITY_RETURN_IF_ERROR(SortByName(&tensors));
  return tensors;
}

absl::Status ReadAsFloat(const SafetensorsTensor& tensor, int64_t begin, int64_t count,
                         float* out) {
  if (tensor.type->to_float == nullptr) {
    return InvalidArgument("tensor ", QuoteForError(tensor.name), ": dtype is ", tensor.type->name,
                           "; weights are read from ", TypeNames(true));
  }
  if (begin < 0 || count < 0 || begin > tensor.elements || count > tensor.elements - begin) {
    return InvalidArgument("elements [", begin, ", +", count, ") of ", QuoteForError(tensor.name),
                           ", which has ", tensor.elements);
  }
  tensor.type->to_float(tensor.data.data() + begin * (tensor.type->bits / 8), count, out);
  return absl::OkStatus();
}

}  // namespace acuity::engine
