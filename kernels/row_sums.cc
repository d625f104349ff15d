#include "kernels/row_sums.h"

#include <algorithm>

namespace acuity::kernels {
namespace {

// `sums`: [num_heads, or 1] of one layer.
void SumLayer(const SumRowsParams& params, const MeasuredRows& measured, int64_t layer,
              RowSums* sums) {
  const int window = params.windows[layer];
  std::fill(sums, sums + (measured.by_head ? params.num_heads : 1), RowSums{});
  for (int32_t row = measured.row_begin; row < measured.row_end; ++row) {
    const int32_t n = measured.first_n + (row - measured.row_begin);
    const KeyCount keys(window > 0 ? std::min(n, window) : n);
    const RowStats* stats = params.stats + (layer * params.rows + row) * params.num_heads;
    for (int head = 0; head < params.num_heads; ++head) {
      AddRow(stats[head], keys, measured.by_head ? &sums[head] : sums);
    }
  }
}

}  // namespace

void AppendMeasured(MeasuredRows rows, int num_layers, int num_heads,
                    std::vector<MeasuredRows>* list) {
  while (rows.row_begin < rows.row_end) {
    const int32_t room = (2 << ContextBucket(rows.first_n)) - rows.first_n;
    rows.at = SumsOf(*list, num_layers, num_heads);
    MeasuredRows& part = list->emplace_back(rows);
    part.row_end = rows.row_begin + std::min(rows.num_rows(), room);
    rows.first_n += part.num_rows();
    rows.row_begin = part.row_end;
  }
}

void SumRows(const SumRowsParams& params, const ParallelFor& parallel) {
  parallel(int64_t{params.count} * params.num_layers, [&](int64_t index) {
    const MeasuredRows& measured = params.measured[index / params.num_layers];
    const int64_t layer = index % params.num_layers;
    const int64_t width = SumsOf(measured, 1, params.num_heads);
    SumLayer(params, measured, layer, params.sums + measured.at + layer * width);
  });
}

}  // namespace acuity::kernels
