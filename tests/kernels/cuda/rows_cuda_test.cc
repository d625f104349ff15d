// What stands before the first layer of a decoder and behind its last (kernels/cuda/layer_ops.h):
// EmbedRows, GatherRows, ScaleAndCap. On the emulated machine with random schedules, or on a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/layer_ops.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/halves.h"

namespace acuity::kernels::cuda {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGuardFloat = -77;

struct EmbedCase {
  DType dtype;
  int dim;
  size_t offset;
  bool positions;
  float scale;
};

// The CPU's decoder rounds the product, then the sum.
float Embedded(float value, float scale, float position) {
  const volatile float product = value * scale;
  return product + position;
}

void CheckEmbed(const EmbedCase& c) {
  SCOPED_TRACE("dim " + std::to_string(c.dim) + " offset " + std::to_string(c.offset));
  constexpr int kVocab = 5, kContext = 3;
  const std::vector<int32_t> tokens = {4, -1, 0, 4, 2}, positions = {0, 1 << 20, 2, 1, 2};
  std::vector<float> table, places;
  std::vector<uint16_t> table_bits = RandomHalves(c.dtype, kVocab * c.dim, 1, &table);
  const std::vector<uint16_t> place_bits = RandomHalves(c.dtype, kContext * c.dim, 2, &places);
  // Rows that nobody asks for hold NaN.
  std::fill_n(table_bits.begin() + 1 * c.dim, c.dim, uint16_t{0x7fff});
  std::fill_n(table_bits.begin() + 3 * c.dim, c.dim, uint16_t{0x7fff});
  DeviceArray<uint16_t> table_d(table_bits, c.offset), places_d(place_bits, c.offset);
  DeviceArray<int32_t> tokens_d(tokens, 1), positions_d(positions);
  const int64_t rows = static_cast<int64_t>(tokens.size());
  DeviceArray<float> residual(std::vector<float>(rows * c.dim + 1, kGuardFloat), c.offset);
  EmbedRowsParams p;
  p.dtype = c.dtype;
  p.table = table_d.data();
  p.scale = c.scale;
  p.tokens = tokens_d.data();
  if (c.positions) p.position_table = places_d.data(), p.positions = positions_d.data();
  p.residual = residual.data(), p.rows = rows, p.dim = c.dim;
  ASSERT_STREQ(EmbedRows(p, nullptr), nullptr);
  ASSERT_STREQ(Finish(), nullptr);
  const std::vector<float> x = residual.Read();
  ASSERT_EQ(x.back(), kGuardFloat);
  for (int64_t row = 0; row < rows; ++row) {
    for (int i = 0; i < c.dim; ++i) {
      const float expected = tokens[row] < 0
                                 ? 0
                                 : Embedded(table[tokens[row] * c.dim + i], c.scale,
                                            c.positions ? places[positions[row] * c.dim + i] : 0);
      ASSERT_EQ(x[row * c.dim + i], expected) << "row " << row << " element " << i;
    }
  }
}

TEST(CudaEmbedRows, TheBitsOfTheCpusDecoder) {
  uint64_t seed = 40;
  for (DType dtype : kTypes) {
    for (int dim : {1, 7, 8, 64, 576, 1032, 2053}) {
      for (size_t offset : {size_t{0}, size_t{1}}) {
        SetScheduleSeed(++seed);
        CheckEmbed({dtype, dim, offset, false, 1});
        CheckEmbed({dtype, dim, offset, true, 23.99f});  // Gemma's sqrt(576), not a power of two
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaEmbedRows, TokensThatWereDrawn) {
  constexpr int kDim = 9;
  std::vector<float> values;
  const std::vector<uint16_t> table_bits = RandomHalves(kTypes[0], 5 * kDim, 50, &values);
  const std::vector<int32_t> tokens = {2, -4, -1, -2, -3}, drawn = {4, -1, 1};
  const std::vector<int32_t> meant = {2, 1, -1, 4, -1};
  const auto embed = [&](const std::vector<int32_t>& from) {
    DeviceArray<uint16_t> table(table_bits);
    DeviceArray<int32_t> tokens_d(from), drawn_d(drawn);
    DeviceArray<float> residual(std::vector<float>(5 * kDim, kGuardFloat));
    EmbedRowsParams p;
    p.dtype = kTypes[0];
    p.table = table.data(), p.tokens = tokens_d.data(), p.drawn = drawn_d.data();
    p.residual = residual.data(), p.rows = 5, p.dim = kDim;
    EXPECT_STREQ(EmbedRows(p, nullptr), nullptr);
    EXPECT_STREQ(Finish(), nullptr);
    return residual.Read();
  };
  EXPECT_EQ(embed(tokens), embed(meant));
}

TEST(CudaGatherRows, CopiesRowsAndZeroesAndNothingElse) {
  const std::vector<int32_t> rows = {3, 0, -1, 3, 6};
  constexpr int64_t kInRows = 7;
  for (int64_t words : {1, 3, 4, 144, 513, 2048, 2052, 5001}) {
    for (size_t offset : {size_t{0}, size_t{1}}) {
      SetScheduleSeed(words + offset);
      std::vector<uint32_t> in(kInRows * words);
      for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint32_t>(i * 2654435761u + 1);
      std::vector<uint32_t> expected;
      for (const int32_t row : rows) {
        for (int64_t i = 0; i < words; ++i) expected.push_back(row < 0 ? 0 : in[row * words + i]);
      }
      expected.push_back(kGuard);
      DeviceArray<uint32_t> in_d(in, offset), out_d(std::vector<uint32_t>(expected.size(), kGuard));
      DeviceArray<int32_t> rows_d(rows, 1);
      const GatherRowsParams p = {in_d.data(), rows_d.data(), static_cast<int64_t>(rows.size()),
                                  words * 4, out_d.data()};
      ASSERT_STREQ(GatherRows(p, nullptr), nullptr);
      ASSERT_STREQ(Finish(), nullptr);
      ASSERT_EQ(out_d.Read(), expected) << "words " << words << " offset " << offset;
    }
  }
}

struct CapCase {
  DType dtype;
  float scale, cap;
  int64_t dim, gap;  // of floats between the rows of `out`
  size_t offset;
};

void CheckCap(const CapCase& c) {
  SCOPED_TRACE("type " + std::to_string(static_cast<int>(c.dtype)) + " dim " +
               std::to_string(c.dim) + " cap " + std::to_string(c.cap));
  constexpr int64_t kRows = 3;
  std::vector<float> in = Random(kRows * c.dim, 3, 20);
  const float extremes[] = {0.0f, -0.0f, kInfinity, -kInfinity, kNan, 1e-6f, 6e4f};
  std::copy_n(extremes, std::min<size_t>(7, in.size()), in.begin());
  std::vector<uint16_t> halves;
  for (float& x : in) {
    if (c.dtype == DType::kFloat32) break;
    halves.push_back(Round(c.dtype, x));
    x = Widen(c.dtype, halves.back());
  }
  const int64_t stride = c.dim + c.gap;
  DeviceArray<float> in32(in, c.offset),
      out_d(std::vector<float>(kRows * stride, kGuardFloat), c.offset);
  DeviceArray<uint16_t> in16(halves, c.offset);
  const bool in_place = c.dtype == DType::kFloat32 && c.gap == 0;
  ScaleAndCapParams p = {c.dtype, c.scale, c.cap, in16.data(), kRows, c.dim, out_d.data(), stride};
  if (c.dtype == DType::kFloat32) p.in = in32.data();
  if (in_place) p.out = in32.data();
  ASSERT_STREQ(ScaleAndCap(p, nullptr), nullptr);
  ASSERT_STREQ(Finish(), nullptr);
  const std::vector<float> out = in_place ? in32.Read() : out_d.Read();
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t i = 0; i < stride; ++i) {
      const float actual = out[row * stride + i];
      const std::string where = "row " + std::to_string(row) + " element " + std::to_string(i);
      if (i >= c.dim) {
        ASSERT_EQ(actual, kGuardFloat) << where;
        continue;
      }
      const double z = double{c.scale} * in[row * c.dim + i];
      const double expected = c.cap == 0 ? z : c.cap * std::tanh(z / c.cap);
      if (std::isfinite(expected)) {
        ExpectNear(expected, actual, 1e-6, 0, where);
      } else {
        ASSERT_EQ(std::isnan(expected), std::isnan(actual)) << where;
        ASSERT_TRUE(std::isnan(expected) || static_cast<float>(expected) == actual) << where;
      }
    }
  }
}

TEST(CudaScaleAndCap, EveryTypeTailAndAlignmentAgainstDouble) {
  uint64_t seed = 70;
  for (DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    for (int64_t dim : {1, 7, 8, 1000, 1024, 1031}) {
      for (float cap : {0.0f, 30.0f}) {
        SetScheduleSeed(++seed);
        CheckCap({dtype, 0.125f, cap, dim, 0, 0});
        CheckCap({dtype, -1.5f, cap, dim, 4, 0});
        CheckCap({dtype, 1, cap, dim, 3, 1});
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaRows, RefuseWhatTheyCannotDo) {
  alignas(16) static uint32_t memory[16] = {};
  EmbedRowsParams embed;
  embed.dim = 8, embed.dtype = DType::kFloat32;
  EXPECT_STREQ(EmbedRows(embed, nullptr), "EmbedRows: dtype must be kBFloat16 or kFloat16");
  embed.dtype = DType::kFloat16, embed.position_table = memory;
  EXPECT_STREQ(EmbedRows(embed, nullptr), "EmbedRows: position_table needs positions");
  embed.position_table = nullptr, embed.rows = -1;
  EXPECT_STREQ(EmbedRows(embed, nullptr), "EmbedRows: rows must be within 0 and 2^31 - 1");
  embed.rows = 0;
  EXPECT_STREQ(EmbedRows(embed, nullptr), nullptr);
  embed.dim = 0;
  EXPECT_STREQ(EmbedRows(embed, nullptr), "EmbedRows: dim must be within 1 and 67107840");

  GatherRowsParams gather = {memory, nullptr, 0, 6, memory + 8};
  EXPECT_STREQ(GatherRows(gather, nullptr),
               "GatherRows: row_bytes must be a multiple of 4, at least 4 and at most 134215680");
  gather.row_bytes = 4, gather.count = -1;
  EXPECT_STREQ(GatherRows(gather, nullptr), "GatherRows: count must be within 0 and 2^31 - 1");
  gather.count = 0, gather.in = reinterpret_cast<char*>(memory) + 2;
  EXPECT_STREQ(GatherRows(gather, nullptr), "GatherRows: in and out must be aligned to 4 bytes");

  const auto cap = [](float cap, int64_t dim, int64_t stride, int64_t rows, DType dtype) {
    auto* out = reinterpret_cast<float*>(memory);
    const char* refused = ScaleAndCap({dtype, 1, cap, memory, rows, dim, out, stride}, nullptr);
    return std::string(refused == nullptr ? "" : refused);
  };
  constexpr DType kFloat = DType::kFloat32;
  EXPECT_EQ(cap(0, 8, 8, 0, kFloat), "");
  EXPECT_EQ(cap(0, 0, 8, 0, kFloat), "ScaleAndCap: dim must be within 1 and 67107840");
  EXPECT_EQ(cap(0, 8, 7, 0, kFloat), "ScaleAndCap: out_stride must be at least dim");
  EXPECT_EQ(cap(-1, 8, 8, 0, kFloat), "ScaleAndCap: cap must be at least 0");
  EXPECT_EQ(cap(kNan, 8, 8, 0, kFloat), "ScaleAndCap: cap must be at least 0");
  EXPECT_EQ(cap(0, 8, 8, -1, kFloat), "ScaleAndCap: rows must be within 0 and 2^31 - 1");
  EXPECT_EQ(cap(0, 8, 8, 0, DType::kFloat16),
            "ScaleAndCap: in place needs kFloat32 and an out_stride of dim");
}

}  // namespace
}  // namespace acuity::kernels::cuda
