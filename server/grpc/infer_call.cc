#include "server/grpc/infer_call.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/limits.h"
#include "server/grpc/convert.h"

namespace acuity::server {
namespace {

constexpr int kMaxAnswers = 100;  // of one stream at a time

// One request's answer, or its stream of answers.
class InferAnswer final : public AnsweringCall::Answer {
 public:
  explicit InferAnswer(const inference::ModelInferRequest& proto)
      : id(proto.id().size() <= engine::kMaxIdBytes ? proto.id() : ""),
        answers(proto.model_name(), id) {}

  // What AnsweringCall::Run makes of `proto`; `one`: the call can give only one answer.
  absl::StatusOr<engine::Request> Make(const inference::ModelInferRequest& proto, bool one,
                                       const engine::Engine& engine,
                                       const grpc::ServerContextBase& context,
                                       const std::string& tenant, absl::Time arrival) {
    absl::StatusOr<InferRequest> read = ToGenerateRequest(proto);
    if (!read.ok()) return read.status();
    if (one && read->options.stream) {
      return absl::InvalidArgumentError(
          "inputs.stream: true, ModelInfer gives one answer, ModelStreamInfer many");
    }
    if (!read->options.stream) set_whole();
    answers.set_options(std::move(read->options));
    absl::StatusOr<engine::Request> request =
        ToRequest(read->request, engine, context, tenant, arrival);
    if (!request.ok()) return RenameField(request.status());
    return request;
  }

  const std::string id;  // "" if it is too long, which is an error
  InferAnswers answers;
  bool filled = false;  // its last answer but the empty one is sent
};

}  // namespace

InferCall* InferCall::Start(grpc::CallbackServerContext* context, const ServiceContext& services,
                            const inference::ModelInferRequest& proto,
                            inference::ModelInferResponse* response) {
  const std::shared_ptr<InferCall> call(new InferCall(context, response));
  call->Open();
  const auto answer = std::make_shared<InferAnswer>(proto);
  call->Run(answer, services, proto.model_name(),
            [&](const engine::Engine& engine, const std::string& tenant, absl::Time arrival) {
              return answer->Make(proto, /*one=*/true, engine, *context, tenant, arrival);
            });
  call->Close();
  return call.get();
}

bool InferCall::Send(Answer& answer, v1::GenerateResponse gathered) {
  set_status(answer.status());
  if (answer.status().ok()) {
    static_cast<InferAnswer&>(answer).answers.Fill(gathered, /*last=*/true, response_);
  }
  return true;
}

InferStreamCall* InferStreamCall::Start(grpc::CallbackServerContext* context,
                                        const ServiceContext& services) {
  const std::shared_ptr<InferStreamCall> call(new InferStreamCall(context, services));
  call->Open();
  const absl::StatusOr<std::string> tenant = AcceptCaller(*context, *services.auth);
  if (tenant.ok()) {
    call->StartRead(&call->read_);
  } else {
    call->Close(tenant.status());
  }
  return call.get();
}

void InferStreamCall::OnReadDone(bool ok) {
  if (!ok) return Close();
  const inference::ModelInferRequest proto = std::exchange(read_, {});
  const auto answer = std::make_shared<InferAnswer>(proto);
  Run(answer, services_, proto.model_name(),
      [&](const engine::Engine& engine, const std::string& tenant, absl::Time arrival) {
        return answer->Make(proto, /*one=*/false, engine, *call_context_, tenant, arrival);
      });
  {
    std::lock_guard lock(read_mutex_);
    reading_ = false;
  }
  ReadNext();
}

void InferStreamCall::ReadNext() {
  std::lock_guard lock(read_mutex_);
  if (reading_ || num_answers() >= kMaxAnswers) return;
  reading_ = true;
  StartRead(&read_);
}

bool InferStreamCall::Send(Answer& base, v1::GenerateResponse gathered) {
  InferAnswer& answer = static_cast<InferAnswer&>(base);
  writing_.Clear();
  inference::ModelInferResponse* out = writing_.mutable_infer_response();
  const bool empty_final = answer.answers.options().empty_final;
  bool done = answer.ended();
  if (!answer.status().ok()) {
    answer.answers.FillEmpty(out);
    writing_.set_error_message(absl::StrCat(
        absl::StatusCodeToString(answer.status().code()), ": ", answer.status().message(),
        answer.id.empty() ? "" : absl::StrCat(" (request \"", answer.id, "\")")));
  } else if (answer.filled) {
    answer.answers.FillEmpty(out);
  } else {
    done = answer.ended() && !empty_final;
    answer.filled = answer.ended();
    answer.answers.Fill(gathered, /*last=*/done, out);
  }
  NoteWrite();
  StartWrite(&writing_);
  return done;
}

}  // namespace acuity::server
