#include "server/grpc/service.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/grpc/convert.h"
#include "server/grpc/finish_now.h"
#include "server/grpc/generate_call.h"
#include "server/grpc/score_call.h"

namespace acuity::server {
namespace {

absl::Status Tokenize(const engine::Engine& engine, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse* response) {
  const auto ids = ToTokens(request.prompt(), engine, ChatTurn::kNext);
  if (!ids.ok()) return ids.status();
  for (engine::TokenId id : *ids) {
    response->add_token_ids(id);
    response->add_tokens(std::string(engine.tokenizer().TokenBytes(id, /*with_special=*/true)));
  }
  return absl::OkStatus();
}

absl::Status Detokenize(const engine::Engine& engine, const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse* response) {
  const int vocab = engine.tokenizer().vocab_size();
  for (engine::TokenId id : request.token_ids()) {
    if (id < 0 || id >= vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("token_ids: ", id, " is not in the vocabulary, 0 to ", vocab - 1));
    }
  }
  const std::vector<engine::TokenId> ids(request.token_ids().begin(), request.token_ids().end());
  response->set_text(engine.tokenizer().Decode(ids));
  return absl::OkStatus();
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* AcuityService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return GenerateCall::Start(context, services_, *request);
}

grpc::ServerUnaryReactor* AcuityService::Score(grpc::CallbackServerContext* context,
                                               const v1::ScoreRequest* request,
                                               v1::ScoreResponse* response) {
  return ScoreCall::Start(context, services_, *request, response);
}

grpc::ServerUnaryReactor* AcuityService::Tokenize(grpc::CallbackServerContext* context,
                                                  const v1::TokenizeRequest* request,
                                                  v1::TokenizeResponse* response) {
  return FinishNow(context, services_, [&] {
    const auto model = services_.models->Find(request->model());
    return model.ok() ? server::Tokenize(*(*model)->engine, *request, response) : model.status();
  });
}

grpc::ServerUnaryReactor* AcuityService::Detokenize(grpc::CallbackServerContext* context,
                                                    const v1::DetokenizeRequest* request,
                                                    v1::DetokenizeResponse* response) {
  return FinishNow(context, services_, [&] {
    const auto model = services_.models->Find(request->model());
    return model.ok() ? server::Detokenize(*(*model)->engine, *request, response) : model.status();
  });
}

grpc::ServerUnaryReactor* AcuityService::ListModels(grpc::CallbackServerContext* context,
                                                    const v1::ListModelsRequest*,
                                                    v1::ListModelsResponse* response) {
  return FinishNow(context, services_, [&] {
    for (const auto& [name, model] : services_.models->all()) {
      *response->add_models() = ToProto(*model.engine);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AcuityService::GetModel(grpc::CallbackServerContext* context,
                                                  const v1::GetModelRequest* request,
                                                  v1::Model* response) {
  return FinishNow(context, services_, [&] {
    const auto model = services_.models->Find(request->model());
    if (model.ok()) *response = ToProto(*(*model)->engine);
    return model.status();
  });
}

}  // namespace acuity::server
