#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"

namespace acuity::kernels {

extern const GemmKernels kGemmEmulated16;

namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16};

struct Table {
  std::string name;
  const GemmKernels* kernels;
};

std::vector<Table> Tables() {
  std::vector<Table> tables = {{"emulated16", &kGemmEmulated16}};
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= ActiveIsa()) tables.push_back({IsaName(isa), &GemmKernelsFor(isa)});
  }
  return tables;
}

std::vector<float> Random(int64_t size, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& v : values) v = normal(rng);
  return values;
}

// A packed matrix, and its values after rounding to the storage type.
class Matrix {
 public:
  Matrix(DType dtype, int64_t n, int64_t k, uint32_t seed) : values(Random(n * k, seed)) {
    const size_t bytes = PackedBytes(dtype, n, k);
    packed = {dtype, n, k, ::operator new (bytes, std::align_val_t{64})};
    std::memset(packed.data, 0, bytes);
    PackRows(values.data(), 0, n, packed);
    if (dtype == DType::kBFloat16) {
      for (float& v : values) v = BFloat16ToFloat(FloatToBFloat16(v));
    }
  }
  ~Matrix() { ::operator delete (packed.data, std::align_val_t{64}); }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  std::vector<float> values;  // [n, k]
  PackedWeight packed;
};

struct Case {
  int64_t m, n, k;
  bool bias = false;
  bool accumulate = false;
  int64_t x_padding = 0, y_padding = 0;  // floats between rows
  int offset = 0;                        // floats that every pointer is off its alignment
};

constexpr float kCanary = 12345.0f;

// Compares with float64, and checks that nothing outside [m, n] of y was written.
void CheckAgainstDouble(const Table& table, DType dtype, const Case& c) {
  SCOPED_TRACE(table.name + " bf16=" + std::to_string(dtype == DType::kBFloat16) + " m=" +
               std::to_string(c.m) + " n=" + std::to_string(c.n) + " k=" + std::to_string(c.k));
  const Matrix w(dtype, c.n, c.k, 1);
  const int64_t xs = c.k + c.x_padding, ys = c.n + c.y_padding;
  const std::vector<float> x = Random(c.m * xs + c.offset, 2);
  const std::vector<float> bias = Random(c.n + c.offset, 3);
  std::vector<float> y = Random(c.m * ys + c.offset, 4);
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = c.n; j < ys; ++j) y[static_cast<size_t>(c.offset + i * ys + j)] = kCanary;
  }
  const std::vector<float> before = y;
  GemmParams params{x.data() + c.offset, xs, c.m, w.packed};
  params.bias = c.bias ? bias.data() + c.offset : nullptr;
  params.accumulate = c.accumulate;
  params.y = y.data() + c.offset;
  params.y_stride = ys;
  GemmWith(*table.kernels, params, {});

  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      const size_t at = static_cast<size_t>(c.offset + i * ys + j);
      double sum = 0, magnitude = 0;
      for (int64_t p = 0; p < c.k; ++p) {
        const double term =
            double{params.x[i * xs + p]} * w.values[static_cast<size_t>(j * c.k + p)];
        sum += term;
        magnitude += std::abs(term);
      }
      if (c.bias) sum += params.bias[j];
      if (c.accumulate) sum += before[at];
      // A random walk of roundings; the bound k * eps * magnitude would be far looser.
      const double tolerance = 6e-8 * (4 + 2 * std::sqrt(double(c.k))) * (magnitude + 4);
      ASSERT_NEAR(y[at], sum, tolerance) << "row " << i << " column " << j;
    }
    for (int64_t j = c.n; j < ys; ++j) {
      ASSERT_EQ(y[static_cast<size_t>(c.offset + i * ys + j)], kCanary) << i << " " << j;
    }
  }
  for (int i = 0; i < c.offset; ++i)
    ASSERT_EQ(y[static_cast<size_t>(i)], before[static_cast<size_t>(i)]);
}

void CheckAll(const Case& c) {
  for (const Table& table : Tables()) {
    for (DType dtype : kDTypes) CheckAgainstDouble(table, dtype, c);
  }
}

TEST(GemmTest, EveryRowCountAgainstDouble) {
  for (int64_t m = 1; m <= 40; ++m) CheckAll({m, 100, 37});
}

TEST(GemmTest, EveryTailOfNAndK) {
  for (int64_t n : {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 129}) {
    for (int64_t k : {1, 2, 3, 15, 16, 17, 64, 65}) {
      for (int64_t m : {1, 3, 7}) CheckAll({m, n, k});
    }
  }
}

// Enough rows for every table to widen bfloat16 panels; the last k are too deep for its scratch.
TEST(GemmTest, ManyRowsAgainstDouble) {
  for (int64_t k : {36, 37, 1024, 1025, 2048, 2049}) CheckAll({75, 49, k, true, true});
}

TEST(GemmTest, BiasAndAccumulate) {
  for (bool bias : {false, true}) {
    for (bool accumulate : {false, true}) {
      for (int64_t m : {1, 5, 14}) CheckAll({m, 77, 96, bias, accumulate});
    }
  }
}

TEST(GemmTest, StridesAndMisalignment) {
  for (int offset : {1, 3, 5}) {
    for (int64_t m : {1, 2, 6, 13}) CheckAll({m, 70, 33, true, true, 5, 3, offset});
  }
}

TEST(GemmTest, DecoderShapes) {
  CheckAll({1, 960, 576});
  CheckAll({17, 576, 1536, true});
  CheckAll({130, 48, 577});
  CheckAll({7, 33, 20000});  // rows of x larger than a task's budget
}

TEST(GemmTest, NoRowsOrColumnsWritesNothing) {
  const Matrix w(DType::kFloat32, 16, 4, 1);
  GemmParams params;
  params.weight = w.packed;
  Gemm(params, {});
  params.m = 3;
  params.weight.n = 0;
  Gemm(params, {});
}

TEST(GemmTest, EmptySumGivesBias) {
  const std::vector<float> bias = {1.5f, -2.0f};
  std::vector<float> y = {7, 7};
  float unused = 0;
  for (const Table& table : Tables()) {
    for (DType dtype : kDTypes) {
      GemmParams params{&unused, 0, 1, {dtype, 2, 0, &unused}, bias.data(), false, y.data(), 2};
      GemmWith(*table.kernels, params, {});
      EXPECT_EQ(y, bias) << table.name;
    }
  }
}

// NaN beside the matrix must not leak in: neither x beyond k nor the padding of the last panel is
// used.
TEST(GemmTest, ReadsNoRowBeyondK) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Table& table : Tables()) {
    for (DType dtype : kDTypes) {
      const Matrix w(dtype, 18, 5, 1);
      std::vector<float> x(3 * 8, nan);
      for (size_t i = 0; i < 3; ++i) std::fill_n(x.begin() + static_cast<int64_t>(i) * 8, 5, 1.0f);
      std::vector<float> y(3 * 18);
      GemmWith(*table.kernels, {x.data(), 8, 3, w.packed, nullptr, false, y.data(), 18}, {});
      for (float v : y) ASSERT_TRUE(std::isfinite(v)) << table.name;
    }
  }
}

std::vector<float> Product(const GemmKernels& kernels, const Matrix& w, const float* x, int64_t m,
                           const float* bias, const ParallelFor& parallel) {
  std::vector<float> y(static_cast<size_t>(m * w.packed.n), 0.25f);
  GemmParams params{x, w.packed.k, m, w.packed, bias, true, y.data(), w.packed.n};
  GemmWith(kernels, params, parallel);
  return y;
}

// The contract that prefix caching and batching rest on.
TEST(GemmTest, RowsAreBitIdenticalInAnyBatchAndThreadCount) {
  constexpr int64_t kMaxM = 70, kN = 203, kK = 301;
  ThreadPool two(2), four(4);
  const std::vector<float> x = Random(kMaxM * kK, 5);
  const std::vector<float> bias = Random(kN, 6);
  for (const Table& table : Tables()) {
    for (DType dtype : kDTypes) {
      const Matrix w(dtype, kN, kK, 7);
      std::vector<float> alone;
      for (int64_t i = 0; i < kMaxM; ++i) {
        const auto y = Product(*table.kernels, w, x.data() + i * kK, 1, bias.data(), {});
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (int64_t m = 1; m <= kMaxM; ++m) {
        for (const ParallelFor& parallel :
             {ParallelFor{}, two.parallel_for(), four.parallel_for()}) {
          const auto y = Product(*table.kernels, w, x.data(), m, bias.data(), parallel);
          ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0)
              << table.name << " m=" << m;
        }
      }
    }
  }
}

TEST(GemmTest, LargeBatchIsBitIdenticalToItsChunks) {
  constexpr int64_t kM = 300, kN = 96, kK = 700;
  ThreadPool pool(3);
  const std::vector<float> x = Random(kM * kK, 8);
  for (const Table& table : Tables()) {
    const Matrix w(DType::kBFloat16, kN, kK, 9);
    const auto whole = Product(*table.kernels, w, x.data(), kM, nullptr, pool.parallel_for());
    std::vector<float> chunks;
    for (int64_t begin = 0, rows; begin < kM; begin += rows) {
      rows = std::min<int64_t>(kM - begin, 1 + begin * 7 % 53);
      const auto y = Product(*table.kernels, w, x.data() + begin * kK, rows, nullptr, {});
      chunks.insert(chunks.end(), y.begin(), y.end());
    }
    EXPECT_EQ(std::memcmp(whole.data(), chunks.data(), whole.size() * sizeof(float)), 0)
        << table.name;
  }
}

TEST(PackTest, UnpackReturnsEachRow) {
  for (DType dtype : kDTypes) {
    for (int64_t k : {1, 2, 7, 64}) {
      const Matrix w(dtype, 37, k, 10);
      std::vector<float> row(static_cast<size_t>(k));
      for (int64_t i = 0; i < 37; ++i) {
        UnpackRow(w.packed, i, row.data());
        ASSERT_EQ(std::memcmp(row.data(), w.values.data() + i * k, row.size() * 4), 0) << i;
      }
    }
  }
}

TEST(PackTest, RowsInAnyOrderGiveTheSameBytes) {
  for (DType dtype : kDTypes) {
    constexpr int64_t kN = 50, kK = 9;
    const std::vector<float> values = Random(kN * kK, 11);
    const size_t bytes = PackedBytes(dtype, kN, kK);
    std::vector<uint64_t> whole(bytes / 8), pieces(bytes / 8);
    PackRows(values.data(), 0, kN, {dtype, kN, kK, whole.data()});
    for (int64_t begin : {40, 13, 0, 30}) {  // [40, 50), [13, 30), [0, 13), [30, 40)
      const int64_t end = begin == 40 ? 50 : begin == 13 ? 30 : begin == 0 ? 13 : 40;
      PackRows(values.data() + begin * kK, begin, end - begin, {dtype, kN, kK, pieces.data()});
    }
    EXPECT_EQ(whole, pieces);
  }
}

TEST(PackTest, BytesArePanelsOfSixteenColumns) {
  EXPECT_EQ(PackedBytes(DType::kFloat32, 17, 3), 2u * 16 * 3 * 4);
  EXPECT_EQ(PackedBytes(DType::kBFloat16, 17, 3), 2u * 16 * 4 * 2);
  EXPECT_EQ(PackedBytes(DType::kBFloat16, 16, 4), 16u * 4 * 2);
  EXPECT_EQ(PackedBytes(DType::kBFloat16, 0, 4), 0u);
}

}  // namespace
}  // namespace acuity::kernels
