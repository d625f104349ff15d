// The libFuzzer entry of the safetensors reader, also called by the smoke test of the ordinary
// suite.
#pragma once

#include <cstddef>
#include <cstdint>

// Opens `data` as a file of tensors or, if it begins with '{' and its fifth byte is not 0 (then it
// is no header length below 4 GiB), as an index; reads every tensor that there is. Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
