// The files that fuzzing starts from: every type, empty tensors, metadata, indices, and files
// refused late.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/loader/safetensors.h"
#include "tests/engine/loader/safetensors_builder.h"

namespace acuity::engine::testing {

inline std::vector<Bytes> SafetensorsSeeds() {
  std::vector<std::string> all = {TensorText("empty", "F32", "2,0", 0, 0)};
  uint64_t offset = 0;
  for (const SafetensorsType& type : SafetensorsTypes()) {  // four elements are whole bytes
    const uint64_t bytes = static_cast<uint64_t>(type.bits) / 2;
    all.push_back(TensorText(std::string(type.name), std::string(type.name), "2,1,2", offset,
                             offset + bytes));
    offset += bytes;
  }
  std::vector<Bytes> seeds = {TwoTensors(), Safetensors(HeaderText(all), offset),
                              Safetensors("{}", 0), Safetensors("{} ", 1)};
  for (const std::string_view header :
       {R"({"__metadata__":{"format":"pt","\u00e9\n":""}}   )",
        R"({"s":{"shape":[],"data_offsets":[0,4],"dtype":"F32"}})",
        R"({"s":{"shape":[1.5e3,-1,true,null,{}],"data_offsets":[[]],"x":"y"}})",
        R"({"s":{"shape":[18446744073709551615,9223372036854775807],"dtype":"F64"}})"}) {
    seeds.push_back(Safetensors(header, 4));
  }
  for (
      const std::string_view index :
      {R"({"metadata":{"total_size":18},"weight_map":{"a":"x.safetensors","b":"x.safetensors","c":"y.safetensors"}})",
       R"({"weight_map":{"a":"../x.safetensors","c":"y.safetensors"},"weight_map":[]})",
       R"({"metadata":[[{"weight_map":1.5}]],"weight_map":{"a":"stop","b":""}})"}) {
    seeds.emplace_back(index.begin(), index.end());
  }
  return seeds;
}

}  // namespace acuity::engine::testing
