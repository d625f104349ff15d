// Elements of the Open Inference Protocol's tensors: out of a request, into an answer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"

namespace acuity::server {

// What one input is: a single element, or with `list` a row of up to engine::kMaxStopStrings.
struct InputSpec {
  const char* name;
  const char* datatype;  // "BYTES", "BOOL", "INT32", "UINT64" or "FP32"
  bool list = false;
};

// The elements of one input.
struct InputValue {
  std::vector<std::string> bytes;  // of BYTES
  // Of the others, as the datatype says.
  bool boolean = false;
  int32_t int32 = 0;
  uint64_t uint64 = 0;
  float fp32 = 0;

  const std::string& text() const { return bytes.front(); }  // of BYTES that is no list
};

// Reads every input, from raw_input_contents or from its contents, by name. InvalidArgument
// "inputs.NAME: ..." for a name that is not in `specs` or comes twice, another datatype, a shape
// other than [n] or [1, n] with an n that the spec allows, parameters (shared memory), and elements
// that are not as many or as long as they claim.
absl::StatusOr<std::map<std::string, InputValue>> ReadInputs(
    const inference::ModelInferRequest& request, const std::vector<InputSpec>& specs);

// Appends an output to an answer, as raw contents in the machine's order, which is little-endian.
void AddBytes(const char* name, std::string_view value, inference::ModelInferResponse* out);
template <typename T>
void AddTensor(const char* name, const char* datatype, const std::vector<int64_t>& shape,
               const std::vector<T>& values, inference::ModelInferResponse* out) {
  auto* tensor = out->add_outputs();
  tensor->set_name(name);
  tensor->set_datatype(datatype);
  for (const int64_t n : shape) tensor->add_shape(n);
  out->add_raw_output_contents(reinterpret_cast<const char*>(values.data()),
                               values.size() * sizeof(T));
}

}  // namespace acuity::server
