// prim.h without a GPU: every CUDA thread is a fiber on the calling thread. Include prim.h.
//
// A warp's lanes run one after the other up to their next collective; the last one to arrive
// completes it for all. Which warp goes on, for how many collectives, and from which lane, is drawn
// at random from a seed: what is not ordered by a barrier happens in another order with another
// seed. Besides, every access through Shared is checked against the ones before it for bounds,
// alignment and a barrier in between, so that a missing one is found by any schedule that runs both
// accesses. What it finds is the result of Launch.
//
// Not modelled: time, caches, the memory model between blocks, the order of additions inside mma,
// the last ulp of the special functions, bank conflicts. Only a GPU proves those.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/prim/host_collective.h"
#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::prim {

namespace emulation {

// Schedules of the launches that follow on this thread are drawn from `seed`.
void SetSeed(uint64_t seed);

enum class Access : uint8_t { kRead, kWrite, kCopy };  // kCopy: a write, started
// Ends the launch with a sentence if the access is out of bounds, misaligned or not ordered.
void CheckShared(const void* address, int bytes, Access access);
void CheckAligned(const void* address, int bytes);  // global memory

struct Place {
  int thread;
  Dim3 block, grid;
};
const Place& Here();
void* SharedMemoryBase();
void Copy(void* to, const void* from);  // from null: zeroes
void Commit();
void Wait(int pending);

using Body = void (*)(const void* args);
const char* Run(Dim3 grid, int threads, int shared_bytes, Body body, const void* args,
                size_t args_bytes, Stream stream);

template <typename T>
class CheckedReference {
 public:
  explicit CheckedReference(T* address) : address_(address) {}
  CheckedReference(const CheckedReference&) = default;
  operator T() const {  // NOLINT: as a T& would
    CheckShared(address_, sizeof(T), Access::kRead);
    return *address_;
  }
  const CheckedReference& operator=(const T& value) const {
    CheckShared(address_, sizeof(T), Access::kWrite);
    *address_ = value;
    return *this;
  }
  CheckedReference& operator=(const CheckedReference& other) {
    *this = static_cast<T>(other);
    return *this;
  }
  const CheckedReference& operator+=(const T& value) const { return *this = *this + value; }

 private:
  T* address_;
};

}  // namespace emulation

template <typename T>
class Shared {
 public:
  Shared() = default;
  explicit Shared(T* address) : address_(address) {}
  template <typename U, typename = std::enable_if_t<std::is_convertible_v<U*, T*>>>
  Shared(Shared<U> other) : address_(other.address()) {}  // NOLINT: as pointers convert

  emulation::CheckedReference<T> operator[](int i) const {
    return emulation::CheckedReference<T>(address_ + i);
  }
  Shared operator+(int i) const { return Shared(address_ + i); }
  template <typename U>
  Shared<U> As() const {
    return Shared<U>(reinterpret_cast<U*>(address_));
  }
  T* address() const { return address_; }

 private:
  T* address_ = nullptr;
};

template <typename T>
Shared<T> SharedMemory() {
  return Shared<T>(static_cast<T*>(emulation::SharedMemoryBase()));
}

inline int ThreadIndex() { return emulation::Here().thread; }
inline Dim3 BlockIndex() { return emulation::Here().block; }
inline Dim3 GridSize() { return emulation::Here().grid; }
inline int LaneIndex() { return ThreadIndex() % kWarpSize; }
inline int WarpIndex() { return ThreadIndex() / kWarpSize; }

inline void BlockSync() {
  emulation::Operands none;
  emulation::Meet(emulation::Collective::kBlockSync, none);
}
inline void WarpSync() {
  emulation::Operands none;
  emulation::Meet(emulation::Collective::kWarpSync, none);
}

template <typename T>
T Shuffle(T value, int from_lane) {
  static_assert(sizeof(T) == 4);
  emulation::Operands operands;
  std::memcpy(&operands.in[0], &value, 4);
  operands.in[1] = static_cast<uint32_t>(from_lane) % kWarpSize;
  emulation::Meet(emulation::Collective::kShuffle, operands);
  std::memcpy(&value, &operands.out[0], 4);
  return value;
}
template <typename T>
T ShuffleXor(T value, int lane_mask) {
  return Shuffle(value, LaneIndex() ^ lane_mask);
}
inline uint32_t Ballot(bool value) {
  emulation::Operands operands;
  operands.in[0] = value ? 1 : 0;
  emulation::Meet(emulation::Collective::kBallot, operands);
  return operands.out[0];
}

inline void LoadMatrix4(Shared<const uint16_t> row, uint32_t (&word)[4]) {
  emulation::Operands operands;
  operands.row = row.address();
  emulation::Meet(emulation::Collective::kLoadMatrix4, operands);
  std::memcpy(word, operands.out, sizeof(word));
}
inline void LoadMatrix4Transposed(Shared<const uint16_t> row, uint32_t (&word)[4]) {
  emulation::Operands operands;
  operands.row = row.address();
  emulation::Meet(emulation::Collective::kLoadMatrix4Transposed, operands);
  std::memcpy(word, operands.out, sizeof(word));
}

template <DType kType>
void Mma(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  emulation::Operands operands;
  std::memcpy(&operands.in[0], a.word, sizeof(a.word));
  std::memcpy(&operands.in[4], b.word, sizeof(b.word));
  std::memcpy(&operands.in[6], c.value, sizeof(c.value));
  emulation::Meet(kType == DType::kBFloat16 ? emulation::Collective::kMmaBFloat16
                                            : emulation::Collective::kMmaFloat16,
                  operands);
  std::memcpy(c.value, operands.out, sizeof(c.value));
}

template <DType kType>
uint32_t Pack(float low, float high) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  if constexpr (kType == DType::kBFloat16) {
    return FloatToBFloat16(low) | static_cast<uint32_t>(FloatToBFloat16(high)) << 16;
  } else {
    return FloatToFloat16(low) | static_cast<uint32_t>(FloatToFloat16(high)) << 16;
  }
}

template <DType kType>
void Unpack(uint32_t word, float& low, float& high) {
  static_assert(kType == DType::kBFloat16 || kType == DType::kFloat16);
  const auto widen = kType == DType::kBFloat16 ? BFloat16ToFloat : Float16ToFloat;
  low = widen(static_cast<uint16_t>(word));
  high = widen(static_cast<uint16_t>(word >> 16));
}

inline void CopyAsync(Shared<Bits128> to, const void* from, bool valid) {
  emulation::Copy(to.address(), valid ? from : nullptr);
}
inline void CommitCopies() { emulation::Commit(); }
template <int kPending>
void WaitCopies() {
  emulation::Wait(kPending);
}

inline Bits128 Load128(const void* from) {
  emulation::CheckAligned(from, 16);
  return *static_cast<const Bits128*>(from);
}
inline void Store128(void* to, const Bits128& bits) {
  emulation::CheckAligned(to, 16);
  *static_cast<Bits128*>(to) = bits;
}
inline int32_t AtomicAdd(int32_t* to, int32_t value) {
  const int32_t before = *to;
  *to = static_cast<int32_t>(static_cast<uint32_t>(before) + static_cast<uint32_t>(value));
  return before;
}
inline uint64_t AtomicAdd(uint64_t* to, uint64_t value) {
  const uint64_t before = *to;
  *to = before + value;
  return before;
}

inline float Exp2(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0 : y;
}
inline float Log2(float x) { return std::log2(x); }
inline float Reciprocal(float x) { return 1 / x; }
inline float Max(float x, float y) { return x > y || y != y ? x : y; }
inline float FusedMultiplyAdd(float x, float y, float z) { return std::fma(x, y, z); }
inline float Multiply(float x, float y) { return x * y; }  // the baseline CPU has nothing to fuse

template <typename Kernel>
const char* Launch(Dim3 grid, int shared_bytes, const typename Kernel::Args& args, Stream stream) {
  static_assert(std::is_trivially_copyable_v<typename Kernel::Args>);
  static_assert(Kernel::kThreads % kWarpSize == 0);
  const auto body = [](const void* arguments) {
    Kernel::Run(*static_cast<const typename Kernel::Args*>(arguments));
  };
  return emulation::Run(grid, Kernel::kThreads, shared_bytes, body, &args, sizeof(args), stream);
}

}  // namespace acuity::kernels::prim
