#include "server/grpc/answering_call.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "server/grpc/convert.h"
#include "server/grpc/status.h"

namespace acuity::server {
namespace {

constexpr size_t kMaxGatheredBytes = 64 * 1024;
constexpr absl::Duration kMaxWriteTime = absl::Seconds(10);

}  // namespace

bool AnsweringCall::Answer::OnToken(engine::TokenEvent event) {
  return call_->Gather(this, std::move(event));
}

void AnsweringCall::Answer::OnResult(engine::RequestResult result) {
  v1::GenerateResult proto = ToProto(result, *admission_.request);
  call_->End(this, result.status, &proto);
}

void AnsweringCall::Run(std::shared_ptr<Answer> answer, const ServiceContext& services,
                        const std::string& model, MakeRequest make) {
  absl::StatusOr<Admission> admission = Admit(*context_, services, model, make);
  absl::Status status = admission.status();
  {
    std::lock_guard lock(mutex_);
    answer->call_ = shared_from_this();
    if (status.ok()) answer->admission_ = *std::move(admission);
    answers_.push_back(answer);
  }
  if (status.ok()) status = answer->admission_.Submit(*context_, answer);
  if (!status.ok()) End(answer.get(), status, nullptr);
}

void AnsweringCall::Close(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  closed_ = true;
  if (!status.ok()) status_ = status;
  Pump();
}

int AnsweringCall::num_answers() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(answers_.size());
}

bool AnsweringCall::Gather(Answer* answer, engine::TokenEvent event) {
  const Admission& admission = answer->admission_;
  v1::Delta delta =
      ToProto(event, admission.engine->tokenizer(), admission.request->sampling.logprobs >= 0);
  std::lock_guard lock(mutex_);
  answer->admission_.lease.Answered();
  if (!answer->whole_) {
    answer->gathered_bytes_ += delta.ByteSizeLong();
    gathered_bytes_ += delta.ByteSizeLong();
  }
  *answer->gathered_.add_deltas() = std::move(delta);
  if (gathered_bytes_ > kMaxGatheredBytes) {
    context_->TryCancel();
    return false;
  }
  Pump();
  return true;
}

void AnsweringCall::End(Answer* answer, const absl::Status& status, v1::GenerateResult* result) {
  int done = 0;
  {
    std::lock_guard lock(mutex_);
    answer->ended_ = true;
    answer->status_ = status;
    answer->admission_.lease.Release();
    if (result != nullptr) answer->gathered_.mutable_result()->Swap(result);
    done = Pump();
  }
  while (done-- > 0) OnAnswered();
}

void AnsweringCall::OnWritten(bool ok) {
  int done = 0;
  {
    std::lock_guard lock(mutex_);
    write_under_way_ = false;
    // Not ok: the stream is broken. The engine's results end the call.
    if (!ok) Discard();
    done = Pump();
  }
  while (done-- > 0) OnAnswered();
}

void AnsweringCall::OnCancelled() {
  std::lock_guard lock(mutex_);
  Discard();
  Pump();
}

// Nobody hears what is left.
void AnsweringCall::Discard() {
  for (const auto& answer : answers_) {
    answer->gathered_.Clear();
    answer->gathered_bytes_ = 0;
    if (!answer->ended_) answer->admission_.Cancel();
  }
  gathered_bytes_ = 0;
}

int AnsweringCall::Pump() {
  int done = 0;
  const bool deaf = context_->IsCancelled();
  while (!write_under_way_ && !finished_) {
    const auto next = std::find_if(answers_.begin(), answers_.end(),
                                   [](const auto& answer) { return answer->something(); });
    if (next == answers_.end()) break;
    const std::shared_ptr<Answer> answer = *next;
    answers_.erase(next);
    v1::GenerateResponse gathered;
    gathered.Swap(&answer->gathered_);
    gathered_bytes_ -= std::exchange(answer->gathered_bytes_, 0);
    if (deaf ? answer->ended_ : Send(*answer, std::move(gathered))) {
      ++done;
    } else {
      answers_.push_back(answer);  // the others first
    }
  }
  if (closed_ && answers_.empty() && !write_under_way_ && !finished_) {
    finished_ = true;
    FinishCall(ToGrpcStatus(status_));
  }
  return done;
}

void AnsweringCall::NoteWrite() {
  write_under_way_ = true;
  write_started_ = absl::Now();
  if (alarm_ == nullptr) Watch(write_started_ + kMaxWriteTime);
}

void AnsweringCall::Watch(absl::Time when) {
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(absl::ToChronoTime(when), [weak = weak_from_this()](bool due) {
    if (!due) return;  // taken back, perhaps under the mutex
    if (const std::shared_ptr<AnsweringCall> call = weak.lock()) call->CheckWrite();
  });
}

void AnsweringCall::CheckWrite() {
  std::lock_guard lock(mutex_);
  if (!write_under_way_) {
    alarm_.reset();
  } else if (absl::Now() < write_started_ + kMaxWriteTime) {
    Watch(write_started_ + kMaxWriteTime);
  } else {
    context_->TryCancel();
  }
}

void AnsweringCall::OnGone() {
  std::shared_ptr<AnsweringCall> self;  // outlives the lock: it may be the last owner
  std::lock_guard lock(mutex_);
  alarm_.reset();
  self = std::move(self_);
}

}  // namespace acuity::server
