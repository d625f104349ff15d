// What attention_test.cc and attention_traps_test.cc run on: each of their binaries links one
// definition of this.
#pragma once

#include <vector>

#include "kernels/attention.h"
#include "tests/kernels/attention_fixture.h"

namespace acuity::kernels {

struct AttentionMatrix {
  std::vector<DType> dtypes;
  std::vector<int> head_dims;        // over every feature
  std::vector<int> other_head_dims;  // over some
  std::vector<int> groups;
  std::vector<int> pages;
  bool softcap = true;  // false: left out wherever a test would ask for it
};
AttentionMatrix Matrix();
std::vector<AttentionBackend> Backends();

}  // namespace acuity::kernels
