// Between the Open Inference Protocol and acuity.v1: its tensors are another spelling of our
// fields, and from there on there is one way. docs/api.md lists the tensors.
#pragma once

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "acuity/v1/acuity.pb.h"
#include "engine/engine.h"
#include "inference/grpc_service.pb.h"
#include "server/grpc/request_totals.h"

namespace acuity::server {

// What the answers to one request need to know of it.
struct InferOptions {
  bool stream = false;          // an answer for each piece of text, or one for all
  bool empty_final = false;     // the last answer says so and nothing else
  std::set<std::string> asked;  // output names; empty: all
  bool wants(const char* output) const { return asked.empty() || asked.contains(output); }
};

struct InferRequest {
  v1::GenerateRequest request;
  InferOptions options;
};

// InvalidArgument names the tensor or parameter, the value and the limit; NotFound for a version
// other than "" and "1". Ranges are checked where acuity.v1's are.
absl::StatusOr<InferRequest> ToGenerateRequest(const inference::ModelInferRequest& proto);
// An error of the validator behind, with the field's name in this protocol.
absl::Status RenameField(const absl::Status& status);

// One request's answers.
class InferAnswers {
 public:
  InferAnswers(std::string model, std::string id) : model_(std::move(model)), id_(std::move(id)) {}

  void set_options(InferOptions options) { options_ = std::move(options); }
  const InferOptions& options() const { return options_; }

  // Text and, with the result, everything else. `last`: no other answer follows.
  void Fill(const v1::GenerateResponse& gathered, bool last, inference::ModelInferResponse* out);
  // An answer without outputs, the last.
  void FillEmpty(inference::ModelInferResponse* out) const;

 private:
  void FillHead(bool last, inference::ModelInferResponse* out) const;
  void FillResult(const v1::GenerateResult& result, inference::ModelInferResponse* out) const;

  std::string model_, id_;
  InferOptions options_;
  double log_probability_ = 0;  // of the tokens so far
  const char* finish_reason_ = "";
};

// "" or "1", else NotFound.
absl::Status CheckVersion(const std::string& version);
void FillMetadata(const engine::Engine& engine, inference::ModelMetadataResponse* out);
void FillConfig(const engine::Engine& engine, inference::ModelConfig* out);
void FillStatistics(const std::string& model, const RequestTotals::Totals& totals,
                    inference::ModelStatistics* out);

}  // namespace acuity::server
