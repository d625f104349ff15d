// SpanMass on a GPU: what kernels/attention_span.h measures, for all watched rows of a step in one
// launch a layer.
//
//   ListSpans(host) -> one copy to the device -> SpanMass(device), after each layer's RunAttention
//   -> one copy back -> MassOf each
//
// A span's keys are cut into pieces that different blocks sum; the pieces add up in fixed point, so
// that the result does not depend on the order of blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention_span.h"

namespace acuity::kernels::cuda {

// One span of one watched row. The mass of head h is at mass[at + h * stride].
struct WatchedSpan {
  int32_t seq = -1;  // -1: padding, which writes nothing
  int32_t row = 0;   // within the sequence's new rows
  KeySpan keys;
  int32_t at = 0, stride = 0;
};

// Spans as the device reads them, reused from step to step.
struct SpanList {
  std::vector<WatchedSpan> spans;
  int32_t longest = 0;  // keys of the longest
  int32_t masses = 0;   // of a layer: in the order of kernels::SpanMass, of each watched row in
                        // turn [num_heads, num_spans]
};
void ListSpans(const WatchedRow* watched, int count, int num_heads, SpanList* list);

struct SpanMassParams {
  AttentionParams attention;           // as RunAttention had them, stats filled; on the device
  const WatchedSpan* spans = nullptr;  // [num_spans]
  int32_t num_spans = 0;
  int32_t longest = 0;       // no span has more keys
  uint64_t* mass = nullptr;  // what ListSpans counted, zeroed before: units of kMassUnit are added
};
// Enqueues one kernel: null, or a static sentence that says what was refused, or the error of the
// launch. Allocates nothing; safe in a CUDA graph. `stream` is a cudaStream_t.
[[nodiscard]] const char* SpanMass(const SpanMassParams& params, void* stream);

inline constexpr double kMassUnit = 0x1p-40;
// In [0, 1], or NaN where a logit was none.
float MassOf(uint64_t units);

}  // namespace acuity::kernels::cuda
