#include "server/grpc/generate_call.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/grpc/convert.h"
#include "server/grpc/status.h"

namespace acuity::server {
namespace {

// A reader that is this far behind, or has not taken a message for this long, is cancelled: it must
// not hold memory.
constexpr size_t kMaxGatheredBytes = 64 * 1024;
constexpr absl::Duration kMaxWriteTime = absl::Seconds(10);

}  // namespace

GenerateCall* GenerateCall::Start(grpc::CallbackServerContext* context,
                                  const ServiceContext& services,
                                  const v1::GenerateRequest& proto) {
  std::shared_ptr<GenerateCall> call(new GenerateCall);
  call->self_ = call;
  call->context_ = context;
  const absl::Status admitted = Admit(*context, services, proto, call, &call->admission_);
  if (!admitted.ok()) call->Finish(ToGrpcStatus(admitted));
  return call.get();
}

bool GenerateCall::OnToken(engine::TokenEvent event) {
  v1::Delta delta =
      ToProto(event, admission_.engine->tokenizer(), admission_.request->sampling.logprobs >= 0);
  std::lock_guard lock(mutex_);
  if (dead_) return false;
  admission_.lease.Answered();
  gathered_bytes_ += delta.ByteSizeLong();
  *gathered_.add_deltas() = std::move(delta);
  if (gathered_bytes_ > kMaxGatheredBytes ||
      (write_under_way_ && absl::Now() - write_started_ > kMaxWriteTime)) {
    context_->TryCancel();
    return false;
  }
  WriteOrFinish();
  return true;
}

void GenerateCall::OnResult(engine::RequestResult result) {
  std::lock_guard lock(mutex_);
  have_result_ = true;
  admission_.lease.Release();
  status_ = ToGrpcStatus(result.status);
  *gathered_.mutable_result() = ToProto(result, *admission_.request);
  if (!dead_) WriteOrFinish();
}

void GenerateCall::OnWriteDone(bool ok) {
  std::lock_guard lock(mutex_);
  write_under_way_ = false;
  if (!ok) {
    // The stream is broken; OnCancel tells the engine, and its result ends the call.
    gathered_.Clear();
    admission_.Cancel();
  }
  WriteOrFinish();
}

void GenerateCall::WriteOrFinish() {
  if (write_under_way_ || finished_) return;
  const bool something = gathered_.deltas_size() > 0 || gathered_.has_result();
  if (have_result_ && (!something || context_->IsCancelled())) {
    finished_ = true;
    Finish(status_);
    return;
  }
  if (!something) return;
  writing_.Clear();
  writing_.Swap(&gathered_);
  gathered_bytes_ = 0;
  write_under_way_ = true;
  write_started_ = absl::Now();
  StartWrite(&writing_);
}

void GenerateCall::OnCancel() { admission_.Cancel(); }

void GenerateCall::OnDone() {
  std::shared_ptr<GenerateCall> self;  // outlives the lock: it may be the last owner
  std::lock_guard lock(mutex_);
  dead_ = true;
  self = std::move(self_);
}

}  // namespace acuity::server
