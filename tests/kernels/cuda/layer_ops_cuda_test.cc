// kernels/cuda/layer_ops.h against the CPU's kernels and float64: on the emulated machine with
// random schedules, or on a GPU.
#include "kernels/cuda/layer_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/halves.h"

namespace acuity::kernels::cuda {
namespace {

struct NormCase {
  DType dtype;
  NormKind kind;
  bool delta, bias;
  size_t offset;
  int dim;
};

// The normalised row in float64, from the residual stream x.
std::vector<double> NormOf(const std::vector<float>& x, const NormCase& c, const float* weight,
                           const float* bias) {
  double mean = 0, squares = 0;
  if (c.kind == NormKind::kLayer) {
    for (float v : x) mean += v / static_cast<double>(c.dim);
  }
  for (float v : x) squares += (v - mean) * (v - mean);
  const double scale = 1 / std::sqrt(squares / c.dim + 1e-5);
  std::vector<double> out;
  for (size_t i = 0; i < x.size(); ++i) {
    out.push_back((x[i] - mean) * scale * weight[i] + (bias == nullptr ? 0 : bias[i]));
  }
  return out;
}

void CheckAddNorm(const NormCase& c) {
  SCOPED_TRACE("dim " + std::to_string(c.dim) + " offset " + std::to_string(c.offset));
  constexpr int64_t kRows = 3;
  const std::vector<float> residual = Random(kRows * c.dim, 1, 3), weight = Random(c.dim, 2);
  const std::vector<float> bias = Random(c.dim, 3);
  std::vector<float> delta;
  const std::vector<uint16_t> halves = RandomHalves(c.dtype, kRows * c.dim, 4, &delta, 2);
  DeviceArray<float> residual_d(residual, c.offset), weight_d(weight, c.offset), bias_d(bias, 0);
  DeviceArray<uint16_t> delta_d(halves, c.offset);
  DeviceArray<uint16_t> out_d(std::vector<uint16_t>(halves.size() + 1, kGuard), c.offset);
  AddNormParams p;
  p.norm = {c.kind, 1e-5f, weight_d.data(), c.bias ? bias_d.data() : nullptr};
  p.dtype = c.dtype;
  p.residual = residual_d.data();
  p.delta = c.delta ? delta_d.data() : nullptr;
  p.delta_scale = 0.5f;
  p.out = out_d.data();
  p.rows = kRows;
  p.dim = c.dim;
  ASSERT_STREQ(AddNorm(p, nullptr), nullptr);
  ASSERT_STREQ(Finish(), nullptr);
  const std::vector<float> sum = residual_d.Read();
  const std::vector<uint16_t> out = out_d.Read();
  ASSERT_EQ(out.back(), kGuard);
  for (int64_t row = 0; row < kRows; ++row) {
    const std::vector<float> x(sum.begin() + row * c.dim, sum.begin() + (row + 1) * c.dim);
    const std::vector<double> expected =
        NormOf(x, c, weight.data(), c.bias ? bias.data() : nullptr);
    for (int i = 0; i < c.dim; ++i) {
      const size_t at = static_cast<size_t>(row * c.dim + i);
      const double added = residual[at] + (c.delta ? 0.5 * delta[at] : 0);
      ExpectNear(added, x[i], 1e-7, 1e-6, "residual " + std::to_string(i));
      ExpectNear(expected[i], Widen(c.dtype, out[at]), Tolerance(c.dtype), 4e-6,
                 "row " + std::to_string(row) + " element " + std::to_string(i));
    }
  }
}

TEST(CudaAddNorm, EveryTailKindAndAlignmentAgainstDouble) {
  uint64_t seed = 1;
  for (DType dtype : kTypes) {
    for (NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      for (int dim : {1, 7, 8, 9, 64, 100, 576, 2048, 4099}) {
        SetScheduleSeed(++seed);
        const bool bias = kind == NormKind::kLayer && dim % 2 == 0;
        CheckAddNorm({dtype, kind, true, bias, 0, dim});
        CheckAddNorm({dtype, kind, dim % 2 == 0, false, 1, dim});
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaAddNorm, WithoutANormTheSumIsRounded) {
  constexpr int64_t kRows = 2;
  for (DType dtype : kTypes) {
    for (int dim : {1, 9, 64, 2052}) {
      const std::vector<float> residual = Random(kRows * dim, 1, 3);
      std::vector<float> delta;
      const std::vector<uint16_t> halves = RandomHalves(dtype, kRows * dim, 4, &delta, 2);
      DeviceArray<float> residual_d(residual);
      DeviceArray<uint16_t> delta_d(halves), out_d(std::vector<uint16_t>(kRows * dim, kGuard));
      AddNormParams p;
      p.dtype = dtype;
      p.residual = residual_d.data();
      p.out = out_d.data();
      p.rows = kRows;
      p.dim = dim;
      ASSERT_STREQ(AddNorm(p, nullptr), nullptr);  // rounds
      ASSERT_STREQ(Finish(), nullptr);
      const std::vector<uint16_t> rounded = out_d.Read();
      p.delta = delta_d.data();
      p.delta_scale = 0.5f;
      p.out = nullptr;
      ASSERT_STREQ(AddNorm(p, nullptr), nullptr);  // adds
      ASSERT_STREQ(Finish(), nullptr);
      const std::vector<float> sum = residual_d.Read();
      for (size_t i = 0; i < sum.size(); ++i) {
        ASSERT_EQ(rounded[i], Round(dtype, residual[i])) << dim << " element " << i;
        ASSERT_EQ(sum[i], residual[i] + 0.5f * delta[i]) << dim << " element " << i;
      }
    }
  }
}

TEST(CudaAddNorm, ARowsBitsDependOnNeitherItsNeighboursNorTheSchedule) {
  constexpr int kDim = 700, kRows = 5;
  const std::vector<float> residual = Random(kRows * kDim, 1), weight = Random(kDim, 2);
  const auto run = [&](int first, int rows, uint64_t seed) {
    SetScheduleSeed(seed);
    DeviceArray<float> x(
        {residual.begin() + first * kDim, residual.begin() + (first + rows) * kDim});
    DeviceArray<float> w(weight);
    DeviceArray<uint16_t> out(std::vector<uint16_t>(rows * kDim));
    AddNormParams p;
    p.norm = {NormKind::kRms, 1e-6f, w.data()};
    p.residual = x.data(), p.out = out.data(), p.rows = rows, p.dim = kDim;
    EXPECT_STREQ(AddNorm(p, nullptr), nullptr);
    EXPECT_STREQ(Finish(), nullptr);
    return out.Read();
  };
  const std::vector<uint16_t> all = run(0, kRows, 1);
  EXPECT_EQ(run(0, kRows, 99), all);
  for (int row = 0; row < kRows; ++row) {
    const std::vector<uint16_t> alone = run(row, 1, 7 + row);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + row * kDim)) << row;
  }
}

void CheckActivate(Activation activation, bool gated, DType dtype, int64_t dim, size_t offset) {
  SCOPED_TRACE("activation " + std::to_string(static_cast<int>(activation)) + " dim " +
               std::to_string(dim));
  constexpr int64_t kRows = 2;
  const int64_t width = gated ? 2 * dim : dim;
  std::vector<float> in;
  std::vector<uint16_t> halves = RandomHalves(dtype, kRows * width, 5, &in, 4);
  const float extremes[] = {0.0f, -0.0f, 200.0f, -200.0f, 6.99f, 7.01f, -30.0f};
  for (size_t i = 0; i < std::min<size_t>(7, halves.size()); ++i) {
    halves[i] = Round(dtype, extremes[i]);
    in[i] = Widen(dtype, halves[i]);
  }
  std::vector<float> expected(kRows * dim);
  kernels::Activate(activation, gated, in.data(), kRows, dim, expected.data(), ParallelFor{});
  DeviceArray<uint16_t> in_d(halves, offset);
  DeviceArray<uint16_t> out_d(std::vector<uint16_t>(kRows * dim + 1, kGuard), offset);
  const ActivateParams p = {activation, gated, dtype, in_d.data(), kRows, dim, out_d.data()};
  ASSERT_STREQ(Activate(p, nullptr), nullptr);
  ASSERT_STREQ(Finish(), nullptr);
  const std::vector<uint16_t> out = out_d.Read();
  ASSERT_EQ(out.back(), kGuard);
  for (size_t i = 0; i < expected.size(); ++i) {
    ExpectNear(expected[i], Widen(dtype, out[i]), Tolerance(dtype), 1e-6, std::to_string(i));
  }
}

TEST(CudaActivate, EveryKindTailAndAlignmentAgainstTheCpu) {
  for (DType dtype : kTypes) {
    for (Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
                                  Activation::kClampedSwiglu}) {
      for (bool gated : {true, false}) {
        if (!gated && activation == Activation::kClampedSwiglu) continue;
        for (int64_t dim : {1, 7, 8, 13, 128, 1032, 2053}) {
          CheckActivate(activation, gated, dtype, dim, 0);
          CheckActivate(activation, gated, dtype, dim, 3);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

struct QkvCase {
  int heads, kv_heads, head_dim, rotary_dim;
  RopeStyle style = RopeStyle::kHalf;
  bool norm = false, own_weights = false;
  NormKind kind = NormKind::kRms;
  float magnitude = 1;
  bool whole_norm = false;
  int32_t knee = 0;
  bool apart = false;  // q goes to an array of its own
};

// The arrays of one call, and what the CPU makes of them in float32.
class QkvFixture {
 public:
  static constexpr int kRows = 5, kBlockSize = 16, kPages = 4;

  QkvFixture(const QkvCase& c, DType dtype, DType pages) : c_(c), dtype_(dtype), pages_(pages) {
    halves_ = RandomHalves(dtype, int64_t{kRows} * Width(), 6, &qkv_);
    q_norm_ = Random(int64_t{c.heads} * c.head_dim, 7);
    k_norm_ = Random(int64_t{c.kv_heads} * c.head_dim, 8);
    for (int i = 0; i < c.rotary_dim / 2; ++i) {
      inv_frequency_.push_back(std::pow(10000.0f, -2.0f * i / c.rotary_dim));
      if (c.knee == 0) continue;
      // Few bits, so that products with a position are exact and only their sum is rounded: the
      // CPU's instruction sets fuse differently.
      float& f = inv_frequency_.back();
      f = std::bit_cast<float>(std::bit_cast<uint32_t>(f) & 0xfffe0000u);
      beyond_.push_back(f * (i % 2 == 0 ? 0.25f : 0.5f));
    }
    k_pages_.assign(PageElements() * SizeOf(pages), kUntouched);
    v_pages_ = k_pages_;
  }

  void Expect() {
    std::vector<float> float_k(PageElements(), PageElement({kUntouched, kUntouched}, 0));
    std::vector<float> float_v = float_k;
    if (c_.norm) {
      Normalise(q_norm_, 0, c_.heads);
      Normalise(k_norm_, int64_t{c_.heads} * c_.head_dim, c_.kv_heads);
    }
    RopeAppendParams append;
    append.shape = {c_.heads, c_.kv_heads, c_.head_dim, kBlockSize, DType::kFloat32};
    append.rope = {c_.style,     c_.rotary_dim, inv_frequency_.data(),
                   c_.magnitude, c_.knee,       c_.knee > 0 ? beyond_.data() : nullptr};
    append.qkv = qkv_.data();
    append.rows = kRows - 1;  // the last is padding
    append.positions = positions_.data();
    append.slots = slots_.data();
    append.k_pages = float_k.data();
    append.v_pages = float_v.data();
    RopeAppend(append, ParallelFor{});
    Compare(float_k, k_pages_, "k");
    Compare(float_v, v_pages_, "v");
    for (int64_t row = 0; row + 1 < kRows; ++row) {
      for (int64_t i = 0; i < QueryWidth(); ++i) {
        const size_t at = static_cast<size_t>(row * Width() + i);
        const float q = c_.apart ? q_[row * QueryStride() + i] : Widen(dtype_, halves_[at]);
        ExpectNear(qkv_[at], q, c_.apart ? 3e-6 : Tolerance(dtype_), 2e-5,
                   "q of row " + std::to_string(row) + ", element " + std::to_string(i));
      }
    }
  }

  void Run() {
    DeviceArray<uint16_t> qkv(halves_);
    DeviceArray<uint8_t> k(k_pages_), v(v_pages_);
    DeviceArray<float> q(std::vector<float>(kRows * QueryStride(), kGap));
    DeviceArray<float> frequency(inv_frequency_, 1), beyond(beyond_, 1);
    DeviceArray<float> q_norm(q_norm_, c_.own_weights ? 1 : 0);
    DeviceArray<float> k_norm(k_norm_);
    DeviceArray<int32_t> positions(positions_);
    DeviceArray<int64_t> slots(slots_);
    QkvAppendParams p;
    p.dtype = dtype_;
    p.shape = {c_.heads, c_.kv_heads, c_.head_dim, kBlockSize, pages_};
    p.rope = {c_.style,     c_.rotary_dim, frequency.data(),
              c_.magnitude, c_.knee,       c_.knee > 0 ? beyond.data() : nullptr};
    p.norm = c_.kind;
    p.epsilon = 1e-6f;
    p.q_norm = c_.norm ? q_norm.data() : nullptr;
    p.k_norm = c_.norm ? k_norm.data() : nullptr;
    p.own_weights = c_.own_weights;
    p.whole_norm = c_.whole_norm;
    p.qkv = qkv.data();
    if (c_.apart) p.q = q.data(), p.q_stride = QueryStride();
    p.rows = kRows;
    p.positions = positions.data();
    p.slots = slots.data();
    p.k_pages = k.data();
    p.v_pages = v.data();
    ASSERT_STREQ(QkvAppend(p, nullptr), nullptr);
    ASSERT_STREQ(Finish(), nullptr);
    const std::vector<uint16_t> before = std::exchange(halves_, qkv.Read());
    q_ = q.Read();
    ASSERT_TRUE(!c_.apart || before == halves_);
    for (int64_t row = 0; row < kRows; ++row) ASSERT_EQ(q_[(row + 1) * QueryStride() - 1], kGap);
    k_pages_ = k.Read();
    v_pages_ = v.Read();
  }

 private:
  static constexpr uint8_t kUntouched = 0x3c;
  static constexpr float kGap = -77;  // between the rows of an array of queries

  int64_t Width() const { return int64_t{c_.heads + 2 * c_.kv_heads} * c_.head_dim; }
  int64_t QueryWidth() const { return int64_t{c_.heads} * c_.head_dim; }
  int64_t QueryStride() const { return QueryWidth() + 4; }
  size_t PageElements() const {
    return static_cast<size_t>(kPages) * kBlockSize * c_.kv_heads * c_.head_dim;
  }
  void Normalise(const std::vector<float>& weight, int64_t first, int64_t heads) {
    const bool whole = c_.whole_norm;
    NormGroups(qkv_.data() + first, Width(), {c_.kind, 1e-6f, weight.data()}, c_.own_weights, kRows,
               whole ? 1 : heads, whole ? heads * c_.head_dim : c_.head_dim, ParallelFor{});
  }
  float PageElement(const std::vector<uint8_t>& pages, size_t i) const {
    if (pages_ == DType::kFloat8) return Float8ToFloat(pages[i]);
    return Widen(pages_, static_cast<uint16_t>(pages[2 * i] | pages[2 * i + 1] << 8));
  }
  void Compare(const std::vector<float>& expected, const std::vector<uint8_t>& actual,
               const std::string& what) {
    // Half a unit of the last of three bits, and of what is below 2^-6.
    const bool small = pages_ == DType::kFloat8;
    for (size_t i = 0; i < expected.size(); ++i) {
      ExpectNear(expected[i], PageElement(actual, i), small ? 0x1.04p-4 : Tolerance(dtype_),
                 2e-5 + (small ? 0x1p-10 : 0), what + " page element " + std::to_string(i));
    }
  }

  QkvCase c_;
  DType dtype_, pages_;
  std::vector<float> qkv_, q_norm_, k_norm_, inv_frequency_, beyond_;
  std::vector<float> q_;  // where it is apart
  std::vector<uint16_t> halves_;
  std::vector<uint8_t> k_pages_, v_pages_;
  std::vector<int32_t> positions_ = {0, 1, 17, 131071, 5};
  std::vector<int64_t> slots_ = {3, 63, 16, 40, -1};
};

TEST(CudaQkvAppend, HeadsStylesAndNormsAgainstTheCpu) {
  constexpr NormKind kRms = NormKind::kRms, kLayer = NormKind::kLayer;
  constexpr RopeStyle kHalf = RopeStyle::kHalf, kInterleaved = RopeStyle::kInterleaved;
  const QkvCase cases[] = {
      {9, 3, 64, 64},
      {4, 4, 64, 32, kHalf},
      {3, 1, 64, 48, kHalf, true},
      {4, 2, 128, 128, kHalf, true, false, kRms, 1.3f},
      {5, 1, 128, 96, kHalf, true, true, kLayer},
      {2, 2, 256, 256, kHalf, true, true},
      {7, 1, 32, 32},
      {1, 1, 16, 16, kHalf, true},
      {9, 3, 64, 64, kInterleaved},
      {2, 1, 128, 36, kInterleaved, true, true},
      {2, 1, 64, 0},
      {2, 1, 64, 0, kHalf, true, false, kLayer},
      {9, 3, 64, 64, kHalf, false, false, kRms, 1, false, 16},
      {2, 1, 128, 36, kInterleaved, true, true, kRms, 1.2f, false, 17},
      {2, 1, 64, 64, kHalf, false, false, kRms, 1, false, 200000},
      {5, 5, 128, 128, kHalf, true, false, kRms, 1, true},
      {33, 11, 64, 64, kHalf, true, false, kLayer, 1, true, 4},
      {1, 1, 16, 16, kInterleaved, true, false, kRms, 1, true, 0, true},
      {6, 2, 256, 128, kHalf, true, false, kRms, 1, true, 0, true},
      {9, 3, 64, 64, kHalf, false, false, kRms, 1, false, 0, true},
  };
  uint64_t seed = 10;
  for (DType dtype : kTypes) {
    for (DType pages : {dtype, DType::kFloat8}) {
      for (const QkvCase& c : cases) {
        SCOPED_TRACE("heads " + std::to_string(c.heads) + " head_dim " +
                     std::to_string(c.head_dim) + " rotary_dim " + std::to_string(c.rotary_dim));
        SetScheduleSeed(++seed);
        QkvFixture fixture(c, dtype, pages);
        fixture.Run();
        if (!HasFatalFailure()) fixture.Expect();
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Every 16-bit number, as a key or a value that nothing else is done to.
TEST(CudaQkvAppend, RoundsToEightBitsAsTheCpuDoes) {
  constexpr int kRows = 32, kKvHeads = 4, kDim = 256, kBlockSize = 16;
  constexpr int kPerRow = kKvHeads * kDim, kWidth = kDim + 2 * kPerRow;
  static_assert(kRows * 2 * kPerRow == 65536);
  std::vector<uint16_t> qkv(kRows * kWidth);
  std::vector<int64_t> slots(kRows);
  for (int row = 0; row < kRows; ++row) {
    slots[row] = kRows - 1 - row;
    for (int i = 0; i < 2 * kPerRow; ++i) {
      qkv[row * kWidth + kDim + i] = static_cast<uint16_t>(row * 2 * kPerRow + i);
    }
  }
  for (DType dtype : kTypes) {
    DeviceArray<uint16_t> qkv_d(qkv);
    DeviceArray<int64_t> slots_d(slots);
    DeviceArray<uint8_t> k(std::vector<uint8_t>(kRows * kPerRow)), v(k.Read());
    DeviceArray<uint64_t> saturated({5});
    QkvAppendParams p;
    p.dtype = dtype;
    p.shape = {1, kKvHeads, kDim, kBlockSize, DType::kFloat8};
    p.qkv = qkv_d.data();
    p.rows = kRows;
    p.slots = slots_d.data();
    p.k_pages = k.data();
    p.v_pages = v.data();
    p.saturated = saturated.data();
    ASSERT_STREQ(QkvAppend(p, nullptr), nullptr);
    ASSERT_STREQ(Finish(), nullptr);
    uint64_t expected = 5;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const auto number = static_cast<uint16_t>(bits);
      expected += SaturatesFloat8(Widen(dtype, number));
    }
    EXPECT_GT(expected, 5u);
    EXPECT_EQ(saturated.Read()[0], expected);
    const std::vector<uint8_t> keys = k.Read(), values = v.Read();
    for (int row = 0; row < kRows; ++row) {
      const int64_t page = slots[row] / kBlockSize, within = slots[row] % kBlockSize;
      for (int i = 0; i < kPerRow; ++i) {
        const int64_t at = ((page * kKvHeads + i / kDim) * kBlockSize + within) * kDim + i % kDim;
        const uint16_t* from = &qkv[row * kWidth + kDim + i];
        ASSERT_EQ(keys[at], FloatToFloat8(Widen(dtype, from[0]))) << from[0];
        ASSERT_EQ(values[at], FloatToFloat8(Widen(dtype, from[kPerRow]))) << from[kPerRow];
      }
    }
  }
}

TEST(CudaFillPages, CopiesAndZeroesInEveryPoolAndNothingElse) {
  constexpr int kPools = 3, kPages = 6;
  for (int64_t words :
       {4, 12, 4096, 8200}) {  // of 4 bytes; more and less than a thread block takes
    std::vector<std::vector<uint32_t>> expected(kPools);
    std::vector<DeviceArray<uint32_t>> pools;
    std::vector<void*> starts;
    for (int i = 0; i < kPools; ++i) {
      for (int64_t w = 0; w < kPages * words; ++w) {
        expected[i].push_back(static_cast<uint32_t>(w * kPools + i));
      }
      pools.emplace_back(expected[i]);
      starts.push_back(pools.back().data());
    }
    DeviceArray<void*> starts_d(starts);
    DeviceArray<int32_t> from({4, 0}), to({1, 5}), poisoned({3});
    PagesParams p = {starts_d.data(), kPools, words * 4, from.data(), to.data(), 2};
    ASSERT_STREQ(FillPages(p, nullptr), nullptr);
    p.from = nullptr, p.to = poisoned.data(), p.count = 1;
    ASSERT_STREQ(FillPages(p, nullptr), nullptr);
    p.count = 0;
    ASSERT_STREQ(FillPages(p, nullptr), nullptr);
    ASSERT_STREQ(Finish(), nullptr);
    for (int i = 0; i < kPools; ++i) {
      std::vector<uint32_t>& pool = expected[i];
      std::copy_n(pool.begin() + 4 * words, words, pool.begin() + 1 * words);
      std::copy_n(pool.begin() + 0 * words, words, pool.begin() + 5 * words);
      std::fill_n(pool.begin() + 3 * words, words, 0u);
      ASSERT_EQ(pools[i].Read(), pool) << "pool " << i << ", words " << words;
    }
  }
}

TEST(CudaLayerOps, RefuseWhatTheyCannotDo) {
  alignas(16) static uint16_t memory[64] = {};
  AddNormParams norm;
  norm.dtype = DType::kFloat32;
  EXPECT_STREQ(AddNorm(norm, nullptr), "AddNorm: dtype must be kBFloat16 or kFloat16");
  norm.dtype = DType::kFloat16;
  EXPECT_STREQ(AddNorm(norm, nullptr), "AddNorm: dim must be at least 1");
  norm.dim = 8, norm.rows = -1;
  EXPECT_STREQ(AddNorm(norm, nullptr), "AddNorm: rows must be within 0 and 2^31 - 1");
  norm.rows = 0;
  EXPECT_STREQ(AddNorm(norm, nullptr), nullptr);

  ActivateParams activate;
  activate.dim = 1;
  activate.activation = Activation::kClampedSwiglu, activate.gated = false;
  EXPECT_STREQ(Activate(activate, nullptr), "Activate: kClampedSwiglu needs a gate");
  activate.gated = true, activate.dtype = DType::kFloat32;
  EXPECT_STREQ(Activate(activate, nullptr), "Activate: dtype must be kBFloat16 or kFloat16");
  activate.dtype = DType::kFloat16, activate.dim = 0;
  EXPECT_STREQ(Activate(activate, nullptr), "Activate: dim must be within 1 and 67107840");

  const auto qkv = [](auto change) {
    QkvAppendParams p;
    p.shape = {2, 1, 64, 16, DType::kBFloat16};
    p.rope.rotary_dim = 64;
    change(p);
    const char* refused = QkvAppend(p, nullptr);
    return std::string(refused == nullptr ? "" : refused);
  };
  const auto in = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_EQ(qkv([](QkvAppendParams&) {}), "");
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.shape.head_dim = 80; }), "head_dim must be"));
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.dtype = DType::kFloat8; }), "dtype must be"));
  for (DType pages : {DType::kFloat32, DType::kFloat16}) {
    EXPECT_TRUE(in(qkv([=](QkvAppendParams& p) { p.shape.kv_dtype = pages; }), "kv_dtype must be"));
  }
  EXPECT_EQ(qkv([](QkvAppendParams& p) { p.shape.kv_dtype = DType::kFloat8; }), "");
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.shape.num_kv_heads = 0; }), "at least 1"));
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.rope.rotary_dim = 72; }), "rotary_dim"));
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.rope.rotary_dim = 8; }), "multiple of 16"));
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.q_norm = reinterpret_cast<float*>(memory); }),
                 "both be given"));
  static constexpr float kFrequencies[32] = {};
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.rope.inv_frequency_beyond = kFrequencies; }),
                 "needs a rope.knee of at least 1"));
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) {
                   p.q_norm = p.k_norm = kFrequencies, p.own_weights = p.whole_norm = true;
                 }),
                 "own_weights is of single heads"));
  EXPECT_TRUE(
      in(qkv([](QkvAppendParams& p) { p.q = reinterpret_cast<float*>(memory), p.q_stride = 126; }),
         "q_stride must be"));
  EXPECT_TRUE(in(qkv([](QkvAppendParams& p) { p.qkv = memory + 1; }), "aligned to 16"));

  PagesParams pages = {nullptr, 1, 24, nullptr, nullptr, 1};
  EXPECT_TRUE(in(FillPages(pages, nullptr), "page_bytes must be a multiple of 16"));
  pages.page_bytes = 16, pages.num_pools = 65536;
  EXPECT_TRUE(in(FillPages(pages, nullptr), "num_pools"));
}

}  // namespace
}  // namespace acuity::kernels::cuda
