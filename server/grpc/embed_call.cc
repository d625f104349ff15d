#include "server/grpc/embed_call.h"

#include <utility>

#include "server/grpc/convert.h"
#include "server/grpc/status.h"

namespace acuity::server {

EmbedCall* EmbedCall::Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                            const v1::EmbedRequest& proto, v1::EmbedResponse* response) {
  std::shared_ptr<EmbedCall> call(new EmbedCall);
  call->self_ = call;
  call->response_ = response;
  call->normalize_ = proto.normalize();
  absl::Status status = call->AdmitAll(*context, services, proto);
  size_t submitted = 0;
  if (status.ok()) status = call->SubmitAll(*context, &submitted);
  if (!status.ok()) {
    call->OnCancel();
    // The others' are released with their results.
    for (size_t i = submitted; i < call->admissions_.size(); ++i) {
      call->admissions_[i].lease.Release();
    }
  }
  call->EndOne(status);
  return call.get();
}

absl::Status EmbedCall::AdmitAll(const grpc::CallbackServerContext& context,
                                 const ServiceContext& services, const v1::EmbedRequest& proto) {
  int index = 0;
  do {  // without prompts, the first is refused
    absl::StatusOr<Admission> admission =
        Admit(context, services, proto.model(),
              [&](const engine::Engine& engine, const std::string& tenant, absl::Time arrival) {
                return ToRequest(proto, index, engine, context, tenant, arrival);
              });
    if (!admission.ok()) return admission.status();
    admissions_.push_back(*std::move(admission));
    response_->add_embeddings();
  } while (++index < proto.prompts_size());
  return absl::OkStatus();
}

absl::Status EmbedCall::SubmitAll(const grpc::CallbackServerContext& context, size_t* submitted) {
  for (size_t& i = *submitted; i < admissions_.size(); ++i) {
    {
      std::lock_guard lock(mutex_);
      ++unfinished_;
    }
    const absl::Status status =
        admissions_[i].Submit(context, std::make_shared<Part>(self_, static_cast<int>(i)));
    if (!status.ok()) {
      EndOne(status);
      return status;
    }
  }
  return absl::OkStatus();
}

void EmbedCall::OnPrompt(int index, const engine::RequestResult& result) {
  admissions_[static_cast<size_t>(index)].lease.Release();
  if (result.status.ok()) {
    *response_->mutable_embeddings(index) = ToEmbedding(result, normalize_);
  }
  EndOne(result.status);
}

void EmbedCall::EndOne(const absl::Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (status_.ok()) status_ = status;
    if (--unfinished_ > 0) return;
  }
  Finish(ToGrpcStatus(status_));
}

void EmbedCall::OnCancel() {
  for (const Admission& admission : admissions_) admission.Cancel();
}

void EmbedCall::OnDone() { std::exchange(self_, nullptr).reset(); }

}  // namespace acuity::server
