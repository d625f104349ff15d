// kernels/cuda/sample.h draws what engine/sample draws on the CPU, which has its own tests against
// exact distributions. On the emulated machine with random schedules, or on a GPU.
#include "kernels/cuda/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/sample/sampler.h"
#include "tests/kernels/cuda/device_array.h"

namespace acuity::kernels::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Batch {
  int vocab = 0;
  int64_t stride = 0;
  size_t offset = 0;  // of the logits, elements behind a multiple of 128 bytes
  std::vector<float> logits;
  std::vector<SampleRow> rows;

  void Add(const std::vector<float>& row_logits, const SampleRow& row) {
    vocab = static_cast<int>(row_logits.size());
    if (stride == 0) stride = vocab;
    logits.resize(static_cast<size_t>(stride) * rows.size(),
                  99.0f);  // padding that must not be drawn
    logits.insert(logits.end(), row_logits.begin(), row_logits.end());
    rows.push_back(row);
  }
};

std::vector<int32_t> Draw(const Batch& batch, bool in_place = true) {
  std::vector<float> padded = batch.logits;
  padded.resize(static_cast<size_t>(batch.stride) * batch.rows.size(), 99.0f);
  DeviceArray<float> logits(padded, batch.offset), scratch(padded, batch.offset);
  DeviceArray<SampleRow> rows(batch.rows);
  DeviceArray<int32_t> tokens(std::vector<int32_t>(batch.rows.size(), -7));
  SampleParams p;
  p.logits = logits.data();
  p.scratch = in_place ? logits.data() : scratch.data();
  p.stride = batch.stride;
  p.vocab = batch.vocab;
  p.rows = static_cast<int64_t>(batch.rows.size());
  p.params = rows.data();
  p.tokens = tokens.data();
  EXPECT_STREQ(Sample(p, nullptr), nullptr);
  EXPECT_STREQ(Finish(), nullptr);
  if (!in_place) {
    EXPECT_EQ(logits.Read(), padded);
  }
  return tokens.Read();
}

int32_t OnTheCpu(const std::vector<float>& logits, const SampleRow& row) {
  engine::SamplingParams params;
  params.temperature = row.temperature;
  params.top_k = row.top_k;
  params.top_p = row.top_p;
  params.min_p = row.min_p;
  engine::Sampler sampler(static_cast<int>(logits.size()));
  const auto sampled = sampler.Sample(logits, params, {.seed = row.seed, .position = row.position});
  return sampled.ok() ? sampled->token : -1;
}

std::vector<float> Logits(int vocab, float deviation, uint32_t seed, float quantum = 0) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (float& z : logits) {
    z = normal(rng);
    if (quantum > 0) z = std::round(z / quantum) * quantum;
  }
  return logits;
}

std::string Describe(int vocab, const SampleRow& row) {
  return "vocab " + std::to_string(vocab) + ", temperature " + std::to_string(row.temperature) +
         ", top_k " + std::to_string(row.top_k) + ", top_p " + std::to_string(row.top_p) +
         ", min_p " + std::to_string(row.min_p) + ", seed " + std::to_string(row.seed) +
         ", position " + std::to_string(row.position);
}

std::vector<SampleRow> Rows(uint64_t seed, int count = 8) {
  const float temperatures[] = {1, 0.4f, 3, 1e-3f};
  const int32_t top_ks[] = {0, 1, 5, 40, 1 << 20};
  const float top_ps[] = {1, 0.9f, 0.35f, 1e-6f, 0.999f};
  const float min_ps[] = {0, 0.05f, 1};
  std::mt19937 rng(static_cast<uint32_t>(seed));
  std::vector<SampleRow> rows;
  for (int i = 0; i < count; ++i) {
    rows.push_back({temperatures[rng() % 4], top_ks[rng() % 5], top_ps[rng() % 5],
                    min_ps[rng() % 6 < 4 ? 0 : 1 + rng() % 2], rng() % 3 == 0 ? ~0ull : rng(),
                    static_cast<int64_t>(rng() % 5000)});
  }
  return rows;
}

TEST(CudaSample, DrawsWhatTheCpuDraws) {
  uint32_t seed = 0;
  for (int vocab : {1, 2, 3, 31, 128, 129, 1000, 2049, 5003}) {
    Batch batch;
    std::vector<int32_t> expected;
    for (const SampleRow& row : Rows(++seed)) {
      // Ties in every second row, down to a few distinct values.
      const float quantum = expected.size() % 2 == 0 ? 0 : 0.5f;
      const std::vector<float> logits = Logits(vocab, 2, ++seed, quantum);
      batch.Add(logits, row);
      expected.push_back(OnTheCpu(logits, row));
    }
    SetScheduleSeed(seed);
    const std::vector<int32_t> drawn = Draw(batch, vocab % 2 == 0);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(drawn[i], expected[i]) << Describe(vocab, batch.rows[i]);
    }
  }
}

TEST(CudaSample, StridesAndMisalignedRows) {
  for (int64_t stride : {300, 303, 304}) {
    for (size_t offset : {0, 1}) {
      Batch batch;
      batch.stride = stride;
      batch.offset = offset;
      std::vector<int32_t> expected;
      for (const SampleRow& row : Rows(static_cast<uint64_t>(stride), 3)) {
        const std::vector<float> logits = Logits(300, 1, static_cast<uint32_t>(expected.size()));
        batch.Add(logits, row);
        expected.push_back(OnTheCpu(logits, row));
      }
      EXPECT_EQ(Draw(batch), expected) << "stride " << stride << ", offset " << offset;
    }
  }
}

TEST(CudaSample, EqualLogitsAreCutById) {
  const std::vector<float> equal(700, 1.5f);
  for (uint64_t seed = 0; seed < 2; ++seed) {
    Batch batch;
    for (int64_t position = 0; position < 6; ++position) {
      batch.Add(equal,
                {1, position % 2 == 0 ? 9 : 0, position % 3 == 0 ? 1 : 0.01f, 0, seed, position});
    }
    const std::vector<int32_t> drawn = Draw(batch);
    for (size_t i = 0; i < drawn.size(); ++i) {
      EXPECT_EQ(drawn[i], OnTheCpu(equal, batch.rows[i])) << Describe(700, batch.rows[i]);
      if (batch.rows[i].top_k == 9) {
        EXPECT_LT(drawn[i], 9);
      }
    }
  }
}

TEST(CudaSample, GreedyTakesTheLowestIdAmongEquals) {
  Batch batch;
  std::vector<int32_t> expected;
  for (int best : {0, 1, 511, 512, 2047, 2999}) {
    std::vector<float> logits = Logits(3000, 1, static_cast<uint32_t>(best));
    for (int other : {best, best + 1, best + 4, 2999}) {
      if (other < 3000) logits[static_cast<size_t>(other)] = 50;
    }
    batch.Add(logits, {0, 3, 0.5f, 0.5f, 1, 2});
    expected.push_back(best);
  }
  std::vector<float> masked(3000, -kInfinity);
  masked[1234] = -1e30f;
  batch.Add(masked, {0});
  expected.push_back(1234);
  EXPECT_EQ(Draw(batch, false), expected);
}

TEST(CudaSample, MaskedTokensAreNeverDrawn) {
  Batch batch;
  std::vector<float> logits(1500, -kInfinity);
  logits[700] = 0, logits[1499] = -0.5f;
  for (int64_t position = 0; position < 6; ++position) {
    batch.Add(logits, {5, position % 2 == 0 ? 0 : 100, 1, 0, 3, position});
  }
  const std::vector<int32_t> drawn = Draw(batch);
  for (size_t i = 0; i < drawn.size(); ++i) {
    EXPECT_EQ(drawn[i], OnTheCpu(logits, batch.rows[i]));
    EXPECT_TRUE(drawn[i] == 700 || drawn[i] == 1499) << drawn[i];
  }
}

TEST(CudaSample, RowsThatAreNotNumbersFailAlone) {
  Batch batch;
  std::vector<int32_t> expected;
  for (float bad : {std::nanf(""), kInfinity, 0.0f}) {
    for (size_t at : {size_t{0}, size_t{601}, size_t{999}}) {
      for (float temperature : {0.0f, 1.0f}) {
        std::vector<float> logits = Logits(1000, 1, 5);
        if (bad != 0) logits[at] = bad;
        batch.Add(logits, {temperature, 0, 1, 0, 9, 9});
        expected.push_back(bad != 0 ? -1 : OnTheCpu(logits, batch.rows.back()));
      }
    }
  }
  batch.Add(std::vector<float>(1000, -kInfinity), {1});
  expected.push_back(-1);
  EXPECT_EQ(Draw(batch), expected);
}

TEST(CudaSample, DependsOnNeitherNeighboursNorTheSchedule) {
  const std::vector<SampleRow> rows = Rows(77);
  Batch batch;
  for (const SampleRow& row : rows) batch.Add(Logits(900, 2, 11), row);
  SetScheduleSeed(5);
  const std::vector<int32_t> together = Draw(batch);
  for (size_t i = 0; i < rows.size(); ++i) {
    Batch alone;
    alone.Add(Logits(900, 2, 11), rows[i]);
    SetScheduleSeed(100 + i);
    EXPECT_EQ(Draw(alone)[0], together[i]) << Describe(900, rows[i]);
  }
}

TEST(CudaSample, RefusesWhatItCannotDo) {
  SampleParams p;
  EXPECT_STREQ(Sample(p, nullptr), "Sample: vocab must be within 1 and 2^30");
  p.vocab = 8, p.stride = 7;
  EXPECT_STREQ(Sample(p, nullptr), "Sample: stride must be at least vocab");
  p.stride = 8, p.rows = -1;
  EXPECT_STREQ(Sample(p, nullptr), "Sample: rows must be within 0 and 2^31 - 1");
  p.rows = 0;
  EXPECT_STREQ(Sample(p, nullptr), nullptr);
}

}  // namespace
}  // namespace acuity::kernels::cuda
