// A stream of the emulated machine. Launches on the null stream run at once; any other Stream is a
// Work*, to which they are appended, their arguments as they were. Whoever owns it runs it: when it
// synchronises, or again and again as a CUDA graph does.
#pragma once

#include <functional>
#include <vector>

namespace acuity::kernels::prim::emulation {

// In the order of the stream; each returns what Launch on the null stream would.
using Work = std::vector<std::function<const char*()>>;

}  // namespace acuity::kernels::prim::emulation
