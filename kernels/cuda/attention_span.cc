#include "kernels/cuda/attention_span.h"

#include <algorithm>
#include <limits>

namespace acuity::kernels::cuda {

void ListSpans(const WatchedRow* watched, int count, int num_heads, SpanList* list) {
  list->spans.clear();
  list->longest = list->masses = 0;
  for (const WatchedRow* row = watched; row != watched + count; ++row) {
    for (int32_t s = 0; s < row->num_spans; ++s) {
      const KeySpan& keys = row->spans[s];
      list->spans.push_back({row->seq, row->row, keys, list->masses + s, row->num_spans});
      list->longest = std::max(list->longest, keys.end - keys.begin);
    }
    list->masses += num_heads * row->num_spans;
  }
}

float MassOf(uint64_t units) {
  const double mass = static_cast<double>(units) * kMassUnit;
  if (mass > 2) return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>(std::min(mass, 1.0));
}

}  // namespace acuity::kernels::cuda
