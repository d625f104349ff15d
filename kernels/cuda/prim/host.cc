#include "kernels/cuda/prim/host.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cuda/prim/host_stream.h"
#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::prim::emulation {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr int kMaxThreads = 1024;
constexpr int kMaxSharedBytes = 227 << 10;  // of a block on sm_90
constexpr uint16_t kNan = 0x7fc1;           // in bfloat16 and float16; twice: in float32

const char* NameOf(Collective collective) {
  constexpr const char* kNames[] = {"BlockSync", "WarpSync",    "Shuffle",
                                    "Ballot",    "LoadMatrix4", "LoadMatrix4Transposed",
                                    "Mma<bf16>", "Mma<f16>"};
  return kNames[static_cast<int>(collective)];
}

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

// The last write and the last reads of two bytes of shared memory, to tell whether a barrier lies
// between them and the next access. Clocks count a block's BlockSyncs and a warp's WarpSyncs.
struct LastAccess {
  static constexpr int16_t kSeveral = -1;
  uint32_t block_clock = 0;  // 0: never
  uint32_t warp_clock = 0;
  int16_t warp = 0;
  int16_t thread = 0;
};
struct Cell {
  LastAccess write, read;
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
  [[gnu::format(printf, 2, 3)]] void Report(const char* format, ...);
  void Land(const std::vector<AsyncCopy>& group);
  bool Ordered(const LastAccess& last) const;

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
  std::vector<uint32_t> warp_clocks_;

  bool failed_ = false;
  char error_[256];  // no string: a fiber that fails leaves without destructors
};

Machine& TheMachine() {
  thread_local Machine machine;
  return machine;
}

void EnterFiber() { TheMachine().FiberMain(); }

void Machine::FiberMain() {
  for (;;) {
    body_(args_);
    Thread& self = *fibers_[place.thread];
    const bool in_flight =
        !self.open_group.empty() || std::any_of(self.groups.begin(), self.groups.end(),
                                                [](const auto& g) { return !g.empty(); });
    if (in_flight) Fail("returned with copies in flight");
    self.groups.clear();
    self.state = State::kDone;
    Suspend();
  }
}

void Machine::Suspend() {
  if (_setjmp(fibers_[place.thread]->resume) == 0) _longjmp(scheduler_, 1);
}

void Machine::Resume(int thread) {
  place.thread = thread;
  Thread& fiber = *fibers_[thread];
  if (_setjmp(scheduler_) != 0) return;
  if (fiber.entered) _longjmp(fiber.resume, 1);
  fiber.entered = true;
  setcontext(&fiber.entry);
}

void Machine::Fail(const char* format, ...) {
  char what[160];
  va_list values;
  va_start(values, format);
  std::vsnprintf(what, sizeof(what), format, values);
  va_end(values);
  Report("thread %d: %s", place.thread, what);
  _longjmp(scheduler_, 1);
}

void Machine::Report(const char* format, ...) {
  failed_ = true;
  const Dim3& block = place.block;
  const int size =
      std::snprintf(error_, sizeof(error_), "block (%u, %u, %u) ", block.x, block.y, block.z);
  va_list values;
  va_start(values, format);
  std::vsnprintf(error_ + size, sizeof(error_) - size, format, values);
  va_end(values);
}

void Machine::Prepare(int threads, int shared_bytes) {
  threads_ = threads;
  while (fibers_.size() < static_cast<size_t>(threads)) {
    fibers_.push_back(std::make_unique<Thread>());
    ucontext_t& entry = fibers_.back()->entry;
    getcontext(&entry);
    entry.uc_stack.ss_sp = fibers_.back()->stack.get();
    entry.uc_stack.ss_size = kStackBytes;
    makecontext(&entry, EnterFiber, 0);
  }
  constexpr size_t kAlignment = 128;
  shared_bytes_ = shared_bytes;
  shared_memory_.resize(shared_bytes + kAlignment);
  const auto base = reinterpret_cast<uintptr_t>(shared_memory_.data());
  shared_ = shared_memory_.data() + (kAlignment - base % kAlignment) % kAlignment;
}

const char* Machine::Run(Dim3 grid, int threads, int shared_bytes, Body body, const void* args) {
  if (threads > kMaxThreads) return "too many threads in a block";
  if (shared_bytes > kMaxSharedBytes) return "too much shared memory";
  Prepare(threads, shared_bytes);
  body_ = body;
  args_ = args;
  std::vector<uint32_t> blocks(grid.x * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  for (size_t i = blocks.size(); i > 1; --i) {
    std::swap(blocks[i - 1], blocks[random.Below(static_cast<uint32_t>(i))]);
  }
  failed_ = false;
  place.grid = grid;
  for (uint32_t block : blocks) {
    place.block = {block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
    RunBlock();
    if (!failed_) continue;
    fibers_.clear();  // where they stopped is of no use any more
    return error_;
  }
  return nullptr;
}

void Machine::RunBlock() {
  std::fill_n(reinterpret_cast<uint16_t*>(shared_), (shared_bytes_ + 1) / 2, kNan);
  cells_.assign((shared_bytes_ + 1) / 2, Cell{});
  block_clock_ = 1;
  const int warps = threads_ / kWarpSize;
  warp_clocks_.assign(warps, 1);
  for (int i = 0; i < threads_; ++i) fibers_[i]->state = State::kRunnable;
  const auto in_state = [&](int warp, State state) {
    return fibers_[warp * kWarpSize]->state == state;  // lanes pass collectives together
  };
  std::vector<int> runnable;
  for (;;) {
    runnable.clear();
    for (int warp = 0; warp < warps; ++warp) {
      if (in_state(warp, State::kRunnable)) runnable.push_back(warp);
    }
    if (runnable.empty()) {
      bool done = true;
      for (int warp = 0; warp < warps; ++warp) done = done && in_state(warp, State::kDone);
      if (done) return;
      if (CompleteBlock()) continue;
      return Report("BlockSync that some warps never reach: they returned");
    }
    RunWarp(runnable[random.Below(static_cast<uint32_t>(runnable.size()))]);
    if (failed_) return;
  }
}

// Runs a warp for a random number of collectives, or until it waits for the block or ends.
void Machine::RunWarp(int warp) {
  for (uint32_t steps = 1 + random.Below(1u << random.Below(9)); steps > 0; --steps) {
    const int start = static_cast<int>(random.Below(kWarpSize));
    const int direction = random.Below(2) == 0 ? 1 : kWarpSize - 1;
    for (int i = 0; i < kWarpSize; ++i) {
      Resume(warp * kWarpSize + (start + i * direction) % kWarpSize);
      if (failed_) return;
    }
    if (!CompleteWarp(warp)) return;
  }
}

float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Element (row, column) of the fragment in `words`: see FragmentA. Rows and columns below 16.
uint16_t ElementOf(const uint32_t* words, int row, int column) {
  const uint32_t word = words[row / 8 + column / 8 * 2];
  return static_cast<uint16_t>(column % 2 == 0 ? word : word >> 16);
}

template <float (*kToFloat)(uint16_t)>
void MmaOf(Operands* const* lanes) {
  float a[16][16], b[16][8];
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      a[i][k] = kToFloat(ElementOf(&lanes[i % 8 * 4 + k % 8 / 2]->in[0], i, k));
    }
    for (int n = 0; n < 8; ++n) {  // B's words are those of A's rows below 8, columns for rows
      const uint32_t word = lanes[n * 4 + i % 8 / 2]->in[4 + i / 8];
      b[i][n] = kToFloat(static_cast<uint16_t>(i % 2 == 0 ? word : word >> 16));
    }
  }
  for (int i = 0; i < 16; ++i) {
    float c[8];
    for (int n = 0; n < 8; ++n) {
      c[n] = FloatOf(lanes[i % 8 * 4 + n / 2]->in[6 + i / 8 * 2 + n % 2]);
    }
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < 8; ++n) c[n] += a[i][k] * b[k][n];
    }
    for (int n = 0; n < 8; ++n) {
      std::memcpy(&lanes[i % 8 * 4 + n / 2]->out[i / 8 * 2 + n % 2], &c[n], 4);
    }
  }
}

void LoadMatrixOf(Operands* const* lanes, bool transposed) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int j = 0; j < 4; ++j) {
      uint32_t low, high;
      if (transposed) {
        low = lanes[8 * j + 2 * t]->row[g];
        high = lanes[8 * j + 2 * t + 1]->row[g];
      } else {
        low = lanes[8 * j + g]->row[2 * t];
        high = lanes[8 * j + g]->row[2 * t + 1];
      }
      lanes[lane]->out[j] = low | high << 16;
    }
  }
}

float HalfToFloat(uint16_t bits) {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 16);
    for (uint32_t i = 0; i < values.size(); ++i)
      values[i] = Float16ToFloat(static_cast<uint16_t>(i));
    return values;
  }();
  return table[bits];
}
float BrainToFloat(uint16_t bits) { return BFloat16ToFloat(bits); }

void Perform(Collective collective, Operands* const* lanes) {
  switch (collective) {
    case Collective::kBlockSync:
    case Collective::kWarpSync:
      return;
    case Collective::kShuffle:
      for (int i = 0; i < kWarpSize; ++i) lanes[i]->out[0] = lanes[lanes[i]->in[1]]->in[0];
      return;
    case Collective::kBallot: {
      uint32_t votes = 0;
      for (int i = 0; i < kWarpSize; ++i) votes |= lanes[i]->in[0] << i;
      for (int i = 0; i < kWarpSize; ++i) lanes[i]->out[0] = votes;
      return;
    }
    case Collective::kLoadMatrix4:
    case Collective::kLoadMatrix4Transposed:
      return LoadMatrixOf(lanes, collective == Collective::kLoadMatrix4Transposed);
    case Collective::kMmaBFloat16:
      return MmaOf<BrainToFloat>(lanes);
    case Collective::kMmaFloat16:
      return MmaOf<HalfToFloat>(lanes);
  }
}

// After each lane ran: all of them ended, or all wait for the same. True if the warp can go on.
bool Machine::CompleteWarp(int warp) {
  Thread& first = *fibers_[warp * kWarpSize];
  Operands* lanes[kWarpSize];
  for (int i = 0; i < kWarpSize; ++i) {
    Thread& lane = *fibers_[warp * kWarpSize + i];
    lanes[i] = lane.operands;
    if (lane.state == first.state &&
        (lane.state == State::kDone || lane.collective == first.collective)) {
      continue;
    }
    const auto doing = [](const Thread& t) {
      return t.state == State::kDone ? "returned" : NameOf(t.collective);
    };
    Report("warp %d diverged: lane 0 %s, lane %d %s", warp, doing(first), i, doing(lane));
    return false;
  }
  if (first.state == State::kDone || first.collective == Collective::kBlockSync) return false;
  Perform(first.collective, lanes);
  if (first.collective == Collective::kWarpSync) ++warp_clocks_[warp];
  for (int i = 0; i < kWarpSize; ++i) fibers_[warp * kWarpSize + i]->state = State::kRunnable;
  return true;
}

// Every warp that is left waits for the block: true unless one returned.
bool Machine::CompleteBlock() {
  for (int i = 0; i < threads_; ++i) {
    if (fibers_[i]->state == State::kDone) return false;
  }
  ++block_clock_;
  for (int i = 0; i < threads_; ++i) fibers_[i]->state = State::kRunnable;
  return true;
}

void Machine::Meet(Collective collective, Operands& operands) {
  Thread& self = *fibers_[place.thread];
  if (collective == Collective::kLoadMatrix4 || collective == Collective::kLoadMatrix4Transposed) {
    CheckShared(operands.row, 16, Access::kRead);
  }
  self.collective = collective;
  self.operands = &operands;
  self.state = State::kWaiting;
  Suspend();
}

bool Machine::Ordered(const LastAccess& last) const {
  if (last.block_clock != block_clock_) return true;
  const int warp = place.thread / kWarpSize;
  if (last.warp != warp) return false;
  return last.thread == place.thread || last.warp_clock != warp_clocks_[warp];
}

void Machine::CheckShared(const void* address, int bytes, Access access) {
  const long long offset = static_cast<const std::byte*>(address) - shared_;
  if (offset < 0 || offset + bytes > shared_bytes_) {
    Fail("shared memory at %lld: %d bytes, of %d", offset, bytes, shared_bytes_);
  }
  if (offset % bytes != 0) Fail("shared memory at %lld: misaligned for %d bytes", offset, bytes);
  const int warp = place.thread / kWarpSize;
  const LastAccess now = {block_clock_, warp_clocks_[warp], static_cast<int16_t>(warp),
                          static_cast<int16_t>(place.thread)};
  for (long long i = offset / 2; i < (offset + bytes + 1) / 2; ++i) {
    Cell& cell = cells_[i];
    if (!Ordered(cell.write) || (access == Access::kWrite && !Ordered(cell.read))) {
      const LastAccess& last = Ordered(cell.write) ? cell.read : cell.write;
      Fail("race: shared memory at %lld %s; %s by thread %d of warp %d, no barrier in between",
           2 * i, access == Access::kWrite ? "written" : "read",
           &last == &cell.write ? "written" : "read", last.thread, last.warp);
    }
    if (access == Access::kWrite) {
      cell.write = now;
    } else if (Ordered(cell.read)) {
      cell.read = now;
    } else {  // several readers between two barriers
      cell.read.thread = LastAccess::kSeveral;
      if (cell.read.warp != warp) cell.read.warp = LastAccess::kSeveral;
      cell.read.warp_clock = std::max(cell.read.warp_clock, now.warp_clock);
    }
  }
}

void Machine::Copy(void* to, const void* from) {
  CheckAligned(from, 16);
  CheckShared(to, 16, Access::kWrite);
  std::fill_n(static_cast<uint16_t*>(to), 8, kNan);  // nobody may count on what was there
  fibers_[place.thread]->open_group.push_back({static_cast<std::byte*>(to), from});
}

void Machine::Commit() {
  Thread& self = *fibers_[place.thread];
  self.groups.push_back(std::move(self.open_group));
  self.open_group.clear();
}

void Machine::Wait(int pending) {
  Thread& self = *fibers_[place.thread];
  while (self.groups.size() > static_cast<size_t>(pending)) {
    Land(self.groups.front());
    self.groups.pop_front();
  }
}

void Machine::Land(const std::vector<AsyncCopy>& group) {
  for (const AsyncCopy& copy : group) {
    CheckShared(copy.to, 16, Access::kWrite);
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, 16);
    } else {
      std::memcpy(copy.to, copy.from, 16);
    }
  }
}

}  // namespace

void SetSeed(uint64_t seed) { TheMachine().random.Seed(seed); }
void Meet(Collective collective, Operands& operands) { TheMachine().Meet(collective, operands); }
void CheckShared(const void* address, int bytes, Access access) {
  TheMachine().CheckShared(address, bytes, access);
}
void CheckAligned(const void* address, int bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
  TheMachine().Fail("global memory at %p: misaligned for %d bytes", address, bytes);
}
const Place& Here() { return TheMachine().place; }
void* SharedMemoryBase() { return TheMachine().shared(); }
void Copy(void* to, const void* from) { TheMachine().Copy(to, from); }
void Commit() { TheMachine().Commit(); }
void Wait(int pending) { TheMachine().Wait(pending); }
const char* Run(Dim3 grid, int threads, int shared_bytes, Body body, const void* args,
                size_t args_bytes, Stream stream) {
  if (stream == nullptr) return TheMachine().Run(grid, threads, shared_bytes, body, args);
  std::vector<Bits128> copy((args_bytes + sizeof(Bits128) - 1) / sizeof(Bits128));
  std::memcpy(copy.data(), args, args_bytes);
  static_cast<Work*>(stream)->push_back([=, copy = std::move(copy)] {
    return TheMachine().Run(grid, threads, shared_bytes, body, copy.data());
  });
  return nullptr;
}

}  // namespace acuity::kernels::prim::emulation
