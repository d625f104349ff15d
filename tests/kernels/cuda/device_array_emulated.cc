#include <cstring>

#include "kernels/cuda/prim/prim.h"
#include "tests/kernels/cuda/device_array.h"

namespace acuity::kernels::cuda {

void* Allocate(size_t bytes) {
  void* memory = std::aligned_alloc(128, (bytes + 128) / 128 * 128);
  if (memory == nullptr) std::abort();
  return memory;
}
void Free(void* memory) { std::free(memory); }
void Copy(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
const char* Finish() { return nullptr; }  // a launch returns when it is done
bool HasWarpgroups() { return true; }
void SetScheduleSeed(uint64_t seed) { prim::emulation::SetSeed(seed); }

}  // namespace acuity::kernels::cuda
