// A CUDA graph on the emulated machine: launches that were recorded with their arguments as they
// were, and run later, any number of times, whatever became of what the arguments were made from.
#pragma once

#include <functional>
#include <vector>

namespace acuity::kernels::prim::emulation {

// In the order of the stream; each returns what Launch would.
using Recording = std::vector<std::function<const char*()>>;

// While set, launches on this thread are appended instead of run. Null: they run.
void SetRecording(Recording* recording);

}  // namespace acuity::kernels::prim::emulation
