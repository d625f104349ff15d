#include "server/grpc/infer_tensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/limits.h"

namespace acuity::server {
namespace {

using inference::ModelInferRequest;

static_assert(std::endian::native == std::endian::little, "raw contents are little-endian");

constexpr size_t kLengthBytes = 4;  // before each element of BYTES
constexpr size_t kMaxShownBytes = 64;

absl::Status Wrong(const std::string& name, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("inputs.", name.substr(0, kMaxShownBytes), ": ", what));
}

// The number of elements.
absl::StatusOr<int64_t> CheckShape(const InputSpec& spec,
                                   const ModelInferRequest::InferInputTensor& input) {
  const std::string shape = absl::StrCat("shape [", absl::StrJoin(input.shape(), ", "), "]");
  if (input.shape_size() < 1 || input.shape_size() > 2) {
    return Wrong(spec.name, absl::StrCat(shape, ", 1 or 2 dimensions are needed"));
  }
  if (input.shape_size() == 2 && input.shape(0) != 1) {
    return Wrong(spec.name, absl::StrCat(shape, ", a request holds a batch of 1"));
  }
  const int64_t count = input.shape(input.shape_size() - 1);
  const int64_t limit = spec.list ? engine::kMaxStopStrings : 1;
  if (count < 1 || count > limit) {
    return Wrong(spec.name, absl::StrCat(shape, ", the last dimension is 1",
                                         spec.list ? absl::StrCat(" to ", limit) : ""));
  }
  return count;
}

absl::Status ReadRawBytes(const char* name, std::string_view raw, int64_t count,
                          std::vector<std::string>* out) {
  for (int64_t i = 0; i < count; ++i) {
    if (raw.size() < kLengthBytes) {
      return Wrong(name, absl::StrCat("element ", i, " needs a length of 4 bytes, ", raw.size(),
                                      " are left"));
    }
    uint32_t length = 0;
    std::memcpy(&length, raw.data(), kLengthBytes);
    raw.remove_prefix(kLengthBytes);
    if (length > raw.size()) {
      return Wrong(name, absl::StrCat("element ", i, " claims ", length, " bytes, ", raw.size(),
                                      " are left"));
    }
    out->emplace_back(raw.substr(0, length));
    raw.remove_prefix(length);
  }
  if (!raw.empty()) return Wrong(name, absl::StrCat(raw.size(), " bytes after the last element"));
  return absl::OkStatus();
}

template <typename T>
absl::Status ReadRaw(const char* name, std::string_view raw, T* out) {
  if (raw.size() != sizeof(T)) {
    return Wrong(name,
                 absl::StrCat(raw.size(), " bytes of raw contents, ", sizeof(T), " are needed"));
  }
  std::memcpy(out, raw.data(), sizeof(T));
  return absl::OkStatus();
}

absl::Status ReadRawInput(const InputSpec& spec, const std::string& raw, int64_t count,
                          InputValue* out) {
  const std::string_view datatype = spec.datatype;
  if (datatype == "BYTES") return ReadRawBytes(spec.name, raw, count, &out->bytes);
  if (datatype == "INT32") return ReadRaw(spec.name, raw, &out->int32);
  if (datatype == "UINT64") return ReadRaw(spec.name, raw, &out->uint64);
  if (datatype == "FP32") return ReadRaw(spec.name, raw, &out->fp32);
  uint8_t byte = 0;
  const absl::Status status = ReadRaw(spec.name, raw, &byte);
  out->boolean = byte != 0;
  return status;
}

absl::Status ReadTypedInput(const InputSpec& spec, const inference::InferTensorContents& from,
                            int64_t count, InputValue* out) {
  const std::string_view datatype = spec.datatype;
  const auto check = [&](const char* field, int size) {
    return size == count ? absl::OkStatus()
                         : Wrong(spec.name, absl::StrCat(size, " elements in contents.", field,
                                                         ", the shape says ", count));
  };
  absl::Status status;
  if (datatype == "BYTES") {
    status = check("bytes_contents", from.bytes_contents_size());
    if (status.ok()) {
      out->bytes.assign(from.bytes_contents().begin(), from.bytes_contents().end());
    }
  } else if (datatype == "INT32") {
    status = check("int_contents", from.int_contents_size());
    if (status.ok()) out->int32 = from.int_contents(0);
  } else if (datatype == "UINT64") {
    status = check("uint64_contents", from.uint64_contents_size());
    if (status.ok()) out->uint64 = from.uint64_contents(0);
  } else if (datatype == "FP32") {
    status = check("fp32_contents", from.fp32_contents_size());
    if (status.ok()) out->fp32 = from.fp32_contents(0);
  } else {
    status = check("bool_contents", from.bool_contents_size());
    if (status.ok()) out->boolean = from.bool_contents(0);
  }
  return status;
}

}  // namespace

absl::StatusOr<std::map<std::string, InputValue>> ReadInputs(const ModelInferRequest& request,
                                                             const std::vector<InputSpec>& specs) {
  const bool raw = request.raw_input_contents_size() > 0;
  if (raw && request.raw_input_contents_size() != request.inputs_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("raw_input_contents: ", request.raw_input_contents_size(), " for ",
                     request.inputs_size(), " inputs"));
  }
  std::map<std::string, InputValue> values;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const ModelInferRequest::InferInputTensor& input = request.inputs(i);
    const auto spec = std::find_if(specs.begin(), specs.end(),
                                   [&](const InputSpec& s) { return input.name() == s.name; });
    if (spec == specs.end()) {
      const auto name = [](std::string* out, const InputSpec& s) { out->append(s.name); };
      return Wrong(input.name(), absl::StrCat("there is no such input, there are ",
                                              absl::StrJoin(specs, ", ", name)));
    }
    if (values.contains(input.name())) return Wrong(input.name(), "it is given twice");
    if (input.datatype() != spec->datatype) {
      return Wrong(input.name(),
                   absl::StrCat("datatype \"", input.datatype().substr(0, kMaxShownBytes),
                                "\", it is ", spec->datatype));
    }
    if (input.parameters_size() > 0) {
      return Wrong(
          input.name(),
          absl::StrCat("parameter \"", input.parameters().begin()->first.substr(0, kMaxShownBytes),
                       "\", none is known (no shared memory)"));
    }
    const absl::StatusOr<int64_t> count = CheckShape(*spec, input);
    if (!count.ok()) return count.status();
    if (raw && input.has_contents()) return Wrong(input.name(), "contents and raw contents");
    InputValue value;
    const absl::Status read =
        raw ? ReadRawInput(*spec, request.raw_input_contents(i), *count, &value)
            : ReadTypedInput(*spec, input.contents(), *count, &value);
    if (!read.ok()) return read;
    values.emplace(input.name(), std::move(value));
  }
  return values;
}

void AddBytes(const char* name, std::string_view value, inference::ModelInferResponse* out) {
  auto* tensor = out->add_outputs();
  tensor->set_name(name);
  tensor->set_datatype("BYTES");
  tensor->add_shape(1);
  const uint32_t length = static_cast<uint32_t>(value.size());
  std::string* raw = out->add_raw_output_contents();
  raw->append(reinterpret_cast<const char*>(&length), kLengthBytes);
  raw->append(value);
}

}  // namespace acuity::server
