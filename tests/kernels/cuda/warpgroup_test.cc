// The emulation keeps the contract of warpgroup.h: barriers, layouts and fragments as PTX defines
// them, and every broken rule ends in a sentence.
#include "kernels/cuda/prim/warpgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace acuity::kernels::prim {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

// A kernel whose body is given as a type with operator()(out, in, choice).
template <typename Function, int kThreadCount>
struct Kernel {
  struct Args {
    float* out;
    const uint16_t* in;
    int choice;
  };
  static constexpr int kThreads = kThreadCount;
  static constexpr int kMinBlocksPerSm = 1;
  static void Run(const Args& args) { Function()(args.out, args.in, args.choice); }
};

template <int kThreads, typename Function>
std::string Try(Function, int shared_bytes, float* out = nullptr, const uint16_t* in = nullptr,
                int choice = 0) {
  const char* error =
      Launch<Kernel<Function, kThreads>>({}, shared_bytes, {out, in, choice}, nullptr);
  return error == nullptr ? "" : error;
}

float Element(int i) { return static_cast<float>(i * 37 % 29 - 14) / 8; }

// Row-major [rows, columns] to where products read it.
template <DType kType>
void StoreMatrix(Shared<uint16_t> to, int rows, int columns, int seed) {
  for (int i = ThreadIndex(); i < rows * columns; i += kWarpgroupSize) {
    const int row = i / columns, column = i % columns;
    to[PanelOffset(rows, row, column / 8) + column % 8] =
        static_cast<uint16_t>(Pack<kType>(Element(i + seed), 0));
  }
}

void StoreResult(const FragmentC* d, int columns, float* out) {
  const int row = WarpIndex() * 16 + LaneIndex() / 4, t = LaneIndex() % 4;
  for (int j = 0; j < columns / 8; ++j) {
    for (int e = 0; e < 4; ++e) {
      out[(row + e / 2 * 8) * columns + 8 * j + 2 * t + e % 2] = d[j].value[e];
    }
  }
}

// S [64 x 128] = A [64 x 96] B^T with B [128 x 96]: two panels, the second one half used.
template <DType kType>
struct Transposed {
  static constexpr int kDepth = 96, kBytes = (64 + 128) * 128 * 2;
  void operator()(float* out, const uint16_t*, int) const {
    const Shared<uint16_t> a = SharedMemory<uint16_t>(), b = a + 64 * 128;
    StoreMatrix<kType>(a, 64, kDepth, 0);
    StoreMatrix<kType>(b, 128, kDepth, 5);
    FenceAsyncProxy();
    WarpgroupSync();
    FragmentC d[16];
    FenceProducts();
    for (int step = 0; step < kDepth / 16; ++step) {
      const int within = step % 4 * 32;
      Multiply<kType, 128>(d, Advance(MatrixAt(a, 0), step / 4 * 64 * 128 + within),
                           Advance(MatrixAt(b, 0), step / 4 * 128 * 128 + within), step > 0);
    }
    CommitProducts();
    WaitProducts<0>(d);
    StoreResult(d, 128, out);
  }
};

// O [64 x kColumns] = 1 + P V, P [64 x 32] in registers, V [32 x kColumns].
template <DType kType, int kColumns>
struct Plain {
  static constexpr int kBytes = 32 * kColumns * 2;
  void operator()(float* out, const uint16_t*, int) const {
    const Shared<uint16_t> v = SharedMemory<uint16_t>();
    StoreMatrix<kType>(v, 32, kColumns, 5);
    FenceAsyncProxy();
    WarpgroupSync();
    FragmentA a[2];
    const int row = WarpIndex() * 16 + LaneIndex() / 4, t = LaneIndex() % 4;
    for (int step = 0; step < 2; ++step) {
      for (int i = 0; i < 4; ++i) {
        const int at = (row + i % 2 * 8) * 32 + 16 * step + 2 * t + i / 2 * 8;
        a[step].word[i] = Pack<kType>(Element(at), Element(at + 1));
      }
    }
    FragmentC d[kColumns / 8];
    for (FragmentC& c : d) c = {{1, 1, 1, 1}};
    FenceProducts(a, d);
    for (int step = 0; step < 2; ++step) {
      MultiplyAdd<kType, kColumns>(d, a[step], Advance(MatrixAt(v, 32 * 128), step * 16 * 128));
    }
    CommitProducts();
    WaitProducts<0>(a, d);
    StoreResult(d, kColumns, out);
  }
};

TEST(Warpgroup, ProductsAreThoseOfMatrices) {
  std::vector<float> out(64 * 128);
  for (int type = 0; type < 2; ++type) {
    EXPECT_EQ(type == 0 ? Try<128>(Transposed<DType::kBFloat16>(),
                                   Transposed<DType::kBFloat16>::kBytes, out.data())
                        : Try<128>(Transposed<DType::kFloat16>(),
                                   Transposed<DType::kFloat16>::kBytes, out.data()),
              "");
    for (int i = 0; i < 64 * 128; ++i) {
      float expected = 0;
      for (int k = 0; k < 96; ++k) {
        expected += Element(i / 128 * 96 + k) * Element(i % 128 * 96 + k + 5);
      }
      ASSERT_EQ(out[i], expected) << i;
    }
  }
  for (int columns : {64, 128}) {
    EXPECT_EQ(columns == 64 ? Try<128>(Plain<DType::kBFloat16, 64>(), 32 * 64 * 2, out.data())
                            : Try<128>(Plain<DType::kFloat16, 128>(), 32 * 128 * 2, out.data()),
              "");
    for (int i = 0; i < 64 * columns; ++i) {
      float expected = 1;
      for (int k = 0; k < 32; ++k) {
        expected += Element(i / columns * 32 + k) * Element(k * columns + i % columns + 5);
      }
      ASSERT_EQ(out[i], expected) << columns << ": " << i;
    }
  }
}

// ---- Rules: which one `choice` breaks; 0: none ----

template <int kThreads, typename Function>
void ExpectEachReports(Function body, int shared_bytes, int choice,
                       const testing::Matcher<std::string>& what) {
  alignas(16) uint16_t in[8 * 128] = {};
  std::vector<float> out(64 * 128);
  for (int seed = 0; seed < 20; ++seed) {
    emulation::SetSeed(seed);
    EXPECT_THAT(Try<kThreads>(body, shared_bytes, out.data(), in, choice), what)
        << "choice " << choice << ", schedule " << seed;
  }
}

enum Broken { kNothing, kNoFull, kNoFree, kParity, kManyArrivals, kUninitialised };

// One warp copies 32 x 16 bytes three times into one place; another reads them, each time.
struct Pipeline {
  void operator()(float* out, const uint16_t* in, int broken) const {
    const Shared<Bits128> place = SharedMemory<Bits128>();
    const Shared<uint64_t> full = (place + 32).As<uint64_t>(), free = full + 1;
    if (ThreadIndex() == 0 && broken != kUninitialised) {
      InitBarrier(full, broken == kManyArrivals ? 33 : 32);
      InitBarrier(free, 1);
    }
    BlockSync();
    for (uint32_t i = 0; i < 3; ++i) {
      if (WarpIndex() == 0) {
        if (broken != kNoFree) WaitBarrier(free, (i & 1) ^ 1);
        CopyAsync(place + LaneIndex(), in + (i * 32 + LaneIndex()) * 8, true);
        ArriveWhenCopied(full);
      } else {
        if (broken != kNoFull) WaitBarrier(full, (i & 1) ^ (broken == kParity));
        const Bits128 bits = place[(LaneIndex() + 1) % 32];
        out[i * 32 + LaneIndex()] = static_cast<float>(bits.word[0]);
        Arrive(free);
      }
    }
  }
};

TEST(WarpgroupRules, CopiesThroughAPipeline) {
  constexpr int kBytes = 32 * 16 + 16;
  ExpectEachReports<64>(Pipeline(), kBytes, kNothing, "");
  // Which of the two warps is ahead decides what is seen first.
  const auto any = AnyOf(HasSubstr("race"), HasSubstr("in flight"), HasSubstr("for ever"));
  ExpectEachReports<64>(Pipeline(), kBytes, kNoFull, any);
  ExpectEachReports<64>(Pipeline(), kBytes, kNoFree, any);
  ExpectEachReports<64>(Pipeline(), kBytes, kParity, any);
  ExpectEachReports<64>(Pipeline(), kBytes, kManyArrivals, HasSubstr("for ever"));
  ExpectEachReports<64>(Pipeline(), kBytes, kUninitialised, HasSubstr("no barrier"));

  alignas(16) uint16_t in[3 * 32 * 8];
  for (int i = 0; i < 3 * 32 * 8; ++i) in[i] = static_cast<uint16_t>(i % 8 == 0 ? i / 8 : 0);
  std::vector<float> out(96);
  EXPECT_EQ(Try<64>(Pipeline(), kBytes, out.data(), in), "");
  for (int i = 0; i < 96; ++i) EXPECT_EQ(out[i], i / 32 * 32 + (i + 1) % 32);
}

enum Misuse {
  kNone,
  kUnfencedMemory,
  kUnsyncedMemory,
  kUnfencedRegisters,
  kOverwritten,
  kOperandChanged,
  kAccumulatorsWritten,
  kNoSwizzle,
  kBeyond,
  kNeverWaited,
};

// O = P V with V written by the warpgroup itself, and overwritten afterwards.
struct Misused {
  void operator()(float* out, const uint16_t*, int misuse) const {
    const Shared<uint16_t> v = SharedMemory<uint16_t>();
    StoreMatrix<DType::kBFloat16>(v, 16, 64, 0);
    if (misuse != kUnfencedMemory) FenceAsyncProxy();
    if (misuse != kUnsyncedMemory) WarpgroupSync();
    FragmentA a[1] = {};
    FragmentC d[8] = {};
    if (misuse != kUnfencedRegisters) FenceProducts(a, d);
    uint64_t matrix = MatrixAt(v + (misuse == kBeyond ? 1024 : 0), 0);
    if (misuse == kNoSwizzle) matrix &= ~(uint64_t{3} << 62);
    MultiplyAdd<DType::kBFloat16, 64>(d, a[0], matrix);
    CommitProducts();
    if (misuse == kOperandChanged) a[0].word[2] = 7;
    if (misuse == kAccumulatorsWritten) d[3].value[1] = 7;
    if (misuse == kOverwritten) {
      WarpgroupSync();
      StoreMatrix<DType::kBFloat16>(v, 16, 64, 0);
    }
    if (misuse != kNeverWaited) WaitProducts<0>(a, d);
    WarpgroupSync();
    StoreMatrix<DType::kBFloat16>(v, 16, 64, 1);
    StoreResult(d, 64, out);
  }
};

TEST(WarpgroupRules, Products) {
  constexpr int kBytes = 16 * 64 * 2;
  ExpectEachReports<128>(Misused(), kBytes, kNone, "");
  ExpectEachReports<128>(Misused(), kBytes, kUnfencedMemory, HasSubstr("proxy"));
  ExpectEachReports<128>(Misused(), kBytes, kUnsyncedMemory, HasSubstr("race"));
  ExpectEachReports<128>(Misused(), kBytes, kUnfencedRegisters, HasSubstr("no FenceProducts"));
  ExpectEachReports<128>(Misused(), kBytes, kOverwritten, HasSubstr("race"));
  ExpectEachReports<128>(Misused(), kBytes, kOperandChanged, HasSubstr("operand changed"));
  ExpectEachReports<128>(Misused(), kBytes, kAccumulatorsWritten, HasSubstr("accumulators used"));
  ExpectEachReports<128>(Misused(), kBytes, kNoSwizzle, HasSubstr("swizzle"));
  ExpectEachReports<128>(Misused(), kBytes, kBeyond, HasSubstr("of 2048"));
  ExpectEachReports<128>(Misused(), kBytes, kNeverWaited, HasSubstr("race"));
}

TEST(WarpgroupRules, WhatIsUnderWayAtTheEnd) {
  const auto copies = [](float*, const uint16_t* in, int) {
    const Shared<uint64_t> barrier = SharedMemory<uint64_t>();
    if (ThreadIndex() == 0) InitBarrier(barrier, 32);
    BlockSync();
    CopyAsync((barrier + (2 + 2 * ThreadIndex())).As<Bits128>(), in, true);
    ArriveWhenCopied(barrier);
  };
  const auto parted = [](float*, const uint16_t*, int) {
    if (WarpIndex() != 2) WarpgroupSync();
  };
  ExpectEachReports<32>(copies, 33 * 16, 0, AnyOf("", HasSubstr("copies in flight")));
  ExpectEachReports<128>(parted, 0, 0, HasSubstr("WarpgroupSync for ever"));
}

TEST(WarpgroupRules, ABarrierIsInitialisedBeforeABlockSync) {
  const auto body = [](float*, const uint16_t*, int) {
    const Shared<uint64_t> barrier = SharedMemory<uint64_t>();
    if (ThreadIndex() == 0) InitBarrier(barrier, 2);
    Arrive(barrier);
  };
  ExpectEachReports<64>(body, 8, 0, AnyOf(HasSubstr("race"), HasSubstr("no barrier")));
}

}  // namespace
}  // namespace acuity::kernels::prim
