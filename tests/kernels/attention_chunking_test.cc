// A row's bits do not depend on how its prompt was cut into chunks, on its neighbours, or on
// threads: recomputing decoded tokens as prefill after a preemption, and skipping rows found in a
// prefix cache, change nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/attention_fixture.h"

namespace acuity::kernels {
namespace {

constexpr int kLength = 1060;  // more than two splits of keys
constexpr int kKvHeads = 1;

using Param =
    std::tuple<DType, int, int, int, std::string>;  // dtype, head_dim, group, window, kernels

std::string Name(const testing::TestParamInfo<Param>& info) {
  const auto& [dtype, dim, group, window, kernels] = info.param;
  constexpr const char* kTypes[] = {"f32", "bf16", "f16", "f8"};
  return std::string(kTypes[static_cast<int>(dtype)]) + "_d" + std::to_string(dim) + "_g" +
         std::to_string(group) + "_window" + std::to_string(window) + "_" + kernels;
}

std::vector<std::string> KernelNames() {
  std::vector<std::string> names;
  for (const NamedKernels& kernels : AllKernels()) names.push_back(kernels.name);
  return names;
}

class AttentionChunking : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    const auto& [dtype, dim, group, window, name] = GetParam();
    shape_ = {kKvHeads * group, kKvHeads, dim, 16, dtype};
    for (const NamedKernels& kernels : AllKernels()) {
      if (kernels.name == name) kernels_ = kernels.kernels;
    }
    for (int h = 0; h < shape_.num_heads; ++h) {
      s_.push_back(h % 2 == 0 ? 0.4f : -0.3f);
      sinks_.push_back(0.5f * static_cast<float>(h));
    }
    sequence_ = MakeSequence(shape_, kLength, 11);
    other_ = MakeSequence(shape_, 300, 12);
    whole_ = Run({{&sequence_, 0, kLength}}, 1);
  }

  AttentionCase::Result Run(const std::vector<Chunk>& chunks, int threads) {
    AttentionCase attention(shape_, chunks);
    attention.params().window = std::get<3>(GetParam());
    attention.params().policy = {RowScaleKind::kSsmax, s_.data()};
    attention.params().sinks = sinks_.data();
    return attention.Run(*kernels_, threads);
  }

  // Rows [begin, end) of the sequence, which start at row `at` of `actual`, are those of the whole
  // prompt.
  void ExpectSame(const AttentionCase::Result& actual, int64_t at, int begin, int end) {
    for (int row = begin; row < end; ++row) {
      ASSERT_TRUE(SameBits(shape_, actual, at + row - begin, whole_, row))
          << "position " << row << " of chunk [" << begin << ", " << end << ")";
    }
  }

  AttentionShape shape_;
  const AttentionKernels* kernels_ = nullptr;
  std::vector<float> s_, sinks_;
  SequenceData sequence_, other_;
  AttentionCase::Result whole_;
};

TEST_P(AttentionChunking, ChunksOf512And100And7) {
  for (int size : {512, 100, 7}) {
    const int first = size == 7 ? 1000 : 0;  // the last chunks are enough of the small ones
    for (int begin = first; begin < kLength; begin += size) {
      const int end = std::min(kLength, begin + size);
      ExpectSame(Run({{&sequence_, begin, end}}, 1), 0, begin, end);
    }
  }
}

TEST_P(AttentionChunking, DecodedOneAtATime) {
  for (int row : {0, 1, 15, 16, 63, 64, 65, 127, 400, 511, 512, 513, 800, 1023, 1024, 1025, 1059}) {
    ExpectSame(Run({{&sequence_, row, row + 1}}, 1), 0, row, row + 1);
  }
}

TEST_P(AttentionChunking, NeighboursAndThreads) {
  const std::vector<Chunk> batch = {{&other_, 0, 300},        {&sequence_, 600, 601},
                                    {&other_, 299, 300},      {&sequence_, 960, 1060},
                                    {&sequence_, 1059, 1060}, {&other_, 100, 250},
                                    {&sequence_, 500, 530}};
  for (int threads : {1, 2, 4}) {
    const AttentionCase::Result result = Run(batch, threads);
    int64_t at = 0;
    for (const Chunk& chunk : batch) {
      if (chunk.sequence == &sequence_) ExpectSame(result, at, chunk.begin, chunk.end);
      at += chunk.end - chunk.begin;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, AttentionChunking,
    testing::Combine(testing::Values(DType::kFloat32, DType::kBFloat16, DType::kFloat8),
                     testing::Values(64, 80), testing::Values(1, 3, 8), testing::Values(0, 600),
                     testing::ValuesIn(KernelNames())),
    Name);

}  // namespace
}  // namespace acuity::kernels
