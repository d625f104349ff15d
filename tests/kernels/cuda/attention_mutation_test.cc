// The checks see bugs: kernels with one planted each fail, under every schedule; without one they
// pass, under as many.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "kernels/cuda/attention_launch.cuh"
#include "kernels/cuda/prim/prim.h"
#include "tests/kernels/cuda/emulated_attention.h"

namespace acuity::kernels::cuda {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int kSchedules = 12;
constexpr AttentionShape kShape = {8, 2, 64, 16, DType::kBFloat16};

template <Mutation kMutation>
const char* LaunchMutant(const AttentionParams& params, const PlanCapacity& capacity,
                         const void* plan, float* workspace) {
  AttentionArgs args;
  args.params = params;
  args.workspace = workspace;
  args.page_shift = 4;
  return LaunchVariant<Variant{64, DType::kBFloat16, true, false, kMutation}>(
      args, capacity, ReadPlan(capacity, plan), nullptr);
}

// A decode step over two splits, or a chunk of a prompt; scales of either sign and zero.
struct Trial {
  explicit Trial(bool prefill)
      : sequence(MakeSequence(kShape, 600, 31)),
        attention(kShape, {prefill ? Chunk{&sequence, 130, 217} : Chunk{&sequence, 598, 600}}) {
    attention.params().policy = {RowScaleKind::kSsmax, s};
    expected = attention.Reference();
  }

  // "": as it should be; else what is wrong.
  std::string Fault(const Launcher& launch, uint64_t seed) {
    std::string fault;
    const AttentionBackend backend = {"",
                                      [&](const AttentionParams& params) -> std::string {
                                        fault = RunEmulated(params, seed, 0, launch);
                                        return "";
                                      },
                                      {}};
    const AttentionCase::Result actual = attention.Run(backend);
    if (!fault.empty()) return fault;
    const Tolerance tolerance = RoundedTolerance(kShape.kv_dtype);
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

  float s[8] = {0.4f, -0.3f, 0.0f, 0.2f, -0.6f, 1.0f, 0.1f, 0.5f};
  SequenceData sequence;
  AttentionCase attention;
  ReferenceResult expected;
};

// Every schedule must end in a fault that `how` matches.
template <Mutation kMutation>
void ExpectSeen(bool prefill, const testing::Matcher<std::string>& how) {
  Trial trial(prefill);
  for (int seed = 1; seed <= kSchedules; ++seed) {
    EXPECT_THAT(trial.Fault(LaunchMutant<kMutation>, seed), how) << "schedule " << seed;
  }
}

class AttentionMutation : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Kernels, AttentionMutation, testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Prefill" : "Decode"; });

TEST_P(AttentionMutation, NoneIsSeenWhereThereIsNone) {
  ExpectSeen<Mutation::kNone>(GetParam(), IsEmpty());
}
TEST_P(AttentionMutation, ScaleClampRemoved) {
  ExpectSeen<Mutation::kNoScaleClamp>(GetParam(), AnyOf("out", "entropy"));
}
TEST_P(AttentionMutation, SignFoldRemoved) { ExpectSeen<Mutation::kNoSignFold>(GetParam(), "out"); }
TEST_P(AttentionMutation, MovedMaximumForgotten) {
  ExpectSeen<Mutation::kNoMovedMaximum>(GetParam(), "entropy");  // and nothing else
}
TEST_P(AttentionMutation, MatricesFromTheWrongLanes) {
  ExpectSeen<Mutation::kSwappedMatrices>(GetParam(), "out");
}
TEST_P(AttentionMutation, BarrierMissing) {
  ExpectSeen<Mutation::kMissingBarrier>(GetParam(), HasSubstr("race"));
}
TEST_P(AttentionMutation, CopiesNotWaitedFor) {
  ExpectSeen<Mutation::kMissingCopyWait>(GetParam(), AnyOf("out", HasSubstr("race")));
}

}  // namespace
}  // namespace acuity::kernels::cuda
