#include "tests/kernels/attention_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "kernels/dtype.h"

namespace acuity::kernels {

extern const AttentionKernels kAttentionEmulated;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kMisalignment = 3;  // floats
constexpr int kRowPadding = 5;    // floats
constexpr float kUntouched = 12345.0f;

std::vector<float> Normal(size_t n, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(n);
  for (float& x : values) x = normal(random);
  return values;
}

// The nearest number that the type has.
float Rounded(DType dtype, float x) {
  switch (dtype) {
    case DType::kBFloat16:
      return BFloat16ToFloat(FloatToBFloat16(x));
    case DType::kFloat16:
      return Float16ToFloat(FloatToFloat16(x));
    case DType::kFloat8:
      return Float8ToFloat(FloatToFloat8(x));
    case DType::kFloat32:
      break;
  }
  return x;
}

template <typename Bits>
std::vector<std::byte> BytesOf(const std::vector<float>& values, Bits (*bits_of)(float)) {
  std::vector<std::byte> bytes(values.size() * sizeof(Bits));
  for (size_t i = 0; i < values.size(); ++i) {
    const Bits bits = bits_of(values[i]);
    std::memcpy(&bytes[i * sizeof bits], &bits, sizeof bits);
  }
  return bytes;
}

std::vector<std::byte> Stored(DType dtype, const std::vector<float>& values) {
  switch (dtype) {
    case DType::kBFloat16:
      return BytesOf(values, FloatToBFloat16);
    case DType::kFloat16:
      return BytesOf(values, FloatToFloat16);
    case DType::kFloat8:
      return BytesOf(values, FloatToFloat8);
    case DType::kFloat32:
      break;
  }
  return BytesOf<float>(values, [](float x) { return x; });
}

// Threads that take tasks from the last to the first.
struct Scrambled {
  int threads;

  static void Run(void* self, int64_t count, ParallelFor::Body body, void* ctx) {
    std::atomic<int64_t> next{count - 1};
    const auto work = [&] {
      for (int64_t i = next--; i >= 0; i = next--) body(ctx, i);
    };
    std::vector<std::thread> pool;
    for (int i = 1; i < static_cast<Scrambled*>(self)->threads; ++i) pool.emplace_back(work);
    work();
    for (std::thread& thread : pool) thread.join();
  }
};

}  // namespace

SequenceData MakeSequence(const AttentionShape& shape, int length, uint32_t seed, float q_scale) {
  std::mt19937 random(seed);
  SequenceData data;
  data.length = length;
  const size_t n = length, dim = shape.head_dim;
  data.q = Normal(n * shape.num_heads * dim, q_scale, random);
  data.k = Normal(n * shape.num_kv_heads * dim, 1, random);
  data.v = Normal(n * shape.num_kv_heads * dim, 1, random);
  const DType q_type = shape.kv_dtype == DType::kFloat8 ? DType::kFloat16 : shape.kv_dtype;
  for (float& x : data.q) x = Rounded(q_type, x);
  for (float& x : data.k) x = Rounded(shape.kv_dtype, x);
  for (float& x : data.v) x = Rounded(shape.kv_dtype, x);
  return data;
}

AttentionCase::AttentionCase(const AttentionShape& shape, const std::vector<Chunk>& chunks) {
  params_.shape = shape;
  qo_indptr_.push_back(0);
  for (const Chunk& chunk : chunks) {
    qo_indptr_.push_back(qo_indptr_.back() + chunk.end - chunk.begin);
    kv_len_.push_back(chunk.end);
  }
  rows_ = qo_indptr_.back();
  FillPages(chunks);
  FillQueries(chunks);
  params_.batch.num_seqs = static_cast<int>(chunks.size());
  params_.batch.qo_indptr = qo_indptr_.data();
  params_.batch.kv_len = kv_len_.data();
  params_.batch.block_tables = block_tables_.data();
  params_.softmax_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

void AttentionCase::FillPages(const std::vector<Chunk>& chunks) {
  const AttentionShape& shape = params_.shape;
  int table = 1, pages = 1;
  for (const Chunk& chunk : chunks) {
    const int used = (chunk.end + shape.block_size - 1) / shape.block_size;
    table = std::max(table, used + 2);
    pages += used;
  }
  std::vector<int32_t> free(pages);
  for (int i = 0; i < pages; ++i) free[i] = i;
  std::shuffle(free.begin(), free.end(), std::mt19937(7));
  const size_t page_floats =
      static_cast<size_t>(shape.num_kv_heads) * shape.block_size * shape.head_dim;
  block_tables_.assign(table * chunks.size(), std::numeric_limits<int32_t>::max());
  std::vector<float> k(pages * page_floats, kNan), v(pages * page_floats, kNan);
  for (size_t i = 0; i < chunks.size(); ++i) {
    for (int key = 0; key < chunks[i].end; ++key) {
      int32_t& page = block_tables_[i * table + key / shape.block_size];
      if (key % shape.block_size == 0) {
        page = free.back();
        free.pop_back();
      }
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        const size_t to =
            page * page_floats +
            static_cast<size_t>(head * shape.block_size + key % shape.block_size) * shape.head_dim;
        const size_t from = static_cast<size_t>(key * shape.num_kv_heads + head) * shape.head_dim;
        std::copy_n(&chunks[i].sequence->k[from], shape.head_dim, &k[to]);
        std::copy_n(&chunks[i].sequence->v[from], shape.head_dim, &v[to]);
      }
    }
  }
  params_.batch.block_table_stride = table;
  k_pages_ = Stored(shape.kv_dtype, k);
  v_pages_ = Stored(shape.kv_dtype, v);
  params_.k_pages = k_pages_.data();
  params_.v_pages = v_pages_.data();
}

void AttentionCase::FillQueries(const std::vector<Chunk>& chunks) {
  const int64_t width = static_cast<int64_t>(params_.shape.num_heads) * params_.shape.head_dim;
  params_.q_stride = width + kRowPadding;
  params_.out_stride = width + 2 * kRowPadding;
  q_.assign(rows_ * params_.q_stride + kMisalignment, kNan);
  out_.resize(rows_ * params_.out_stride + kMisalignment);
  float* to = q_.data() + kMisalignment;
  for (const Chunk& chunk : chunks) {
    for (int row = chunk.begin; row < chunk.end; ++row, to += params_.q_stride) {
      std::copy_n(&chunk.sequence->q[row * width], width, to);
    }
  }
  params_.q = q_.data() + kMisalignment;
  params_.out = out_.data() + kMisalignment;
}

AttentionCase::Result AttentionCase::Run(const AttentionBackend& backend, bool stats) {
  const AttentionShape& shape = params_.shape;
  Result result;
  result.stats.resize(rows_ * shape.num_heads);
  std::fill(out_.begin(), out_.end(), kUntouched);
  params_.stats = stats ? result.stats.data() : nullptr;
  EXPECT_EQ(backend.run(params_), "") << backend.name;
  const int64_t width = static_cast<int64_t>(shape.num_heads) * shape.head_dim;
  for (int i = 0; i < kMisalignment; ++i) EXPECT_EQ(out_[i], kUntouched);
  for (int64_t row = 0; row < rows_; ++row) {
    const float* from = params_.out + row * params_.out_stride;
    result.out.insert(result.out.end(), from, from + width);
    for (int i = 0; i < 2 * kRowPadding; ++i) EXPECT_EQ(from[width + i], kUntouched);
  }
  return result;
}

AttentionCase::Result AttentionCase::Run(const AttentionKernels& kernels, int threads, bool stats) {
  const auto run = [&](const AttentionParams& params) -> std::string {
    AttentionPlan plan;
    PlanAttention(params.shape, params.batch, params.window, &plan);
    std::vector<float> workspace(plan.workspace_floats + 1, kNan);
    Scrambled scrambled{threads};
    RunAttentionWith(kernels, params, plan, workspace.data(),
                     threads > 1 ? ParallelFor{Scrambled::Run, &scrambled} : ParallelFor{});
    return std::isnan(workspace.back()) ? "" : "workspace overrun";
  };
  return Run(AttentionBackend{"", run, {}}, stats);
}

std::vector<NamedKernels> AllKernels() {
  std::vector<NamedKernels> all = {{"emulated16", &kAttentionEmulated}};
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= ActiveIsa()) all.push_back({IsaName(isa), &AttentionKernelsOf(isa)});
  }
  return all;
}

const AttentionKernels& BestKernels() { return AttentionKernelsOf(ActiveIsa()); }

Tolerance RoundedTolerance(DType type) {
  Tolerance tolerance;
  tolerance.out = type == DType::kBFloat16 ? 5e-3 : 6e-4;
  return tolerance;
}

void ExpectNear(const AttentionCase::Result& actual, const ReferenceResult& expected,
                const std::string& what, const Tolerance& tolerance) {
  ASSERT_EQ(actual.out.size(), expected.out.size());
  double worst_out = 0, worst_entropy = 0, worst_max = 0, worst_lse = 0;
  // NaN counts as infinitely far.
  const auto distance = [](double a, double b) {
    const double d = std::abs(a - b);
    return d == d ? d : std::numeric_limits<double>::infinity();
  };
  for (size_t i = 0; i < actual.out.size(); ++i) {
    worst_out = std::max(worst_out, distance(actual.out[i], expected.out[i]));
  }
  for (size_t i = 0; i < actual.stats.size(); ++i) {
    const RowStats& a = actual.stats[i];
    const ReferenceStats& e = expected.stats[i];
    worst_entropy = std::max(worst_entropy, distance(a.entropy, e.entropy));
    worst_max = std::max(worst_max, distance(a.max_probability, e.max_probability));
    const double size = std::max(1.0, std::abs(e.log_sum_exp));
    worst_lse = std::max(worst_lse, distance(a.log_sum_exp, e.log_sum_exp) / size);
  }
  EXPECT_LE(worst_out, tolerance.out) << what;
  EXPECT_LE(worst_entropy, tolerance.entropy) << what;
  EXPECT_LE(worst_max, tolerance.max_probability) << what;
  EXPECT_LE(worst_lse, tolerance.log_sum_exp) << what;
}

bool SameBits(const AttentionShape& shape, const AttentionCase::Result& actual, int64_t actual_row,
              const AttentionCase::Result& expected, int64_t expected_row) {
  const size_t width = static_cast<size_t>(shape.num_heads) * shape.head_dim;
  return std::memcmp(&actual.out[actual_row * width], &expected.out[expected_row * width],
                     width * sizeof(float)) == 0 &&
         std::memcmp(&actual.stats[actual_row * shape.num_heads],
                     &expected.stats[expected_row * shape.num_heads],
                     shape.num_heads * sizeof(RowStats)) == 0;
}

}  // namespace acuity::kernels
