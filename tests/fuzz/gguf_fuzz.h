// The libFuzzer entry of the GGUF reader, also called by the smoke test of the ordinary suite.
#pragma once

#include <cstddef>
#include <cstdint>

// Opens `data` as a model and, if it is one, reads every row of every tensor. Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
