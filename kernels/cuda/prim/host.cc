#include "kernels/cuda/prim/host.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <numeric>
#include <utility>

#include "kernels/cuda/prim/host_machine.h"
#include "kernels/cuda/prim/host_stream.h"
#include "kernels/cuda/prim/prim.h"

namespace acuity::kernels::prim::emulation {

const char* NameOf(Collective collective) {
  constexpr const char* kNames[] = {"BlockSync",        "WarpSync",       "Shuffle",
                                    "Ballot",           "LoadMatrix4",    "LoadMatrix4Transposed",
                                    "Mma<bf16>",        "Mma<f16>",       "Arrive",
                                    "ArriveWhenCopied", "WaitBarrier",    "FenceAsyncProxy",
                                    "FenceProducts",    "CommitProducts", "WaitProducts",
                                    "WarpgroupSync",    "Multiply"};
  return kNames[static_cast<int>(collective)];
}

Machine& TheMachine() {
  thread_local Machine machine;
  return machine;
}

namespace {

void EnterFiber() { TheMachine().FiberMain(); }

}  // namespace

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
  constexpr size_t kAlignment = 1024;
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
  warps_.assign(warps, WarpState{});
  barriers_.clear();
  landings_.clear();
  warpgroups_.clear();
  warpgroups_.resize((warps + kWarpgroupWarps - 1) / kWarpgroupWarps);
  for (int i = 0; i < threads_; ++i) fibers_[i]->state = State::kRunnable;
  std::vector<int> runnable;
  while (!failed_) {
    if (random.Below(2) == 0) Progress(random.Below(1u << random.Below(9)));
    ReleaseWaiting();
    runnable.clear();
    bool done = true;
    for (int warp = 0; warp < warps; ++warp) {  // lanes pass collectives together
      if (FirstLane(warp).state == State::kRunnable) runnable.push_back(warp);
      done = done && FirstLane(warp).state == State::kDone;
    }
    if (!runnable.empty()) {
      RunWarp(runnable[random.Below(static_cast<uint32_t>(runnable.size()))]);
    } else if (done) {
      if (const char* what = UnderWay()) Report("ended with %s", what);
      return;
    } else if (!failed_ && !CompleteBlock() && !Progress(1)) {
      ReportDeadlock();
    }
  }
}

void Machine::ReportDeadlock() {
  for (int warp = 0; warp < threads_ / kWarpSize; ++warp) {
    const Thread& lane = FirstLane(warp);
    if (lane.state == State::kDone || lane.collective == Collective::kBlockSync) continue;
    return Report("warp %d waits at %s for ever", warp, NameOf(lane.collective));
  }
  Report("BlockSync that some warps never reach: they returned");
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

namespace {

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

}  // namespace

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

void Machine::Perform(int warp, Collective collective, Operands* const* lanes) {
  switch (collective) {
    case Collective::kBlockSync:
      return;
    case Collective::kWarpSync:
      ++warps_[warp].clock;
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
    default:
      return PerformAsync(warp, collective, lanes);
  }
}

void Machine::Release(int warp) {
  for (int i = 0; i < kWarpSize; ++i) fibers_[warp * kWarpSize + i]->state = State::kRunnable;
}

// After each lane ran: all of them ended, or all wait for the same. True if the warp can go on.
bool Machine::CompleteWarp(int warp) {
  Thread& first = FirstLane(warp);
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
  const Collective collective = first.collective;
  if (first.state == State::kDone || collective == Collective::kBlockSync ||
      collective >= Collective::kWarpgroupSync) {
    return false;
  }
  if (collective == Collective::kWaitBarrier && !Reached(warp)) return false;
  Perform(warp, collective, lanes);
  Release(warp);
  return !failed_;
}

// Every warp that is left waits for the block: true unless one returned, or waits for another
// thing.
bool Machine::CompleteBlock() {
  for (int i = 0; i < threads_; ++i) {
    const Thread& thread = *fibers_[i];
    if (thread.state == State::kDone || thread.collective != Collective::kBlockSync) return false;
  }
  ++block_clock_;
  ShareKnowledge(0, threads_ / kWarpSize);
  for (int warp = 0; warp < threads_ / kWarpSize; ++warp) Release(warp);
  return true;
}

void Knowledge::Learn(const Knowledge& other) {
  for (int i = 0; i < kActors; ++i) {
    seen[i] = std::max(seen[i], other.seen[i]);
    fenced[i] = std::max(fenced[i], other.fenced[i]);
  }
}

void Machine::ShareKnowledge(int first, int count) {
  Knowledge all;
  for (int warp = first; warp < first + count; ++warp) {
    all.Learn(warps_[warp].knowledge);
    all.seen[warp] = std::max(all.seen[warp], warps_[warp].clock);
  }
  for (int warp = first; warp < first + count; ++warp) {
    warps_[warp].knowledge = all;
    ++warps_[warp].clock;
  }
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
  if (last.block_clock != block_clock_ || last.thread == place.thread) return true;
  if (last.actor == LastAccess::kSeveral) return false;
  const int warp = place.thread / kWarpSize;
  const uint32_t known = last.actor == warp ? warps_[warp].clock - 1  // of the warp's other lanes
                                            : warps_[warp].knowledge.seen[last.actor];
  return known >= last.clock;
}

void Machine::NoteRead(Cell& cell, const LastAccess& now) {
  for (LastAccess& read : cell.reads) {
    const bool same = read.block_clock == now.block_clock && read.actor == now.actor;
    if (same && read.clock == now.clock && read.thread != now.thread) {
      read.thread = LastAccess::kSeveral;
      return;
    }
    if (same || Ordered(read)) {
      read = now;
      return;
    }
  }
  cell.reads[0].actor = cell.reads[0].thread = LastAccess::kSeveral;
}

void Machine::CheckShared(const void* address, int bytes, Access access) {
  const long long offset = static_cast<const std::byte*>(address) - shared_;
  if (offset < 0 || offset + bytes > shared_bytes_) {
    Fail("shared memory at %lld: %d bytes, of %d", offset, bytes, shared_bytes_);
  }
  if (offset % bytes != 0) Fail("shared memory at %lld: misaligned for %d bytes", offset, bytes);
  const int warp = place.thread / kWarpSize;
  LastAccess now = {block_clock_, warps_[warp].clock, static_cast<int16_t>(warp),
                    static_cast<int16_t>(place.thread)};
  if (access == Access::kCopy) {
    now.clock = warps_[warp].copies_clock;
    now.actor = static_cast<int16_t>(kCopies + warp);
  }
  for (long long i = offset / 2; i < (offset + bytes + 1) / 2; ++i) {
    Cell& cell = cells_[i];
    const LastAccess* last = Ordered(cell.write) ? nullptr : &cell.write;
    for (const LastAccess& read : cell.reads) {
      if (access != Access::kRead && last == nullptr && !Ordered(read)) last = &read;
    }
    if (last != nullptr) {
      const char* const who = last->actor >= kProducts ? "a product" : "a thread";
      Fail("race: shared memory at %lld %s; %s by %s (%d) of warp %d, no barrier in between", 2 * i,
           access == Access::kRead ? "read" : "written", last == &cell.write ? "written" : "read",
           who, last->thread, last->actor % kMaxWarps);
    }
    if (access == Access::kRead) {
      if (cell.in_flight && cell.write.thread != place.thread) {
        Fail("in flight: shared memory at %lld read before a copy landed", 2 * i);
      }
      NoteRead(cell, now);
    } else {
      cell.write = now;
      cell.in_flight = access == Access::kCopy;
    }
  }
}

void Machine::Copy(void* to, const void* from) {
  CheckAligned(from, 16);
  CheckShared(to, 16, Access::kCopy);
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

void Deliver(const AsyncCopy& copy) {
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, 16);
  } else {
    std::memcpy(copy.to, copy.from, 16);
  }
}

void Machine::Land(const std::vector<AsyncCopy>& group) {
  for (const AsyncCopy& copy : group) {
    CheckShared(copy.to, 16, Access::kWrite);
    Deliver(copy);
  }
}

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
