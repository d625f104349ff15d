// The checks see bugs in the kernel on warpgroups: each planted one fails under every schedule.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_warpgroup.cuh"
#include "tests/kernels/cuda/attention_trial.h"

namespace acuity::kernels::cuda {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;

template <Mutation kMutation, int kHeadDim>
const char* LaunchMutant(const AttentionParams& params, const PlanCapacity& capacity,
                         const void* plan, float* workspace) {
  const DevicePlan device_plan = ReadPlan(capacity, plan);
  AttentionArgs args;
  args.params = params;
  args.workspace = workspace;
  args.page_shift = 4;
  args.tasks = device_plan.prefill;
  args.count = &device_plan.counts[1];
  using Kernel =
      WarpgroupPrefillKernel<Variant{kHeadDim, DType::kBFloat16, true, false, kMutation}>;
  return prim::Launch<Kernel>({static_cast<uint32_t>(capacity.prefill), 1, 1},
                              WarpgroupPrefillSharedBytes(kHeadDim), args, nullptr);
}

// Four tiles of keys, so that each of the two places of a tile is used twice; in two blocks for
// each KV head, the second one with rows for one of its warpgroups only.
template <Mutation kMutation, int kHeadDim = 64>
void ExpectSeen(const testing::Matcher<std::string>& how) {
  AttentionTrial trial(kHeadDim, 390, 430, PrefillWith::kWarpgroups);
  trial.ExpectSeen(LaunchMutant<kMutation, kHeadDim>, how);
}

// Which warp is ahead decides what is seen first.
testing::Matcher<std::string> Disorder() {
  return AnyOf(HasSubstr("race"), HasSubstr("in flight"), HasSubstr("for ever"));
}

TEST(WarpgroupMutation, NoneIsSeenWhereThereIsNone) { ExpectSeen<Mutation::kNone>(IsEmpty()); }
TEST(WarpgroupMutation, ScaleClampRemoved) {
  ExpectSeen<Mutation::kNoScaleClamp>(AnyOf("out", "entropy"));
}
TEST(WarpgroupMutation, SignFoldRemoved) { ExpectSeen<Mutation::kNoSignFold>("out"); }
TEST(WarpgroupMutation, MovedMaximumForgotten) {
  ExpectSeen<Mutation::kNoMovedMaximum>("entropy");  // and nothing else
}
TEST(WarpgroupMutation, TilesOverwrittenUnasked) { ExpectSeen<Mutation::kNoFreeWait>(Disorder()); }
TEST(WarpgroupMutation, TilesReadBeforeTheyAreFull) {
  ExpectSeen<Mutation::kNoFullWait>(Disorder());
}
TEST(WarpgroupMutation, TheOtherPhaseWaitedFor) { ExpectSeen<Mutation::kWrongParity>(Disorder()); }
TEST(WarpgroupMutation, FewerArrivalsExpected) { ExpectSeen<Mutation::kWrongArrivals>(Disorder()); }
TEST(WarpgroupMutation, TileGivenBackEarly) { ExpectSeen<Mutation::kEarlyRelease>(Disorder()); }
TEST(WarpgroupMutation, ProductsNotWaitedFor) {
  ExpectSeen<Mutation::kNoProductWait>(HasSubstr("accumulators used"));
}
TEST(WarpgroupMutation, RegistersNotFenced) {
  ExpectSeen<Mutation::kNoProductFence>(HasSubstr("no FenceProducts"));
}
TEST(WarpgroupMutation, MemoryNotFenced) {
  ExpectSeen<Mutation::kNoProxyFence>(HasSubstr("proxy"));
}
TEST(WarpgroupMutation, QueriesNotWaitedFor) {
  ExpectSeen<Mutation::kNoQueryBarrier>(HasSubstr("race"));
}
TEST(WarpgroupMutation, AnotherSwizzleDescribed) {
  ExpectSeen<Mutation::kWrongSwizzle>(HasSubstr("swizzle"));
}
TEST(WarpgroupMutation, TilesWrittenWithoutSwizzle) { ExpectSeen<Mutation::kPlainCopy>("out"); }
TEST(WarpgroupMutation, SecondPanelElsewhere) { ExpectSeen<Mutation::kWrongPanel, 128>("out"); }

}  // namespace
}  // namespace acuity::kernels::cuda
