// Between protos and engine types. Generated types stop here. The one validator of request fields.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "acuity/v1/acuity.pb.h"
#include "engine/engine.h"

namespace acuity::server {

// Field checks, tokenisation, then Engine::Prepare. Errors are InvalidArgument "FIELD: value,
// limit", or FailedPrecondition for a chat on a model without a template. `tenant` is the
// caller's, "" if callers are not authenticated; another one in the request is PermissionDenied.
// `arrival` is when the call came in.
absl::StatusOr<engine::Request> ToRequest(const v1::GenerateRequest& proto,
                                          const engine::Engine& engine,
                                          const grpc::ServerContextBase& context,
                                          const std::string& tenant, absl::Time arrival);
absl::StatusOr<engine::Request> ToRequest(const v1::ScoreRequest& proto,
                                          const engine::Engine& engine,
                                          const grpc::ServerContextBase& context,
                                          const std::string& tenant, absl::Time arrival);
// Of prompts[index], but checks all fields. Errors of the prompt name it: "prompts[2].text: ...".
absl::StatusOr<engine::Request> ToRequest(const v1::EmbedRequest& proto, int index,
                                          const engine::Engine& engine,
                                          const grpc::ServerContextBase& context,
                                          const std::string& tenant, absl::Time arrival);

// What follows a chat: the model's next message, more of the last one, or nothing.
enum class ChatTurn { kNext, kContinueLast, kComplete };
absl::StatusOr<std::vector<engine::TokenId>> ToTokens(const v1::Prompt& prompt,
                                                      const engine::Engine& engine, ChatTurn turn);

v1::Delta ToProto(const engine::TokenEvent& event, const engine::Tokenizer& tokenizer,
                  bool logprobs);
v1::GenerateResult ToProto(const engine::RequestResult& result, const engine::Request& request);
v1::ScoreResponse ToScoreResponse(const engine::RequestResult& result);
v1::Embedding ToEmbedding(const engine::RequestResult& result, bool normalize);
v1::Model ToProto(const engine::Engine& engine);

}  // namespace acuity::server
