// The entry of a fuzzer: each *_fuzz.cc defines it and says what it does. libFuzzer calls it, and
// so do the smoke tests of the ordinary suite.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
