// The emulation keeps the contract of prim.h: exchanges and fragments as PTX defines them, and
// every broken rule ends in a sentence.
#include "kernels/cuda/prim/prim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace acuity::kernels::prim {
namespace {

using testing::HasSubstr;

// A kernel whose body is given as a type with operator()(Args).
template <typename Function, int kThreadCount>
struct Kernel {
  struct Args {
    float* out;
    const float* in;
    int choice;
  };
  static constexpr int kThreads = kThreadCount;
  static constexpr int kMinBlocksPerSm = 1;
  static void Run(const Args& args) { Function()(args.out, args.in, args.choice); }
};

template <int kThreads, typename Function>
std::string Try(Function, int shared_bytes, float* out = nullptr, const float* in = nullptr,
                int choice = 0, Dim3 grid = {}) {
  const char* error =
      Launch<Kernel<Function, kThreads>>(grid, shared_bytes, {out, in, choice}, nullptr);
  return error == nullptr ? "" : error;
}

TEST(Prim, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<float> out(3 * 2 * 64);
  const auto body = [](float* out, const float*, int) {
    const Dim3 block = BlockIndex();
    out[(block.y * GridSize().x + block.x) * 64 + ThreadIndex()] += 1;
  };
  EXPECT_EQ(Try<64>(body, 0, out.data(), nullptr, 0, {3, 2, 1}), "");
  EXPECT_EQ(out, std::vector<float>(out.size(), 1));
  EXPECT_EQ(Try<64>(body, 0, out.data(), nullptr, 0, {0, 2, 1}), "") << "an empty grid";
}

TEST(Prim, ShuffleAndBallot) {
  std::vector<float> out(64);
  const auto body = [](float* out, const float*, int) {
    const int lane = LaneIndex();
    const float rotated = Shuffle(static_cast<float>(lane), lane + 1);
    const int mirrored = ShuffleXor(lane, 31);
    const bool ok = mirrored == 31 - lane && Ballot(lane % 3 == 0) == 0x49249249u;
    out[ThreadIndex()] = ok ? rotated : -1;
  };
  EXPECT_EQ(Try<64>(body, 0, out.data()), "");
  for (int i = 0; i < 64; ++i) EXPECT_EQ(out[i], (i + 1) % 32);
}

// C = A B through shared memory: A and (with transposition) B come from row-major matrices.
template <DType kType>
struct Product {
  void operator()(float* out, const float* in, int) const {
    const Shared<uint16_t> a = SharedMemory<uint16_t>(), b = a + 256;  // [16, 16], [16, 16]
    const int lane = LaneIndex();
    for (int i = lane; i < 256; i += kWarpSize) {
      a[i] = static_cast<uint16_t>(Pack<kType>(in[i], 0));
      b[i] = static_cast<uint16_t>(Pack<kType>(in[256 + i], 0));
    }
    WarpSync();
    const int row = lane % 16, column = lane / 16 * 8;
    FragmentA left;
    LoadMatrix4(a + (row * 16 + column), left.word);
    uint32_t right[4];
    LoadMatrix4Transposed(b + (row * 16 + column), right);
    for (int half = 0; half < 2; ++half) {
      FragmentC c = {};
      Mma<kType>(c, left, {{right[2 * half], right[2 * half + 1]}});
      for (int e = 0; e < 4; ++e) {
        out[(lane / 4 + e / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + e % 2] = c.value[e];
      }
    }
  }
};

TEST(Prim, FragmentsMultiplyAsMatrices) {
  std::vector<float> in(512), out(256);
  for (int i = 0; i < 512; ++i) in[i] = static_cast<float>(i * 37 % 29 - 14) / 8;
  for (DType type : {DType::kBFloat16, DType::kFloat16}) {
    EXPECT_EQ(type == DType::kBFloat16
                  ? Try<32>(Product<DType::kBFloat16>(), 1024, out.data(), in.data())
                  : Try<32>(Product<DType::kFloat16>(), 1024, out.data(), in.data()),
              "");
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 16; ++j) {
        float expected = 0;
        for (int k = 0; k < 16; ++k) expected += in[i * 16 + k] * in[256 + k * 16 + j];
        EXPECT_EQ(out[i * 16 + j], expected) << i << "," << j;
      }
    }
  }
}

TEST(Prim, SpecialFunctions) {
  EXPECT_EQ(Exp2(-130), 0);
  EXPECT_EQ(Exp2(-252), 0);
  EXPECT_EQ(Exp2(3), 8);
  EXPECT_EQ(Log2(8), 3);
  EXPECT_EQ(Reciprocal(4), 0.25f);
  EXPECT_EQ(FusedMultiplyAdd(2, 3, 4), 10);
}

TEST(Prim, IntegerAtomicsWrapLikeTwosComplement) {
  int32_t small = 5;
  EXPECT_EQ(AtomicAdd(&small, -7), 5);
  EXPECT_EQ(small, -2);
  uint64_t large = 1;
  EXPECT_EQ(AtomicAdd(&large, ~uint64_t{0}), 1u);
  EXPECT_EQ(large, 0u);
}

TEST(Prim, CopiesLandWhenWaitedFor) {
  alignas(16) float in[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<float> out(12 * 32);
  const auto body = [](float* out, const float* in, int) {
    const Shared<Bits128> mine = SharedMemory<Bits128>() + 3 * ThreadIndex();
    const Shared<float> floats = mine.As<float>();
    CopyAsync(mine, in, true);
    CommitCopies();
    CopyAsync(mine + 1, in + 4, true);
    CopyAsync(mine + 2, nullptr, false);
    CommitCopies();
    WaitCopies<1>();
    float* to = out + 12 * ThreadIndex();
    for (int i = 0; i < 12; ++i) to[i] = floats[i];
    WaitCopies<0>();
    for (int i = 4; i < 12; ++i) to[i] = std::isnan(to[i]) ? static_cast<float>(floats[i]) : -1;
  };
  EXPECT_EQ(Try<32>(body, 3 * 16 * 32, out.data(), in), "");
  for (int i = 0; i < 12; ++i) EXPECT_EQ(out[12 * 5 + i], i < 8 ? i + 1 : 0);
}

TEST(Prim, SharedMemoryStartsAsNanInEveryBlock) {
  std::vector<float> out(4 * 32);
  const auto body = [](float* out, const float*, int) {
    const Shared<float> mine = SharedMemory<float>() + ThreadIndex();
    out[BlockIndex().x * 32 + ThreadIndex()] = mine[0];
    mine[0] = 1;
  };
  EXPECT_EQ(Try<32>(body, 128, out.data(), nullptr, 0, {4, 1, 1}), "");
  for (float x : out) EXPECT_TRUE(std::isnan(x));
}

// ---- Broken rules: each is named, whatever the schedule ----

// Runs with many schedules; all must report `what` ("": none reports anything).
template <int kThreads, typename Function>
void ExpectEachReports(Function body, int shared_bytes, const char* what, int choice = 0) {
  alignas(16) float in[16] = {};
  std::vector<float> out(256);
  for (int seed = 0; seed < 30; ++seed) {
    emulation::SetSeed(seed);
    const std::string error = Try<kThreads>(body, shared_bytes, out.data(), in, choice);
    EXPECT_THAT(error, HasSubstr(what)) << seed;
    EXPECT_EQ(error.empty(), *what == 0) << error;
  }
}

TEST(PrimRules, MissingBlockSync) {
  const auto body = [](float* out, const float*, int sync) {
    const Shared<float> shared = SharedMemory<float>();
    shared[ThreadIndex()] = 1;
    if (sync != 0) BlockSync();
    out[ThreadIndex()] = shared[(ThreadIndex() + 32) % 64];
  };
  ExpectEachReports<64>(body, 256, "race");
  ExpectEachReports<64>(body, 256, "", 1);
}

TEST(PrimRules, MissingWarpSyncAndOverwritingWhatIsBeingRead) {
  const auto body = [](float* out, const float*, int sync) {
    const Shared<float> shared = SharedMemory<float>();
    shared[ThreadIndex()] = 1;
    if (sync != 1) WarpSync();
    out[ThreadIndex()] = shared[ThreadIndex() ^ 1];
    if (sync != 2) WarpSync();
    shared[ThreadIndex()] = 2;
  };
  ExpectEachReports<32>(body, 256, "race", 1);
  ExpectEachReports<32>(body, 256, "race", 2);
  ExpectEachReports<32>(body, 256, "", 0);
}

TEST(PrimRules, ShufflesDoNotOrderSharedMemory) {
  const auto body = [](float* out, const float*, int) {
    const Shared<float> shared = SharedMemory<float>();
    shared[ThreadIndex()] = 1;
    ShuffleXor(1, 1);
    out[ThreadIndex()] = shared[ThreadIndex() ^ 1];
  };
  ExpectEachReports<32>(body, 256, "race");
}

TEST(PrimRules, ReadingCopiesOfOthersWithoutABarrier) {
  const auto body = [](float* out, const float* in, int) {
    const Shared<Bits128> shared = SharedMemory<Bits128>();
    CopyAsync(shared + ThreadIndex(), in, true);
    CommitCopies();
    WaitCopies<0>();
    out[ThreadIndex()] = shared.As<float>()[(ThreadIndex() ^ 1) * 4];
  };
  ExpectEachReports<32>(body, 512, "race");
}

TEST(PrimRules, CopiesInFlightAtTheEnd) {
  const auto body = [](float*, const float* in, int) {
    CopyAsync(SharedMemory<Bits128>() + ThreadIndex(), in, true);
    CommitCopies();
  };
  ExpectEachReports<32>(body, 512, "in flight");
}

TEST(PrimRules, BoundsAndAlignment) {
  const auto beyond = [](float*, const float*, int at) { SharedMemory<float>()[at] = 1; };
  ExpectEachReports<32>(beyond, 128, "shared memory at 128", 32);
  ExpectEachReports<32>(beyond, 128, "shared memory at -4", -1);
  const auto askew = [](float*, const float* in, int) {
    CopyAsync((SharedMemory<float>() + 1).As<Bits128>(), in, true);
  };
  ExpectEachReports<32>(askew, 128, "misaligned");
  const auto from = [](float*, const float* in, int) { Load128(in + 1); };
  ExpectEachReports<32>(from, 0, "global memory");
}

TEST(PrimRules, DivergedCollectives) {
  const auto others = [](float*, const float*, int) {
    if (LaneIndex() == 7) {
      WarpSync();
    } else {
      Ballot(true);
    }
  };
  ExpectEachReports<32>(others, 0, "diverged");
  const auto gone = [](float*, const float*, int) {
    if (LaneIndex() != 7) WarpSync();
  };
  ExpectEachReports<32>(gone, 0, "returned");
  const auto warp_gone = [](float*, const float*, int) {
    if (WarpIndex() != 1) BlockSync();
  };
  ExpectEachReports<96>(warp_gone, 0, "BlockSync");
}

TEST(PrimRules, AFailedLaunchLeavesTheNextOneAlone) {
  const auto gone = [](float*, const float*, int) {
    if (LaneIndex() != 7) WarpSync();
  };
  EXPECT_NE(Try<32>(gone, 0), "");
  std::vector<float> out(32);
  const auto body = [](float* out, const float*, int) { out[ThreadIndex()] = 1; };
  EXPECT_EQ(Try<32>(body, 0, out.data()), "");
  EXPECT_EQ(out, std::vector<float>(32, 1));
}

}  // namespace
}  // namespace acuity::kernels::prim
