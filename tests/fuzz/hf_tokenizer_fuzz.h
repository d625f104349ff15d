// The libFuzzer entry of the tokenizer.json reader, also called by the smoke test of the ordinary
// suite.
#pragma once

#include <cstddef>
#include <cstdint>

// Reads `data` as a tokenizer.json and, if it makes a tokenizer, encodes and decodes texts with it.
// Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
