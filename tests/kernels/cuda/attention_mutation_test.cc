// The checks see bugs: kernels with one planted each fail, under every schedule; without one they
// pass, under as many.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "kernels/cuda/attention_launch.cuh"
#include "tests/kernels/cuda/attention_trial.h"

namespace acuity::kernels::cuda {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;

template <Mutation kMutation, DType kType, bool kSoftcap>
const char* LaunchMutant(const AttentionParams& params, const PlanCapacity& capacity,
                         const void* plan, float* workspace) {
  AttentionArgs args;
  args.params = params;
  args.workspace = workspace;
  args.page_shift = 4;
  return LaunchVariant<Variant{64, kType, true, kSoftcap, kMutation}>(
      args, capacity, ReadPlan(capacity, plan), nullptr);
}

// A decode step over two splits, or a chunk of a prompt.
template <Mutation kMutation, DType kType = DType::kBFloat16, bool kSoftcap = false>
void ExpectSeen(bool prefill, const testing::Matcher<std::string>& how) {
  AttentionTrial trial(64, prefill ? 130 : 598, prefill ? 217 : 600, PrefillWith::kWarps, kType);
  if (kSoftcap) {
    trial.attention.params().logit_softcap = 2;
    trial.expected = trial.attention.Reference();
  }
  trial.ExpectSeen(LaunchMutant<kMutation, kType, kSoftcap>, how);
}

class AttentionMutation : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Kernels, AttentionMutation, testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Prefill" : "Decode"; });

TEST_P(AttentionMutation, NoneIsSeenWhereThereIsNone) {
  ExpectSeen<Mutation::kNone>(GetParam(), IsEmpty());
  ExpectSeen<Mutation::kNone, DType::kFloat8>(GetParam(), IsEmpty());
  ExpectSeen<Mutation::kNone, DType::kFloat8, true>(GetParam(), IsEmpty());
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
  ExpectSeen<Mutation::kMissingCopyWait>(GetParam(),
                                         AnyOf("out", HasSubstr("race"), HasSubstr("in flight")));
}

// Of 8-bit pages.
TEST_P(AttentionMutation, ElementsInTheOrderOfWidening) {
  ExpectSeen<Mutation::kWrongOrder, DType::kFloat8>(GetParam(), "out");
}
TEST_P(AttentionMutation, LogitsLeftInTheUnitOfTheKeys) {
  ExpectSeen<Mutation::kUnitForgotten, DType::kFloat8>(GetParam(), "out");
  ExpectSeen<Mutation::kUnitForgotten, DType::kFloat8, true>(GetParam(), "out");
}
TEST_P(AttentionMutation, ScaleClampRemovedBesideEightBits) {
  ExpectSeen<Mutation::kNoScaleClamp, DType::kFloat8>(GetParam(), AnyOf("out", "entropy"));
}
TEST_P(AttentionMutation, MatricesOfEightBitsFromTheWrongLanes) {
  ExpectSeen<Mutation::kSwappedMatrices, DType::kFloat8>(GetParam(), "out");
}
TEST_P(AttentionMutation, BarrierOrWaitMissingBesideEightBits) {
  ExpectSeen<Mutation::kMissingBarrier, DType::kFloat8>(GetParam(), HasSubstr("race"));
  ExpectSeen<Mutation::kMissingCopyWait, DType::kFloat8>(
      GetParam(), AnyOf("out", HasSubstr("race"), HasSubstr("in flight")));
}

}  // namespace
}  // namespace acuity::kernels::cuda
