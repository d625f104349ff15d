#include "kernels/layer_ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/layer_ops_kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace acuity::kernels {
namespace {

std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= ActiveIsa()) isas.push_back(isa);
  }
  return isas;
}

std::vector<float> Random(int64_t size, uint32_t seed, float scale = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& v : values) v = normal(rng) * scale;
  return values;
}

TEST(RmsNormTest, EveryTailAgainstDouble) {
  for (Isa isa : Isas()) {
    for (int64_t dim : {1, 2, 3, 5, 8, 15, 17, 31, 33, 63, 64, 65, 100, 127, 128, 576, 4096}) {
      for (int offset : {0, 1}) {
        const std::vector<float> x = Random(dim + offset, 1, 3), w = Random(dim + offset, 2);
        std::vector<float> out(static_cast<size_t>(dim + offset + 1), -7.0f);
        const NormParams params = {NormKind::kRms, 1e-5f, w.data() + offset};
        LayerOpsKernelsFor(isa).norm(x.data() + offset, params, dim, out.data() + offset);
        double squares = 0;
        for (int64_t i = 0; i < dim; ++i) {
          squares +=
              double{x[static_cast<size_t>(i + offset)]} * x[static_cast<size_t>(i + offset)];
        }
        const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
        for (int64_t i = 0; i < dim; ++i) {
          const auto at = static_cast<size_t>(i + offset);
          const double expected = x[at] * scale * w[at];
          ASSERT_NEAR(out[at], expected, 1e-6 * std::abs(expected))
              << IsaName(isa) << " dim " << dim;
        }
        EXPECT_EQ(out.back(), -7.0f);
      }
    }
  }
}

TEST(RmsNormTest, InPlaceAndZeroRow) {
  const std::vector<float> w = Random(40, 3);
  std::vector<float> x(40, 0.0f);
  for (Isa isa : Isas()) {
    LayerOpsKernelsFor(isa).norm(x.data(), {NormKind::kRms, 1e-6f, w.data()}, 40, x.data());
    for (float v : x) EXPECT_EQ(v, 0.0f);
  }
  std::vector<float> a = Random(40, 4), b(40);
  const NormParams params = {NormKind::kRms, 1e-6f, w.data()};
  Norm(a.data(), params, 1, 40, b.data(), {});
  Norm(a.data(), params, 1, 40, a.data(), {});
  EXPECT_EQ(a, b);
}

TEST(SiluMulTest, EveryTailAndRangeAgainstDouble) {
  for (Isa isa : Isas()) {
    for (int64_t dim : {1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 100, 1536}) {
      for (float scale : {0.01f, 1.0f, 10.0f, 40.0f}) {
        const std::vector<float> g = Random(dim, 5, scale), u = Random(dim, 6);
        std::vector<float> out(static_cast<size_t>(dim + 1), -7.0f);
        LayerOpsKernelsFor(isa).activate(Activation::kSilu, g.data(), u.data(), dim, out.data());
        for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
          const double expected = g[i] / (1 + std::exp(-double{g[i]})) * u[i];
          ASSERT_NEAR(out[i], expected, 1e-6 * std::abs(expected) + 1e-35)
              << IsaName(isa) << " gate " << g[i];
        }
        EXPECT_EQ(out.back(), -7.0f);
      }
    }
  }
}

TEST(SiluMulTest, Extremes) {
  const std::vector<float> g = {0.0f, -0.0f, 1e30f, -1e30f, 88.0f, -88.0f, 200.0f, -200.0f};
  const std::vector<float> u(8, 2.0f);
  std::vector<float> out(8);
  for (Isa isa : Isas()) {
    LayerOpsKernelsFor(isa).activate(Activation::kSilu, g.data(), u.data(), 8, out.data());
    EXPECT_EQ(out[0], 0.0f);
    EXPECT_EQ(out[1], 0.0f);
    EXPECT_EQ(out[2], 2e30f);
    EXPECT_EQ(out[3], 0.0f);
    EXPECT_EQ(out[4], 176.0f);
    EXPECT_NEAR(out[5], 0.0f, 1e-30);
    EXPECT_EQ(out[6], 400.0f);
    EXPECT_EQ(out[7], 0.0f);
  }
}

TEST(LayerNormTest, EveryTailAgainstDouble) {
  for (Isa isa : Isas()) {
    for (int64_t dim : {1, 2, 5, 8, 15, 17, 33, 64, 100, 127, 576, 4096}) {
      for (bool biased : {false, true}) {
        std::vector<float> x = Random(dim, 1, 3);
        const std::vector<float> w = Random(dim, 2), b = Random(dim, 3);
        for (float& v : x) v += 5;  // a mean to be taken away
        std::vector<float> out(static_cast<size_t>(dim + 1), -7.0f);
        const NormParams params = {NormKind::kLayer, 1e-5f, w.data(), biased ? b.data() : nullptr};
        LayerOpsKernelsFor(isa).norm(x.data(), params, dim, out.data());
        double mean = 0, squares = 0;
        for (float v : x) mean += v / static_cast<double>(dim);
        for (float v : x) squares += (v - mean) * (v - mean);
        const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
        for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
          const double expected = (x[i] - mean) * scale * w[i] + (biased ? b[i] : 0);
          ASSERT_NEAR(out[i], expected, 2e-6 * (1 + std::abs(expected)))
              << IsaName(isa) << " dim " << dim;
        }
        EXPECT_EQ(out.back(), -7.0f);
        std::vector<float> in_place = x;
        LayerOpsKernelsFor(isa).norm(in_place.data(), params, dim, in_place.data());
        out.pop_back();
        EXPECT_EQ(in_place, out);
      }
    }
  }
}

TEST(NormGroupsTest, EachGroupIsARowOfItsOwn) {
  constexpr int64_t kRows = 3, kGroups = 4, kDim = 24, kStride = 130;
  const std::vector<float> before = Random(kRows * kStride, 1);
  const std::vector<float> w = Random(kGroups * kDim, 2);
  for (NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    for (bool own : {false, true}) {
      std::vector<float> x = before, expected = before;
      NormGroups(x.data(), kStride, {kind, 1e-5f, w.data()}, own, kRows, kGroups, kDim, {});
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t g = 0; g < kGroups; ++g) {
          float* group = expected.data() + row * kStride + g * kDim;
          Norm(group, {kind, 1e-5f, w.data() + (own ? g * kDim : 0)}, 1, kDim, group, {});
        }
      }
      EXPECT_EQ(x, expected);
    }
  }
}

double Expected(Activation activation, double g) {
  switch (activation) {
    case Activation::kSilu:
      return g / (1 + std::exp(-g));
    case Activation::kGelu:
      return g / 2 * std::erfc(-g / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return g / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
    case Activation::kClampedSwiglu:
      g = std::min(g, 7.0);
      return g / (1 + std::exp(-1.702 * g));
  }
  return 0;
}

TEST(ActivateTest, EveryTailAndRangeAgainstDouble) {
  for (Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kClampedSwiglu}) {
    for (Isa isa : Isas()) {
      for (int64_t dim : {1, 3, 8, 9, 17, 100}) {
        for (float scale : {0.01f, 1.0f, 10.0f, 40.0f}) {
          const std::vector<float> g = Random(dim, 5, scale), u = Random(dim, 6, 8);
          for (bool gated : {true, false}) {
            std::vector<float> out(static_cast<size_t>(dim + 1), -7.0f);
            LayerOpsKernelsFor(isa).activate(activation, g.data(), gated ? u.data() : nullptr, dim,
                                             out.data());
            for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
              const bool clamped = activation == Activation::kClampedSwiglu;
              const double up = clamped ? std::clamp(double{u[i]}, -7.0, 7.0) + 1 : double{u[i]};
              const double value = Expected(activation, g[i]) * (gated ? up : 1);
              // Next to 0 the sum of 1 and erf or tanh cancels, as it does in other libraries.
              ASSERT_NEAR(out[i], value, 2e-6 * std::abs(value) + 1e-6)
                  << IsaName(isa) << " gate " << g[i];
            }
            EXPECT_EQ(out.back(), -7.0f);
          }
        }
      }
    }
  }
}

TEST(ActivateTest, Extremes) {
  const std::vector<float> g = {0, 1e20f, -1e20f, 200, -200, 1e-30f, -1e-30f, 88};
  std::vector<float> out(8);
  for (Isa isa : Isas()) {
    for (Activation activation : {Activation::kGelu, Activation::kGeluTanh}) {
      LayerOpsKernelsFor(isa).activate(activation, g.data(), nullptr, 8, out.data());
      EXPECT_THAT(out, testing::Pointwise(testing::FloatEq(), {0.0f, 1e20f, 0.0f, 200.0f, 0.0f,
                                                               5e-31f, -5e-31f, 88.0f}));
    }
  }
}

TEST(ScaleAndCapTest, EveryTailAgainstDouble) {
  for (Isa isa : Isas()) {
    for (int64_t dim : {1, 3, 8, 9, 17, 100}) {
      for (float cap : {0.0f, 5.0f, 30.0f}) {
        const std::vector<float> before = Random(dim, 5, 40);
        std::vector<float> x = before;
        x.push_back(-7);
        LayerOpsKernelsFor(isa).scale_and_cap(0.5f, cap, dim, x.data());
        for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
          const double z = 0.5 * before[i];
          ASSERT_NEAR(x[i], cap > 0 ? cap * std::tanh(z / cap) : z, 1e-5) << IsaName(isa);
        }
        EXPECT_EQ(x.back(), -7);
      }
    }
    std::vector<float> huge = {1e30f, -1e30f, 0.0f};
    LayerOpsKernelsFor(isa).scale_and_cap(1, 30, 3, huge.data());
    EXPECT_THAT(huge, testing::ElementsAre(30.0f, -30.0f, 0.0f));
  }
}

TEST(AddScaledTest, Adds) {
  const std::vector<float> x = Random(3 * 37, 1), before = Random(3 * 37, 2);
  std::vector<float> y = before;
  AddScaled(x.data(), 0.25f, 3, 37, y.data(), {});
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i], before[i] + 0.25 * x[i], 1e-6);
}

struct RopeCase {
  AttentionShape shape;
  RopeStyle style = RopeStyle::kHalf;
  int rotary_dim = 0;
  float magnitude = 1;
  int32_t knee = 0;
};

std::vector<float> InverseFrequencies(int rotary_dim) {
  std::vector<float> f(static_cast<size_t>(rotary_dim / 2));
  for (size_t i = 0; i < f.size(); ++i) {
    f[i] = static_cast<float>(1 / std::pow(10000.0, 2.0 * static_cast<double>(i) / rotary_dim));
  }
  return f;
}

// What the positions beyond a knee turn by: less and less.
std::vector<float> Beyond(std::vector<float> frequency) {
  for (size_t i = 0; i < frequency.size(); ++i) frequency[i] /= static_cast<float>(i + 1);
  return frequency;
}

// The rotated head in double, from the float32 angle.
std::vector<double> RotatedHead(const RopeCase& c, const std::vector<float>& frequency,
                                int32_t position, const float* head) {
  std::vector<double> out(head, head + c.shape.head_dim);
  const size_t half = frequency.size();
  for (size_t i = 0; i < half; ++i) {
    double angle = static_cast<float>(position) * frequency[i];
    if (c.knee > 0 && position > c.knee) {
      angle = double(c.knee) * frequency[i] + double(position - c.knee) * Beyond(frequency)[i];
    }
    const double cosine = c.magnitude * std::cos(angle);
    const double sine = c.magnitude * std::sin(angle);
    const size_t a = c.style == RopeStyle::kHalf ? i : 2 * i;
    const size_t b = c.style == RopeStyle::kHalf ? i + half : 2 * i + 1;
    out[a] = head[a] * cosine - head[b] * sine;
    out[b] = head[b] * cosine + head[a] * sine;
  }
  return out;
}

// Pages with a canary in every element, and their values as float32.
struct Pages {
  Pages(DType dtype_in, int64_t size) : dtype(dtype_in), bytes(size * SizeOf(dtype), 0x2a) {}
  float At(int64_t i) const {
    if (dtype == DType::kFloat32) {
      float value;
      std::memcpy(&value, bytes.data() + i * 4, 4);
      return value;
    }
    if (dtype == DType::kFloat8) return Float8ToFloat(bytes[static_cast<size_t>(i)]);
    uint16_t value;
    std::memcpy(&value, bytes.data() + i * 2, 2);
    return BFloat16ToFloat(value);
  }
  DType dtype;
  std::vector<uint8_t> bytes;
};

// Half the distance of neighbours, relative to a number or, below the least normal one, absolute.
struct Rounding {
  double relative = 0, absolute = 0;
};
Rounding RoundingOf(DType dtype) {
  if (dtype == DType::kBFloat16) return {1.0 / 256, 0};
  return dtype == DType::kFloat8 ? Rounding{1.0 / 16, 1.0 / 1024} : Rounding{};
}

float Stored(DType dtype, float value) {
  if (dtype == DType::kBFloat16) return BFloat16ToFloat(FloatToBFloat16(value));
  return dtype == DType::kFloat8 ? Float8ToFloat(FloatToFloat8(value)) : value;
}

void CheckRow(const RopeCase& c, const std::vector<float>& frequency, int32_t position,
              int64_t slot, const float* before, const float* after, const Pages& k_pages,
              const Pages& v_pages) {
  const AttentionShape& s = c.shape;
  const Rounding storage = RoundingOf(s.kv_dtype);
  const double rounding = position > c.knee && c.knee > 0 ? 1e-5 : 1e-6;  // of the angle

  for (int h = 0; h < s.num_heads + s.num_kv_heads; ++h) {
    const auto expected = RotatedHead(c, frequency, position, before + h * s.head_dim);
    const int kv = h - s.num_heads;
    const int64_t token =
        (slot / s.block_size * s.num_kv_heads + kv) * s.block_size + slot % s.block_size;
    for (int i = 0; i < s.head_dim; ++i) {
      const double want = expected[static_cast<size_t>(i)];
      ASSERT_NEAR(after[h * s.head_dim + i], want, rounding) << "head " << h << " element " << i;
      if (kv < 0) continue;
      ASSERT_NEAR(k_pages.At(token * s.head_dim + i), want,
                  rounding + storage.absolute + storage.relative * std::abs(want));
      const float value = before[(h + s.num_kv_heads) * s.head_dim + i];
      ASSERT_EQ(v_pages.At(token * s.head_dim + i), Stored(s.kv_dtype, value));
    }
  }
}

void CheckRope(Isa isa, const RopeCase& c) {
  SCOPED_TRACE(std::string(IsaName(isa)) + " head_dim " + std::to_string(c.shape.head_dim) +
               " rotary " + std::to_string(c.rotary_dim));
  const AttentionShape& s = c.shape;
  std::vector<int32_t> positions = {0, 1, 2047, 131071};
  if (c.knee > 0) positions = {1, c.knee, c.knee + 1, c.knee + 40};
  const std::vector<int64_t> slots = {5, 0, 3 * s.block_size + 1, 2 * s.block_size};
  const auto rows = static_cast<int64_t>(positions.size());
  const int64_t row_size = int64_t{s.num_heads + 2 * s.num_kv_heads} * s.head_dim;
  const std::vector<float> frequency = InverseFrequencies(c.rotary_dim);
  const std::vector<float> beyond = Beyond(frequency);
  const std::vector<float> before = Random(rows * row_size, 7);
  std::vector<float> qkv = before;
  const int64_t page_size = int64_t{4} * s.num_kv_heads * s.block_size * s.head_dim;
  Pages k_pages(s.kv_dtype, page_size), v_pages(s.kv_dtype, page_size);
  const RopeAppendParams params{s,
                                {c.style, c.rotary_dim, frequency.data(), c.magnitude, c.knee,
                                 c.knee > 0 ? beyond.data() : nullptr},
                                qkv.data(),
                                rows,
                                positions.data(),
                                slots.data(),
                                k_pages.bytes.data(),
                                v_pages.bytes.data()};
  for (int64_t row = 0; row < rows; ++row) LayerOpsKernelsFor(isa).rope_append(params, row);
  for (int64_t row = 0; row < rows; ++row) {
    const auto r = static_cast<size_t>(row);
    CheckRow(c, frequency, positions[r], slots[r], before.data() + row * row_size,
             qkv.data() + row * row_size, k_pages, v_pages);
  }
  int64_t untouched = 0;
  for (size_t i = 0; i < k_pages.bytes.size(); ++i) untouched += k_pages.bytes[i] == 0x2a;
  const int64_t written = rows * s.num_kv_heads * s.head_dim;
  EXPECT_GE(untouched, (page_size - written) * static_cast<int64_t>(SizeOf(s.kv_dtype)));
}

TEST(RopeAppendTest, StylesShapesAndTypesAgainstDouble) {
  for (Isa isa : Isas()) {
    for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat8}) {
      for (RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
        CheckRope(isa, {{9, 3, 64, 16, dtype}, style, 64});
        CheckRope(isa, {{4, 1, 80, 8, dtype}, style, 32});  // partial rotary
        CheckRope(isa, {{4, 1, 80, 8, dtype}, style, 32, 1.25f});
        CheckRope(isa, {{2, 2, 22, 6, dtype}, style, 22});            // tails everywhere
        CheckRope(isa, {{1, 1, 600, 6, dtype}, style, 600});          // several chunks of rotations
        CheckRope(isa, {{2, 1, 64, 6, dtype}, style, 0});             // no rotary
        CheckRope(isa, {{4, 1, 80, 8, dtype}, style, 32, 1.25f, 9});  // a knee
      }
    }
  }
}

TEST(RopeAppendTest, EightBitPagesSaturateAndShowWhatIsBroken) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const AttentionShape shape{1, 1, 22, 1, DType::kFloat8};  // vectors and a tail
  std::vector<float> qkv(3 * 22, 1.0f);
  for (int part : {1, 2}) {
    for (int i : {0, 21}) qkv[part * 22 + i] = 449 + static_cast<float>(i);  // 470 saturates
    for (int i : {1, 20}) qkv[part * 22 + i] = -1e30f;
    for (int i : {2, 19}) qkv[part * 22 + i] = kInfinity;
    qkv[part * 22 + 3] = std::nanf("");
  }
  const int32_t position = 0;
  const int64_t slot = 0;
  for (Isa isa : Isas()) {
    std::vector<uint8_t> k(22), v(22);
    uint64_t saturated = 1;
    LayerOpsKernelsFor(isa).rope_append(
        {shape, {}, qkv.data(), 1, &position, &slot, k.data(), v.data(), &saturated}, 0);
    EXPECT_EQ(saturated, 1u + 2 * 3);
    EXPECT_EQ(k, v);
    for (int i : {0, 21}) EXPECT_EQ(k[i], 0x7e);
    for (int i : {1, 20}) EXPECT_EQ(k[i], 0xfe);
    for (int i : {2, 3, 19}) EXPECT_EQ(k[i], 0x7f);
    EXPECT_EQ(k[4], 0x38);
  }
}

TEST(LayerOpsTest, RowsAreBitIdenticalInAnyBatchAndThreadCount) {
  constexpr int64_t kRows = 150, kDim = 584;
  ThreadPool pool(3);
  const std::vector<float> x = Random(kRows * 2 * kDim, 8), w = Random(kDim, 9);
  std::vector<float> norm(kRows * kDim), silu(kRows * kDim), alone(kDim);
  const NormParams params = {NormKind::kRms, 1e-5f, w.data()};
  Norm(x.data(), params, kRows, kDim, norm.data(), pool.parallel_for());
  Activate(Activation::kSilu, true, x.data(), kRows, kDim, silu.data(), pool.parallel_for());
  for (int64_t row = 0; row < kRows; ++row) {
    Norm(x.data() + row * kDim, params, 1, kDim, alone.data(), {});
    ASSERT_EQ(std::memcmp(alone.data(), norm.data() + row * kDim, kDim * 4), 0) << row;
    Activate(Activation::kSilu, true, x.data() + row * 2 * kDim, 1, kDim, alone.data(), {});
    ASSERT_EQ(std::memcmp(alone.data(), silu.data() + row * kDim, kDim * 4), 0) << row;
  }
}

TEST(LayerOpsTest, RopeAppendInParallelEqualsSerial) {
  const AttentionShape shape{9, 3, 64, 16, DType::kBFloat16};
  constexpr int64_t kRows = 200;
  const std::vector<float> frequency = InverseFrequencies(64);
  std::vector<float> a = Random(kRows * 15 * 64, 10), b = a;
  std::vector<int32_t> positions(kRows);
  std::vector<int64_t> slots(kRows);
  for (int64_t i = 0; i < kRows; ++i) {
    positions[static_cast<size_t>(i)] = static_cast<int32_t>(i * 37);
    slots[static_cast<size_t>(i)] = (i * 77) % 208;  // 77 and 208 are coprime: distinct slots
  }
  const auto size = static_cast<size_t>(13 * 3 * 16 * 64);
  std::vector<uint16_t> ka(size), va(size), kb(size), vb(size);
  const RopeParams rope{RopeStyle::kHalf, 64, frequency.data()};
  ThreadPool pool(3);
  RopeAppend({shape, rope, a.data(), kRows, positions.data(), slots.data(), ka.data(), va.data()},
             pool.parallel_for());
  RopeAppend({shape, rope, b.data(), kRows, positions.data(), slots.data(), kb.data(), vb.data()},
             {});
  EXPECT_EQ(a, b);
  EXPECT_EQ(ka, kb);
  EXPECT_EQ(va, vb);
}

TEST(LayerOpsTest, NoRows) {
  Norm(nullptr, {}, 0, 64, nullptr, {});
  NormGroups(nullptr, 0, {}, false, 0, 2, 64, {});
  Activate(Activation::kSilu, true, nullptr, 0, 64, nullptr, {});
  AddScaled(nullptr, 1, 0, 64, nullptr, {});
  ScaleAndCap(1, 0, 0, 64, nullptr, {});
  RopeAppend({}, {});
}

}  // namespace
}  // namespace acuity::kernels
