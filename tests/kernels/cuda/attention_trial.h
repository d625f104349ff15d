// One batch, run by one kernel under many schedules: what is wrong with each result, for tests that
// plant bugs.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/kernels/cuda/emulated_attention.h"

namespace acuity::kernels::cuda {

// A chunk of a sequence of 600; scales of either sign and zero.
struct AttentionTrial {
  static constexpr int kSchedules = 12;

  AttentionTrial(int head_dim, int begin, int end, PrefillWith prefill_with,
                 DType type = DType::kBFloat16)
      : shape{8, 2, head_dim, 16, type},
        sequence(MakeSequence(shape, 600, 31)),
        attention(shape, {{&sequence, begin, end}}),
        with(prefill_with) {
    attention.params().policy = {RowScaleKind::kSsmax, s};
    expected = attention.Reference();
  }

  // "": as it should be; else what is wrong.
  std::string Fault(const Launcher& launch, uint64_t seed) {
    std::string fault;
    const AttentionBackend backend = {"",
                                      [&](const AttentionParams& params) -> std::string {
                                        fault = RunEmulated(params, seed, 0, launch, with);
                                        return "";
                                      },
                                      {}};
    const AttentionCase::Result actual = attention.Run(backend);
    if (!fault.empty()) return fault;
    const Tolerance tolerance = RoundedTolerance(shape.kv_dtype);
    const auto near = [](double a, double b, double allowed) { return std::abs(a - b) <= allowed; };
    for (size_t i = 0; i < actual.out.size(); ++i) {
      if (!near(actual.out[i], expected.out[i], tolerance.out)) return "out";
    }
    for (size_t i = 0; i < actual.stats.size(); ++i) {
      const RowStats& a = actual.stats[i];
      const ReferenceStats& e = expected.stats[i];
      if (!near(a.entropy, e.entropy, tolerance.entropy)) return "entropy";
      if (!near(a.max_probability, e.max_probability, tolerance.max_probability)) {
        return "max_probability";
      }
    }
    return "";
  }

  // Every schedule must end in a fault that `how` matches.
  void ExpectSeen(const Launcher& launch, const testing::Matcher<std::string>& how) {
    for (int seed = 1; seed <= kSchedules; ++seed) {
      EXPECT_THAT(Fault(launch, seed), how) << "schedule " << seed;
    }
  }

  float s[8] = {0.4f, -0.3f, 0.0f, 0.2f, -0.6f, 1.0f, 0.1f, 0.5f};
  AttentionShape shape;
  SequenceData sequence;
  AttentionCase attention;
  ReferenceResult expected;
  PrefillWith with;
};

}  // namespace acuity::kernels::cuda
