// Attention throughput: GFLOP/s of QK and PV over the visible keys, statistics on and off, medians.
//   attention_bench [repeats] [threads] [isa name, else all]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace acuity::kernels {
namespace {

struct Case {
  const char* name;
  int num_heads, num_kv_heads, head_dim;
  int rows, kv_len, num_seqs;
  DType dtype;
};

constexpr Case kCases[] = {
    {"prefill 2k d64 g3", 9, 3, 64, 2048, 2048, 1, DType::kFloat32},
    {"prefill 2k d64 g3", 9, 3, 64, 2048, 2048, 1, DType::kBFloat16},
    {"prefill 2k d64 g3", 9, 3, 64, 2048, 2048, 1, DType::kFloat8},
    {"prefill 2k d128 g4", 8, 2, 128, 2048, 2048, 1, DType::kBFloat16},
    {"prefill 2k d80 g1", 4, 4, 80, 2048, 2048, 1, DType::kBFloat16},
    {"chunk 512 at 8k d64 g3", 9, 3, 64, 512, 8192, 1, DType::kBFloat16},
    {"decode 8k d64 g3", 9, 3, 64, 1, 8192, 1, DType::kBFloat16},
    {"decode 8k d64 g3", 9, 3, 64, 1, 8192, 1, DType::kFloat32},
    {"decode 8k d64 g3", 9, 3, 64, 1, 8192, 1, DType::kFloat8},
    {"decode 8k d64 g1", 9, 9, 64, 1, 8192, 1, DType::kBFloat16},
    {"decode 8k d64 g1", 9, 9, 64, 1, 8192, 1, DType::kFloat8},
    {"decode 8k d128 g4 x8", 8, 2, 128, 1, 8192, 8, DType::kBFloat16},
    {"decode 8k d128 g4 x8", 8, 2, 128, 1, 8192, 8, DType::kFloat8},
    {"decode 8k d128 g8 x8", 16, 2, 128, 1, 8192, 8, DType::kBFloat16},
    {"decode 8k d128 g8 x8", 16, 2, 128, 1, 8192, 8, DType::kFloat8},
};

constexpr int kBlockSize = 16;

struct Data {
  std::vector<float> q, out, k32, v32;
  std::vector<uint16_t> k16, v16;
  std::vector<uint8_t> k8, v8;
  std::vector<int32_t> indptr, kv_len, tables;
  std::vector<RowStats> stats;
};

AttentionParams MakeParams(const Case& c, Data* data) {
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const int pages_each = (c.kv_len + kBlockSize - 1) / kBlockSize;
  const size_t kv =
      static_cast<size_t>(pages_each) * c.num_seqs * c.num_kv_heads * kBlockSize * c.head_dim;
  const size_t rows = static_cast<size_t>(c.rows) * c.num_seqs;
  data->q.resize(rows * c.num_heads * c.head_dim);
  data->out.resize(data->q.size());
  data->stats.resize(rows * c.num_heads);
  for (float& x : data->q) x = 2 * uniform(random);
  for (auto* values : {&data->k32, &data->v32}) {
    values->resize(kv);
    for (float& x : *values) x = uniform(random);
  }
  for (float x : data->k32) data->k16.push_back(FloatToBFloat16(x));
  for (float x : data->v32) data->v16.push_back(FloatToBFloat16(x));
  for (float x : data->k32) data->k8.push_back(FloatToFloat8(x));
  for (float x : data->v32) data->v8.push_back(FloatToFloat8(x));
  for (int i = 0; i <= c.num_seqs; ++i) data->indptr.push_back(i * c.rows);
  data->kv_len.assign(c.num_seqs, c.kv_len);
  for (int i = 0; i < pages_each * c.num_seqs; ++i) data->tables.push_back(i);
  std::shuffle(data->tables.begin(), data->tables.end(), random);

  AttentionParams params;
  params.shape = {c.num_heads, c.num_kv_heads, c.head_dim, kBlockSize, c.dtype};
  params.batch = {c.num_seqs, data->indptr.data(), data->kv_len.data(), data->tables.data(),
                  pages_each};
  params.q = data->q.data();
  params.q_stride = c.num_heads * c.head_dim;
  params.out = data->out.data();
  params.out_stride = params.q_stride;
  params.k_pages = data->k16.data();
  params.v_pages = data->v16.data();
  if (c.dtype == DType::kFloat32) params.k_pages = data->k32.data();
  if (c.dtype == DType::kFloat32) params.v_pages = data->v32.data();
  if (c.dtype == DType::kFloat8) params.k_pages = data->k8.data();
  if (c.dtype == DType::kFloat8) params.v_pages = data->v8.data();
  params.softmax_scale = 0.125f;
  return params;
}

// One thread: processor time, which neighbours on a shared machine disturb less; else wall time.
double Milliseconds(const ThreadPool& pool) {
  if (pool.num_threads() == 1) return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  const std::chrono::duration<double, std::milli> now =
      std::chrono::steady_clock::now().time_since_epoch();
  return now.count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void RunCase(const Case& c, Isa isa, int repeats, ThreadPool& pool) {
  Data data;
  AttentionParams params = MakeParams(c, &data);
  AttentionPlan plan;
  PlanAttention(params.shape, params.batch, params.window, &plan);
  std::vector<float> workspace(plan.workspace_floats);
  std::vector<double> off_ms, on_ms;
  for (int i = -1; i < repeats; ++i) {  // the first is a warm-up
    for (bool stats : {false, true}) {
      params.stats = stats ? data.stats.data() : nullptr;
      const double start = Milliseconds(pool);
      RunAttentionWith(AttentionKernelsOf(isa), params, plan, workspace.data(),
                       pool.parallel_for());
      if (i >= 0) (stats ? on_ms : off_ms).push_back(Milliseconds(pool) - start);
    }
  }
  const double pairs = static_cast<double>(c.rows) * (c.kv_len - 0.5 * (c.rows - 1));
  const double flops = 4.0 * pairs * c.head_dim * c.num_heads * c.num_seqs;
  const double kv_bytes = 2.0 * c.kv_len * c.num_kv_heads * c.head_dim * c.num_seqs *
                          static_cast<double>(SizeOf(c.dtype));
  const double off = Median(off_ms), on = Median(on_ms);
  constexpr const char* kTypes[] = {"f32", "bf16", "f16", "f8"};
  std::printf("%-24s %-4s %-8s off %9.3f ms %7.2f GFLOP/s %6.2f GB/s KV | on %9.3f ms (%+.1f %%)\n",
              c.name, kTypes[static_cast<int>(c.dtype)], IsaName(isa), off, flops / off * 1e-6,
              kv_bytes / off * 1e-6, on, 100 * (on / off - 1));
}

}  // namespace
}  // namespace acuity::kernels

int main(int argc, char** argv) {
  using namespace acuity::kernels;
  const int repeats = argc > 1 ? std::atoi(argv[1]) : 5;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
  ThreadPool pool(threads);
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > ActiveIsa()) break;
    if (argc > 3 && std::strcmp(argv[3], IsaName(isa)) != 0) continue;
    for (const Case& c : kCases) RunCase(c, isa, repeats, pool);
  }
  return 0;
}
