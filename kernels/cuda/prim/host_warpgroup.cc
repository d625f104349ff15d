// The part of the machine that warpgroup.h needs: barriers that copies arrive at, and products.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cuda/prim/host_machine.h"

namespace acuity::kernels::prim::emulation {
namespace {

constexpr uint32_t kAllWarps = (1u << kWarpgroupWarps) - 1;
constexpr uint32_t kPoison = uint32_t{kNan} << 16 | kNan;  // a NaN in float32 too

// What a matrix in shared memory is to the instruction. Canonical layouts with 128-byte swizzle, in
// elements of 16 bits (PTX ISA, "Canonical Layouts"):
//   K-major ((8, m), (8, 2)): ((64, stride), (1, 8))       MN-major ((8, 8, m), (8, 2)):
//                                                          ((1, 8, leading), (64, stride))
// and bits 4 to 6 of the address XORed with bits 7 to 9.
struct Matrix {
  explicit Matrix(uint64_t fields)
      : start(static_cast<int>(fields & 0x3fff) << 4),
        leading(static_cast<int>(fields >> 16 & 0x3fff) << 4),
        stride(static_cast<int>(fields >> 32 & 0x3fff) << 4) {}

  // Byte offset in shared memory of element `k` of row `mn` (K-major), or the other way round.
  int At(int mn, int k, bool k_major) const {
    const int place = k_major
                          ? start + mn % 8 * 128 + mn / 8 * stride + k * 2
                          : start + mn % 64 * 2 + mn / 64 * leading + k % 8 * 128 + k / 8 * stride;
    return place ^ (place >> 7 & 7) << 4;
  }

  int start, leading, stride;
};

void Poison(FragmentC* d, int columns) {
  std::fill_n(reinterpret_cast<uint32_t*>(d), columns / 2, kPoison);
}
bool Poisoned(const FragmentC* d, int columns) {
  const auto* words = reinterpret_cast<const uint32_t*>(d);
  return std::all_of(words, words + columns / 2, [](uint32_t word) { return word == kPoison; });
}

// Where thread `thread` of a warpgroup keeps word 2 h + e of fragment j in [64, columns].
int PlaceOf(int thread, int columns, int j, int word) {
  const int warp = thread / kWarpSize, g = thread % kWarpSize / 4, t = thread % 4;
  return (warp * 16 + g + word / 2 * 8) * columns + 8 * j + 2 * t + word % 2;
}

template <float (*kToFloat)(uint16_t)>
void MultiplyOf(const Running& running, const std::byte* shared) {
  const Product& product = running.product;
  const int columns = product.columns;
  const bool by_matrix = product.a == nullptr;
  const Matrix a_matrix(product.a_matrix), b_matrix(product.b_matrix);
  const auto load = [shared](int offset) {
    uint16_t bits;
    std::memcpy(&bits, shared + offset, sizeof(bits));
    return kToFloat(bits);
  };
  float b[16][256];
  for (int k = 0; k < 16; ++k) {
    for (int n = 0; n < columns; ++n) b[k][n] = load(b_matrix.At(n, k, by_matrix));
  }
  for (int row = 0; row < 64; ++row) {
    float* c = running.to->value.data() + row * columns;
    for (int k = 0; k < 16; ++k) {
      float a;
      if (by_matrix) {
        a = load(a_matrix.At(row, k, true));
      } else {  // as ElementOf in host.cc: word row / 8 + k / 8 * 2 of lane 4 g + t
        const FragmentA& fragment = running.a[row / 16 * kWarpSize + row % 8 * 4 + k % 8 / 2];
        const uint32_t word = fragment.word[row % 16 / 8 + k / 8 * 2];
        a = kToFloat(static_cast<uint16_t>(k % 2 == 0 ? word : word >> 16));
      }
      for (int n = 0; n < columns; ++n) c[n] += a * b[k][n];
    }
  }
}

}  // namespace

// ---- Barriers ----

void Machine::InitBarrier(const void* barrier, int arrivals) {
  CheckShared(barrier, 8, Access::kWrite);
  BarrierState& state = barriers_[static_cast<const std::byte*>(barrier) - shared_];
  state = {};
  state.arrivals = state.missing = arrivals;
}

BarrierState* Machine::BarrierAt(const void* address) {
  const auto found = barriers_.find(static_cast<const std::byte*>(address) - shared_);
  if (found != barriers_.end()) return &found->second;
  Report("no barrier at shared memory %lld",
         static_cast<long long>(static_cast<const std::byte*>(address) - shared_));
  return nullptr;
}

void Machine::CountArrival(BarrierState& barrier) {
  if (--barrier.missing > 0) return;
  barrier.done.Learn(barrier.open);
  barrier.open = {};
  barrier.missing = barrier.arrivals;
  ++barrier.phase;
}

bool Machine::Reached(int warp) {
  const Operands& wait = *FirstLane(warp).operands;
  BarrierState* barrier = BarrierAt(wait.what);
  if (barrier == nullptr || barrier->phase % 2 == wait.in[0] % 2) return false;
  warps_[warp].knowledge.Learn(barrier->done);
  return true;
}

void Machine::LandAtBarrier(size_t index) {
  const Landing landing = std::move(landings_[index]);
  landings_[index] = std::move(landings_.back());
  landings_.pop_back();
  for (const AsyncCopy& copy : landing.copies) {
    Deliver(copy);
    for (long long i = (copy.to - shared_) / 2, end = i + 8; i < end; ++i) {
      cells_[i].in_flight = false;
    }
  }
  BarrierState& barrier = barriers_[landing.barrier];
  uint32_t& seen = barrier.open.seen[kCopies + landing.warp];
  seen = std::max(seen, landing.clock);
  CountArrival(barrier);
}

// ---- What a warp, or a warpgroup, does together ----

void Machine::PerformAsync(int warp, Collective collective, Operands* const* lanes) {
  WarpState& state = warps_[warp];
  const Operands& first = *lanes[0];
  const bool same = std::all_of(lanes, lanes + kWarpSize, [&](const Operands* lane) {
    return lane->what == first.what && lane->in[0] == first.in[0];
  });
  if (!same) {
    return Report("warp %d: lanes differ at %s", warp, NameOf(collective));
  }
  switch (collective) {
    case Collective::kArrive: {
      BarrierState* barrier = BarrierAt(first.what);
      if (barrier == nullptr) return;
      barrier->open.Learn(state.knowledge);
      barrier->open.seen[warp] = std::max(barrier->open.seen[warp], state.clock++);
      return CountArrival(*barrier);
    }
    case Collective::kArriveWhenCopied: {
      if (BarrierAt(first.what) == nullptr) return;
      const long long at = static_cast<const std::byte*>(first.what) - shared_;
      for (int i = 0; i < kWarpSize; ++i) {
        std::vector<AsyncCopy>& copies = fibers_[warp * kWarpSize + i]->open_group;
        landings_.push_back({std::move(copies), at, warp, state.copies_clock});
        copies.clear();
      }
      ++state.copies_clock;
      return;
    }
    case Collective::kFenceAsyncProxy:
      state.knowledge.fenced = state.knowledge.seen;
      state.knowledge.fenced[warp] = state.clock++;
      return;
    case Collective::kFenceProducts:
      state.registers_fenced = true;
      return;
    case Collective::kCommitProducts:
      ++state.committed;
      return;
    case Collective::kWaitProducts:
      state.registers_fenced = false;
      return WaitForProducts(warp, std::max(state.committed, first.in[0]) - first.in[0]);
    default:  // kWaitBarrier: Reached did it
      return;
  }
}

void Machine::ReleaseWaiting() {
  for (int warp = 0; warp < static_cast<int>(warps_.size()) && !failed_; ++warp) {
    const Thread& lane = FirstLane(warp);
    if (lane.state != State::kWaiting) continue;
    if (lane.collective == Collective::kWaitBarrier && Reached(warp)) Release(warp);
    if (lane.collective < Collective::kWarpgroupSync || warp % kWarpgroupWarps != 0) continue;
    bool all = warp + kWarpgroupWarps <= static_cast<int>(warps_.size());
    for (int i = warp; all && i < warp + kWarpgroupWarps; ++i) {
      all = FirstLane(i).state == State::kWaiting && FirstLane(i).collective == lane.collective;
    }
    if (!all) continue;
    if (lane.collective == Collective::kWarpgroupSync) {
      ShareKnowledge(warp, kWarpgroupWarps);
    } else {
      StartProduct(warp / kWarpgroupWarps);
    }
    for (int i = warp; i < warp + kWarpgroupWarps; ++i) Release(i);
  }
}

bool Machine::Progress(uint32_t deeds) {
  bool any = false;
  for (; deeds > 0; --deeds) {
    const auto pending = static_cast<uint32_t>(landings_.size());
    if (pending > 0) LandAtBarrier(random.Below(pending)), any = true;
    const uint32_t group = random.Below(static_cast<uint32_t>(warpgroups_.size()));
    for (Running& running : warpgroups_[group].running) {
      if (running.executed) continue;
      Execute(running);
      break;
    }
  }
  return any;
}

const char* Machine::UnderWay() const {
  if (!landings_.empty()) return "copies in flight";
  for (const WarpgroupState& group : warpgroups_) {
    if (!group.running.empty()) return "products under way";
  }
  return nullptr;
}

// ---- Products ----

void Machine::StartProduct(int group) {
  WarpgroupState& state = warpgroups_[group];
  const int first_warp = group * kWarpgroupWarps;
  Running running;
  const auto product_of = [&](int thread) -> const Product& {
    return *static_cast<const Product*>(fibers_[first_warp * kWarpSize + thread]->operands->what);
  };
  running.product = product_of(0);
  running.group = warps_[first_warp].committed + 1;
  for (int thread = 0; thread < kWarpgroupSize; ++thread) {
    const Product& product = product_of(thread);
    if (!product.SameAs(running.product)) return Report("warpgroup %d: products differ", group);
    running.a_at[thread] = product.a;
    if (product.a != nullptr) running.a[thread] = *product.a;
  }
  for (int warp = first_warp; warp < first_warp + kWarpgroupWarps; ++warp) {
    if (!warps_[warp].registers_fenced) return Report("warp %d: no FenceProducts", warp);
    if (warps_[warp].committed + 1 != running.group) {
      return Report("warpgroup %d: warps committed different groups of products", group);
    }
  }
  const Product& product = running.product;
  const bool by_matrix = product.a == nullptr;
  if (by_matrix && !CheckMatrix(group, product.a_matrix, false, 64)) return;
  if (!CheckMatrix(group, product.b_matrix, !by_matrix, product.columns)) return;
  running.to = AccumulatorsOf(group, running.group);
  state.running.push_back(running);
}

// D's values so far are taken from the threads, which find NaN there until they have waited.
Accumulators* Machine::AccumulatorsOf(int group, uint32_t products_group) {
  std::list<Accumulators>& all = warpgroups_[group].accumulators;
  const auto product_of = [&](int thread) -> const Product& {
    return *static_cast<const Product*>(fibers_[group * kWarpgroupSize + thread]->operands->what);
  };
  const Product& first = product_of(0);
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const Accumulators& a) { return a.at[0] == first.d; });
  if (found != all.end()) {
    found->last_group = products_group;
    return &*found;
  }
  Accumulators& accumulators = all.emplace_back();
  accumulators.columns = first.columns;
  accumulators.value.resize(size_t{64} * static_cast<size_t>(first.columns));
  accumulators.last_group = products_group;
  for (int thread = 0; thread < kWarpgroupSize; ++thread) {
    FragmentC* d = accumulators.at[thread] = product_of(thread).d;
    for (int j = 0; first.add && j < first.columns / 8; ++j) {
      for (int word = 0; word < 4; ++word) {
        accumulators.value[PlaceOf(thread, first.columns, j, word)] = d[j].value[word];
      }
    }
    Poison(d, first.columns);
  }
  return &accumulators;
}

// The fields, and every 16 bytes that they make the product read.
bool Machine::CheckMatrix(int group, uint64_t fields, bool transposed, int rows) {
  const Matrix matrix(fields);
  if (fields >> 62 != 1 || (fields >> 46 & 0xffff) != 0 || matrix.start % 1024 / 128 != 0) {
    Report("warpgroup %d: a matrix without 128-byte swizzle, or not at a multiple of 1024 bytes",
           group);
    return false;
  }
  for (int mn = 0; mn < rows; mn += transposed ? 8 : 1) {
    for (int k = 0; k < 16; k += transposed ? 1 : 8) {
      if (!CheckProductRead(group, matrix.At(mn, k, !transposed))) return false;
    }
  }
  return true;
}

bool Machine::CheckProductRead(int group, long long offset) {
  if (offset + 16 > shared_bytes_) {
    Report("warpgroup %d: a product reads shared memory at %lld, of %d", group, offset,
           shared_bytes_);
    return false;
  }
  const int first_warp = group * kWarpgroupWarps;
  const LastAccess now = {block_clock_, warps_[first_warp].committed + 1,
                          static_cast<int16_t>(kProducts + group), LastAccess::kProduct};
  for (long long i = offset / 2; i < offset / 2 + 8; ++i) {
    Cell& cell = cells_[i];
    for (int warp = first_warp; warp < first_warp + kWarpgroupWarps; ++warp) {
      const LastAccess& write = cell.write;
      const Knowledge& knowledge = warps_[warp].knowledge;
      if (write.block_clock == 0 || knowledge.fenced[write.actor] >= write.clock) continue;
      const bool known = write.actor == warp || knowledge.seen[write.actor] >= write.clock;
      Report("%s: a product reads shared memory at %lld, written by thread %d; warp %d %s",
             known ? "proxy" : "race", 2 * i, write.thread, warp,
             known ? "called no FenceAsyncProxy since" : "waited for no barrier since");
      return false;
    }
    if (cell.in_flight) {
      Report("in flight: a product reads shared memory at %lld before a copy landed", 2 * i);
      return false;
    }
    NoteRead(cell, now);
  }
  return true;
}

void Machine::Execute(Running& running) {
  const Product& product = running.product;
  if (!product.add) std::fill(running.to->value.begin(), running.to->value.end(), 0.0f);
  if (product.type == DType::kBFloat16) {
    MultiplyOf<BrainToFloat>(running, shared_);
  } else {
    MultiplyOf<HalfToFloat>(running, shared_);
  }
  running.executed = true;
}

// Groups up to `through` are done for this warp: it has its registers back.
void Machine::WaitForProducts(int warp, uint32_t through) {
  const int group = warp / kWarpgroupWarps, in_group = warp % kWarpgroupWarps;
  WarpgroupState& state = warpgroups_[group];
  const uint32_t bit = 1u << in_group;
  for (Running& running : state.running) {
    if (running.group > through) break;
    if (!running.executed) Execute(running);
    for (int i = in_group * kWarpSize; i < (in_group + 1) * kWarpSize; ++i) {
      if ((running.waited & bit) != 0 || running.a_at[i] == nullptr) continue;
      if (std::memcmp(running.a_at[i], &running.a[i], sizeof(FragmentA)) != 0) {
        return Report("warp %d: a product's operand changed in registers before WaitProducts",
                      warp);
      }
    }
    running.waited |= bit;
  }
  for (Accumulators& accumulators : state.accumulators) {
    if (accumulators.last_group > through || (accumulators.returned & bit) != 0) continue;
    for (int i = in_group * kWarpSize; i < (in_group + 1) * kWarpSize; ++i) {
      FragmentC* d = accumulators.at[i];
      if (!Poisoned(d, accumulators.columns)) {
        return Report("warp %d: accumulators used before WaitProducts", warp);
      }
      for (int j = 0; j < accumulators.columns / 8; ++j) {
        for (int word = 0; word < 4; ++word) {
          d[j].value[word] = accumulators.value[PlaceOf(i, accumulators.columns, j, word)];
        }
      }
    }
    accumulators.returned |= bit;
  }
  while (!state.running.empty() && state.running.front().waited == kAllWarps) {
    state.running.pop_front();
  }
  state.accumulators.remove_if([](const Accumulators& a) { return a.returned == kAllWarps; });
  uint32_t& seen = warps_[warp].knowledge.seen[kProducts + group];
  seen = std::max(seen, through);
}

// ---- Called by fibers ----

void InitBarrierAt(const void* barrier, int arrivals) {
  TheMachine().InitBarrier(barrier, arrivals);
}
void MeetAt(Collective collective, const void* what, uint32_t value) {
  const bool barrier = collective <= Collective::kWaitBarrier;
  if (barrier) TheMachine().CheckShared(what, 8, Access::kRead);
  Operands operands;
  operands.what = what;
  operands.in[0] = value;
  TheMachine().Meet(collective, operands);
}
uint32_t OffsetOf(const void* address) {
  return static_cast<uint32_t>(static_cast<const std::byte*>(address) - TheMachine().shared());
}

}  // namespace acuity::kernels::prim::emulation
