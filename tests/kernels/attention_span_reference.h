// The oracle of both machines' SpanMass.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention_span.h"
#include "tests/kernels/attention_fixture.h"

namespace acuity::kernels {

// The masses in double precision, from the definition and from nothing of the kernel's: the logits
// by way of the sequence's own q and k instead of pages.
struct SpanReference {
  const AttentionParams& params;
  const SequenceData& sequence;
  int position;  // absolute, of the row

  double Logit(int head, int key, int64_t n) const {
    const AttentionShape& shape = params.shape;
    const int kv_head = head / (shape.num_heads / shape.num_kv_heads);
    double dot = 0;
    for (int d = 0; d < shape.head_dim; ++d) {
      dot += double{sequence.q[(position * shape.num_heads + head) * shape.head_dim + d]} *
             sequence.k[(key * shape.num_kv_heads + kv_head) * shape.head_dim + d];
    }
    double scale = 1;
    if (params.policy.kind == RowScaleKind::kSsmax) {
      scale = params.policy.s[head] * std::log(static_cast<double>(n));
      if (params.policy.b != nullptr) scale += params.policy.b[head];
    }
    const double z = dot * scale * params.softmax_scale;
    const double cap = params.logit_softcap;
    return cap > 0 ? cap * std::tanh(z / cap) : z;
  }

  double Mass(int head, KeySpan span) const {
    const int first = params.window > 0 ? std::max(0, position + 1 - params.window) : 0;
    std::vector<double> logits;
    double high = -1e300;
    for (int key = first; key <= position; ++key) {
      logits.push_back(Logit(head, key, position + 1 - first));
      high = std::max(high, logits.back());
    }
    double all = 0, inside = 0;
    for (int key = first; key <= position; ++key) {
      const double p = std::exp(logits[key - first] - high);
      all += p;
      if (key >= span.begin && key < span.end) inside += p;
    }
    return inside / all;
  }
};

}  // namespace acuity::kernels
