// A copy on the device of everything that one call of attention points to, for tests.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "tests/kernels/cuda/device_array.h"

namespace acuity::kernels::cuda {

class DeviceAttention {
 public:
  // `host`: as AttentionCase makes it; stats may be null.
  explicit DeviceAttention(const AttentionParams& host);
  DeviceAttention(const DeviceAttention&) = delete;

  const AttentionParams& params() const { return params_; }
  // Copies out and stats back to where `host` pointed.
  void ReadBack() const;

 private:
  const AttentionParams host_;
  AttentionParams params_;
  DeviceArray<int32_t> indptr_, kv_len_, tables_;
  DeviceArray<float> q_, out_, s_, b_, sinks_;
  DeviceArray<char> k_, v_;
  DeviceArray<RowStats> stats_;
};

}  // namespace acuity::kernels::cuda
