// The machine behind host.h and warpgroup_host.h: fibers, their schedule, and who knows of which
// access of shared memory. Included by host.cc and host_warpgroup.cc alone.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/prim/warpgroup.h"

namespace acuity::kernels::prim::emulation {

inline constexpr size_t kStackBytes = 256 << 10;
inline constexpr int kMaxThreads = 1024;
inline constexpr int kMaxSharedBytes = 227 << 10;  // of a block on sm_90
inline constexpr uint16_t kNan = 0x7fc1;           // in bfloat16 and float16; twice: in float32

// Who accesses shared memory: a warp, the copies that it started, the products of a warpgroup.
inline constexpr int kMaxWarps = kMaxThreads / kWarpSize;
inline constexpr int kCopies = kMaxWarps;
inline constexpr int kProducts = 2 * kMaxWarps;
inline constexpr int kActors = kProducts + kMaxWarps / kWarpgroupWarps;

// splitmix64
class Random {
 public:
  void Seed(uint64_t seed) { state_ = seed; }
  uint32_t Below(uint32_t n) {
    state_ += 0x9e3779b97f4a7c15ull;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return static_cast<uint32_t>(((z ^ (z >> 31)) >> 32) * n >> 32);
  }

 private:
  uint64_t state_ = 1;
};

struct AsyncCopy {
  std::byte* to;
  const void* from;  // null: zeroes
};

enum class State : uint8_t { kRunnable, kWaiting, kDone };

// A CUDA thread. Its fiber outlives a block and starts over with the next one.
struct Thread {
  ucontext_t entry{};
  jmp_buf resume;
  std::unique_ptr<std::byte, void (*)(void*)> stack{
      static_cast<std::byte*>(std::malloc(kStackBytes)), std::free};
  bool entered = false;
  State state = State::kDone;
  Collective collective = Collective::kBlockSync;
  Operands* operands = nullptr;
  std::vector<AsyncCopy> open_group;
  std::deque<std::vector<AsyncCopy>> groups;
};

// The last write and the last reads of two bytes of shared memory, to tell whether an order lies
// between them and the next access. A clock counts an actor's deeds that others can learn of: a
// warp's barriers, its batches of copies, a warpgroup's groups of products.
struct LastAccess {
  static constexpr int16_t kSeveral = -1;
  static constexpr int16_t kProduct = -2;  // as a thread
  uint32_t block_clock = 0;                // 0: never
  uint32_t clock = 0;
  int16_t actor = 0;  // kSeveral: only a BlockSync orders it
  int16_t thread = 0;
};
struct Cell {
  LastAccess write, reads[2];
  bool in_flight = false;  // a copy to it was started and has not landed
};

// Up to which clock of each actor something is known: to a warp, or to who waits for a barrier.
struct Knowledge {
  std::array<uint32_t, kActors> seen{};
  std::array<uint32_t, kActors> fenced{};  // of it, what the warp's products see
  void Learn(const Knowledge& other);
};

struct WarpState {
  uint32_t clock = 1;
  uint32_t copies_clock = 1;  // of the batch that ArriveWhenCopied closes next
  Knowledge knowledge;
  uint32_t committed = 0;         // groups of products
  bool registers_fenced = false;  // no code has used them since FenceProducts
};

struct BarrierState {
  int arrivals = 0, missing = 0;
  uint32_t phase = 0;
  Knowledge open, done;  // of the phase under way, of those before
};

// What a lane copied before its ArriveWhenCopied.
struct Landing {
  std::vector<AsyncCopy> copies;
  long long barrier = 0;
  int warp = 0;
  uint32_t clock = 0;
};

// D of a chain of products: where each thread keeps it, and what it is by now.
struct Accumulators {
  FragmentC* at[kWarpgroupSize];
  int columns = 0;
  std::vector<float> value;  // [64, columns]
  uint32_t last_group = 0;
  uint32_t returned = 0;  // a bit for each warp that has it back
};
struct Running {
  Product product;  // of lane 0
  const FragmentA* a_at[kWarpgroupSize];
  FragmentA a[kWarpgroupSize];
  Accumulators* to = nullptr;
  uint32_t group = 0;
  bool executed = false;
  uint32_t waited = 0;  // a bit for each warp
};
struct WarpgroupState {
  std::deque<Running> running;
  std::list<Accumulators> accumulators;
};

class Machine {
 public:
  const char* Run(Dim3 grid, int threads, int shared_bytes, Body body, const void* args);

  // Called by fibers.
  void Meet(Collective collective, Operands& operands);
  void CheckShared(const void* address, int bytes, Access access);
  void Copy(void* to, const void* from);
  void Commit();
  void Wait(int pending);
  void InitBarrier(const void* barrier, int arrivals);
  [[noreturn, gnu::format(printf, 2, 3)]] void Fail(const char* format, ...);
  [[noreturn]] void FiberMain();

  Place place;
  Random random;
  std::byte* shared() { return shared_; }

 private:
  void Prepare(int threads, int shared_bytes);
  void RunBlock();
  void RunWarp(int warp);
  void Resume(int thread);
  void Suspend();
  bool CompleteWarp(int warp);
  bool CompleteBlock();
  // Why nothing moves any more.
  void ReportDeadlock();
  [[gnu::format(printf, 2, 3)]] void Report(const char* format, ...);
  void Land(const std::vector<AsyncCopy>& group);
  void Perform(int warp, Collective collective, Operands* const* lanes);
  bool Ordered(const LastAccess& last) const;
  void NoteRead(Cell& cell, const LastAccess& now);
  // All warps in [first, first + count) know what each of them did and knew.
  void ShareKnowledge(int first, int count);
  Thread& FirstLane(int warp) { return *fibers_[warp * kWarpSize]; }
  void Release(int warp);

  // host_warpgroup.cc
  void PerformAsync(int warp, Collective collective, Operands* const* lanes);
  bool Reached(int warp);         // a waiting warp's WaitBarrier
  void ReleaseWaiting();          // warps at WaitBarrier, WarpgroupSync or Multiply
  bool Progress(uint32_t deeds);  // of what is under way, at random; false: there is none
  void CountArrival(BarrierState& barrier);
  BarrierState* BarrierAt(const void* address);
  void LandAtBarrier(size_t landing);
  void StartProduct(int group);
  Accumulators* AccumulatorsOf(int group, uint32_t products_group);
  bool CheckMatrix(int group, uint64_t matrix, bool transposed, int rows);
  bool CheckProductRead(int group, long long offset);
  void Execute(Running& running);
  void WaitForProducts(int warp, uint32_t through);
  const char* UnderWay() const;  // at the block's end; null: nothing

  std::vector<std::unique_ptr<Thread>> fibers_;
  int threads_ = 0;
  jmp_buf scheduler_;
  Body body_ = nullptr;
  const void* args_ = nullptr;

  std::vector<std::byte> shared_memory_;
  std::byte* shared_ = nullptr;  // aligned
  int shared_bytes_ = 0;
  std::vector<Cell> cells_;
  uint32_t block_clock_ = 1;
  std::vector<WarpState> warps_;
  std::map<long long, BarrierState> barriers_;  // by their place in shared memory
  std::vector<Landing> landings_;
  std::vector<WarpgroupState> warpgroups_;

  bool failed_ = false;
  char error_[256];  // no string: a fiber that fails leaves without destructors
};

Machine& TheMachine();
void Deliver(const AsyncCopy& copy);
const char* NameOf(Collective collective);
float HalfToFloat(uint16_t bits);
float BrainToFloat(uint16_t bits);

}  // namespace acuity::kernels::prim::emulation
