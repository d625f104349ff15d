// A ragged batch without block tables: what planners look at.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace acuity::kernels {

struct RaggedLengths {
  std::vector<int32_t> qo_indptr{0}, kv_len;

  // A sequence of `length` keys, whose last `rows` are new.
  void Add(int rows, int length) {
    qo_indptr.push_back(qo_indptr.back() + rows);
    kv_len.push_back(length);
  }
  RaggedBatch ragged() const {
    return {static_cast<int>(kv_len.size()), qo_indptr.data(), kv_len.data(), nullptr, 0};
  }
};

}  // namespace acuity::kernels
