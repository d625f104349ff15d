// Which instruction set the CPU kernels use, decided once per process.
#pragma once

namespace acuity::kernels {

enum class Isa { kPortable, kAvx2, kAvx512 };

// The best that CPU and operating system offer; the environment variable
// ACUITY_CPU_ISA=portable|avx2|avx512 forces a lesser one. A value that is unknown, or better than
// the machine, is ignored.
Isa ActiveIsa();

// "portable", "avx2", "avx512".
const char* IsaName(Isa isa);

}  // namespace acuity::kernels
