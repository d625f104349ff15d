#include "server/grpc/infer_convert.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/grpc/infer_tensors.h"

namespace acuity::server {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

const std::string& Version() {  // a model has one
  static const std::string version = "1";
  return version;
}
constexpr const char* kEmptyFinal = "triton_enable_empty_final_response";
constexpr const char* kFinal = "triton_final_response";
constexpr size_t kMaxShownBytes = 64;

const std::vector<InputSpec>& Inputs() {
  static const std::vector<InputSpec> inputs = {{"text_input", "BYTES"},
                                                {"stream", "BOOL"},
                                                {"max_tokens", "INT32"},
                                                {"temperature", "FP32"},
                                                {"top_k", "INT32"},
                                                {"top_p", "FP32"},
                                                {"seed", "UINT64"},
                                                {"stop_words", "BYTES", /*list=*/true},
                                                {"sampling_parameters", "BYTES"},
                                                {"exclude_input_in_output", "BOOL"},
                                                {"attention", "BYTES"}};
  return inputs;
}

struct OutputSpec {
  const char* name;
  const char* datatype;
  int dimensions;
};
constexpr OutputSpec kOutputs[] = {{"text_output", "BYTES", 1},
                                   {"finish_reason", "BYTES", 1},
                                   {"num_input_tokens", "UINT32", 1},
                                   {"num_output_tokens", "UINT32", 1},
                                   {"cum_log_probs", "FP32", 1},
                                   {"attention_layer", "INT32", 1},
                                   {"attention_context", "INT64", 1},
                                   {"attention_entropy", "FP32", 2},
                                   {"attention_normalized_entropy", "FP32", 2},
                                   {"attention_effective_context", "FP32", 2},
                                   {"attention_effective_context_fraction", "FP32", 2},
                                   {"attention_max_probability", "FP32", 2}};
constexpr std::pair<const char*, double (v1::AttentionBucket::*)() const> kStatistics[] = {
    {"attention_entropy", &v1::AttentionBucket::entropy},
    {"attention_normalized_entropy", &v1::AttentionBucket::normalized_entropy},
    {"attention_effective_context", &v1::AttentionBucket::effective_context},
    {"attention_effective_context_fraction", &v1::AttentionBucket::effective_context_fraction},
    {"attention_max_probability", &v1::AttentionBucket::max_probability}};

constexpr std::pair<const char*, v1::AttentionDetail> kDetails[] = {
    {"off", v1::ATTENTION_DETAIL_OFF},
    {"summary", v1::ATTENTION_DETAIL_SUMMARY},
    {"layers", v1::ATTENTION_DETAIL_LAYERS}};

absl::Status ReadSamplingJson(const std::string& json, v1::Sampling* sampling) {
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, sampling);
  if (!parsed.ok()) {
    std::string what(parsed.message().data(), parsed.message().size());
    what.resize(std::min(what.size(), what.find('\n')));  // then it quotes the text
    return absl::InvalidArgumentError(absl::StrCat("inputs.sampling_parameters: ", what));
  }
  // Each answer has one text.
  if (sampling->has_n() && sampling->n() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("inputs.sampling_parameters: n is ", sampling->n(), ", it can be 1"));
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const std::map<std::string, InputValue>& values, v1::Sampling* sampling) {
  if (const auto json = values.find("sampling_parameters"); json != values.end()) {
    const absl::Status status = ReadSamplingJson(json->second.text(), sampling);
    if (!status.ok()) return status;
  }
  absl::Status status;
  const auto set = [&](const char* name, bool already, auto assign) {
    const auto value = values.find(name);
    if (value == values.end()) return;
    if (already && status.ok()) {
      status = absl::InvalidArgumentError(
          absl::StrCat("inputs.", name, ": it is given in sampling_parameters too"));
    }
    assign(value->second);
  };
  set("max_tokens", sampling->has_max_tokens(),
      [&](const InputValue& v) { sampling->set_max_tokens(v.int32); });
  set("temperature", sampling->has_temperature(),
      [&](const InputValue& v) { sampling->set_temperature(v.fp32); });
  set("top_k", sampling->has_top_k(), [&](const InputValue& v) { sampling->set_top_k(v.int32); });
  set("top_p", sampling->has_top_p(), [&](const InputValue& v) { sampling->set_top_p(v.fp32); });
  set("seed", sampling->has_seed(), [&](const InputValue& v) { sampling->set_seed(v.uint64); });
  set("stop_words", sampling->stop_size() > 0, [&](const InputValue& v) {
    for (const std::string& word : v.bytes) sampling->add_stop(word);
  });
  return status;
}

absl::Status ReadOutputs(const ModelInferRequest& proto, InferOptions* options) {
  for (const auto& output : proto.outputs()) {
    const std::string name = output.name().substr(0, kMaxShownBytes);
    const auto is_it = [&](const OutputSpec& spec) { return output.name() == spec.name; };
    if (std::none_of(std::begin(kOutputs), std::end(kOutputs), is_it)) {
      const auto append = [](std::string* out, const OutputSpec& spec) { out->append(spec.name); };
      return absl::InvalidArgumentError(absl::StrCat("outputs.", name,
                                                     ": there is no such output, there are ",
                                                     absl::StrJoin(kOutputs, ", ", append)));
    }
    if (output.parameters_size() > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("outputs.", name, ": parameter \"",
                       output.parameters().begin()->first.substr(0, kMaxShownBytes),
                       "\", none is known (no shared memory, no classification)"));
    }
    options->asked.insert(output.name());
  }
  return absl::OkStatus();
}

absl::Status ReadParameters(const ModelInferRequest& proto, InferOptions* options) {
  for (const auto& [name, value] : proto.parameters()) {
    if (name != kEmptyFinal || !value.has_bool_param()) {
      return absl::InvalidArgumentError(absl::StrCat("parameters.", name.substr(0, kMaxShownBytes),
                                                     ": it is not known; there is ", kEmptyFinal,
                                                     ", a bool"));
    }
    options->empty_final = value.bool_param();
  }
  return absl::OkStatus();
}

// Measured if asked for, by detail or by an output's name; else as acuity.v1 does by default.
absl::Status ReadAttention(const std::map<std::string, InputValue>& values,
                           const InferOptions& options, v1::GenerateRequest* request) {
  if (const auto asked = values.find("attention"); asked != values.end()) {
    for (const auto& [name, detail] : kDetails) {
      if (asked->second.text() != name) continue;
      request->set_attention(detail);
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat("inputs.attention: \"",
                                                   asked->second.text().substr(0, kMaxShownBytes),
                                                   "\", it is off, summary or layers"));
  }
  if (std::any_of(options.asked.begin(), options.asked.end(),
                  [](const std::string& name) { return absl::StartsWith(name, "attention_"); })) {
    request->set_attention(v1::ATTENTION_DETAIL_SUMMARY);
  } else if (!options.asked.empty()) {
    request->set_attention(v1::ATTENTION_DETAIL_OFF);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckVersion(const std::string& version) {
  if (version.empty() || version == Version()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("model_version: \"", version.substr(0, kMaxShownBytes),
                                          "\" is not served; there is \"", Version(), "\""));
}

absl::StatusOr<InferRequest> ToGenerateRequest(const ModelInferRequest& proto) {
  InferRequest out;
  absl::Status status = CheckVersion(proto.model_version());
  if (status.ok()) status = ReadParameters(proto, &out.options);
  if (status.ok()) status = ReadOutputs(proto, &out.options);
  if (!status.ok()) return status;
  const auto values = ReadInputs(proto, Inputs());
  if (!values.ok()) return values.status();
  const auto text = values->find("text_input");
  if (text == values->end()) {
    return absl::InvalidArgumentError("inputs.text_input: it is missing");
  }
  const auto exclude = values->find("exclude_input_in_output");
  if (exclude != values->end() && !exclude->second.boolean) {
    return absl::InvalidArgumentError(
        "inputs.exclude_input_in_output: false, the output never repeats the input");
  }
  const auto stream = values->find("stream");
  out.options.stream = stream != values->end() && stream->second.boolean;
  status = ReadSampling(*values, out.request.mutable_sampling());
  if (status.ok()) status = ReadAttention(*values, out.options, &out.request);
  if (!status.ok()) return status;
  if (out.options.wants("cum_log_probs") && !out.request.sampling().has_logprobs()) {
    out.request.mutable_sampling()->set_logprobs(0);
  }
  out.request.set_model(proto.model_name());
  out.request.set_request_id(proto.id());
  out.request.mutable_prompt()->set_text(text->second.text());
  return out;
}

absl::Status RenameField(const absl::Status& status) {
  constexpr std::pair<const char*, const char*> kNames[] = {
      {"prompt.text: ", "inputs.text_input: "},
      {"prompt: ", "inputs.text_input: "},
      {"request_id: ", "id: "},
      {"sampling.stop: ", "inputs.stop_words: "},
      {"sampling.", "inputs."}};
  for (const auto& [ours, theirs] : kNames) {
    absl::string_view message = status.message();
    if (!absl::ConsumePrefix(&message, ours)) continue;
    return absl::Status(status.code(), absl::StrCat(theirs, message));
  }
  return status;
}

// --- Answers -----------------------------------------------------------------------------------

void InferAnswers::FillHead(bool last, ModelInferResponse* out) const {
  out->Clear();
  out->set_model_name(model_);
  out->set_model_version(Version());
  out->set_id(id_);
  (*out->mutable_parameters())[kFinal].set_bool_param(last);
}

void InferAnswers::FillEmpty(ModelInferResponse* out) const { FillHead(/*last=*/true, out); }

void InferAnswers::Fill(const v1::GenerateResponse& gathered, bool last, ModelInferResponse* out) {
  FillHead(last, out);
  std::string text;
  for (const v1::Delta& delta : gathered.deltas()) {
    text += delta.text();
    for (const v1::TokenLogprobs& token : delta.logprobs()) {
      log_probability_ += token.token().logprob();
    }
    if (delta.finish_reason() == v1::FINISH_REASON_STOP) finish_reason_ = "stop";
    if (delta.finish_reason() == v1::FINISH_REASON_LENGTH) finish_reason_ = "length";
  }
  if (options_.wants("text_output")) AddBytes("text_output", text, out);
  if (gathered.has_result()) FillResult(gathered.result(), out);
}

void InferAnswers::FillResult(const v1::GenerateResult& result, ModelInferResponse* out) const {
  const auto count = [](int32_t n) { return std::vector<uint32_t>{static_cast<uint32_t>(n)}; };
  if (options_.wants("finish_reason")) AddBytes("finish_reason", finish_reason_, out);
  if (options_.wants("num_input_tokens")) {
    AddTensor("num_input_tokens", "UINT32", {1}, count(result.usage().prompt_tokens()), out);
  }
  if (options_.wants("num_output_tokens")) {
    AddTensor("num_output_tokens", "UINT32", {1}, count(result.usage().completion_tokens()), out);
  }
  if (options_.wants("cum_log_probs")) {
    AddTensor<float>("cum_log_probs", "FP32", {1}, {static_cast<float>(log_probability_)}, out);
  }
  const v1::AttentionReport& report = result.prompt_attention();
  if (report.layers_size() == 0 && options_.asked.empty()) return;  // not measured, nor asked for

  std::map<int64_t, size_t> columns;  // by n_min
  for (const v1::LayerAttention& layer : report.layers()) {
    for (const v1::AttentionBucket& bucket : layer.buckets()) columns[bucket.n_min()] = 0;
  }
  std::vector<int64_t> contexts;
  for (auto& [n_min, column] : columns) {
    column = contexts.size();
    contexts.push_back(n_min);
  }
  std::vector<int32_t> layers;
  for (const v1::LayerAttention& layer : report.layers()) layers.push_back(layer.layer());
  const int64_t num_layers = report.layers_size(), num_contexts = contexts.size();
  if (options_.wants("attention_layer")) {
    AddTensor("attention_layer", "INT32", {num_layers}, layers, out);
  }
  if (options_.wants("attention_context")) {
    AddTensor("attention_context", "INT64", {num_contexts}, contexts, out);
  }
  for (const auto& [name, statistic] : kStatistics) {
    if (!options_.wants(name)) continue;
    std::vector<float> values(layers.size() * contexts.size(),
                              std::numeric_limits<float>::quiet_NaN());
    for (size_t i = 0; i < layers.size(); ++i) {
      for (const v1::AttentionBucket& bucket : report.layers(static_cast<int>(i)).buckets()) {
        values[i * contexts.size() + columns[bucket.n_min()]] =
            static_cast<float>((bucket.*statistic)());
      }
    }
    AddTensor(name, "FP32", {num_layers, num_contexts}, values, out);
  }
}

// --- What there is ------------------------------------------------------------------------------

namespace {

std::string Platform(const engine::Engine& engine) {
  return absl::StrCat("acuity_", engine.info().architecture);
}

template <typename Dims>  // -1: any
void FillShape(const InputSpec& spec, Dims* shape) {
  shape->Add(spec.list ? -1 : 1);
}
template <typename Dims>
void FillShape(const OutputSpec& spec, Dims* shape) {
  for (int i = 0; i < spec.dimensions; ++i) {
    shape->Add(absl::StartsWith(spec.name, "attention_") ? -1 : 1);
  }
}

inference::DataType ToDataType(const std::string& datatype) {
  inference::DataType type = inference::TYPE_INVALID;
  inference::DataType_Parse(datatype == "BYTES" ? "TYPE_STRING" : "TYPE_" + datatype, &type);
  return type;
}

void FillDuration(int64_t count, absl::Duration sum, inference::StatisticDuration* out) {
  out->set_count(count);
  out->set_ns(absl::ToInt64Nanoseconds(sum));
}

}  // namespace

void FillMetadata(const engine::Engine& engine, inference::ModelMetadataResponse* out) {
  out->set_name(engine.info().name);
  out->add_versions(Version());
  out->set_platform(Platform(engine));
  for (const InputSpec& spec : Inputs()) {
    auto* input = out->add_inputs();
    input->set_name(spec.name);
    input->set_datatype(spec.datatype);
    FillShape(spec, input->mutable_shape());
  }
  for (const OutputSpec& spec : kOutputs) {
    auto* output = out->add_outputs();
    output->set_name(spec.name);
    output->set_datatype(spec.datatype);
    FillShape(spec, output->mutable_shape());
  }
}

void FillConfig(const engine::Engine& engine, inference::ModelConfig* out) {
  out->set_name(engine.info().name);
  out->set_platform(Platform(engine));
  out->set_backend("acuity");
  out->set_max_batch_size(0);
  out->mutable_model_transaction_policy()->set_decoupled(true);
  for (const InputSpec& spec : Inputs()) {
    auto* input = out->add_input();
    input->set_name(spec.name);
    input->set_data_type(ToDataType(spec.datatype));
    input->set_optional(std::string_view(spec.name) != "text_input");
    FillShape(spec, input->mutable_dims());
  }
  for (const OutputSpec& spec : kOutputs) {
    auto* output = out->add_output();
    output->set_name(spec.name);
    output->set_data_type(ToDataType(spec.datatype));
    FillShape(spec, output->mutable_dims());
  }
}

void FillStatistics(const std::string& model, const RequestTotals::Totals& totals,
                    inference::ModelStatistics* out) {
  out->set_name(model);
  out->set_version(Version());
  out->set_last_inference(absl::ToUnixMillis(totals.last_end));
  out->set_inference_count(totals.succeeded);
  out->set_execution_count(totals.steps);
  inference::InferStatistics* sums = out->mutable_inference_stats();
  FillDuration(totals.succeeded, totals.success, sums->mutable_success());
  FillDuration(totals.failed, totals.fail, sums->mutable_fail());
  FillDuration(totals.succeeded, totals.queue, sums->mutable_queue());
  FillDuration(totals.succeeded, absl::ZeroDuration(), sums->mutable_compute_input());
  FillDuration(totals.succeeded, totals.success - totals.queue, sums->mutable_compute_infer());
  FillDuration(totals.succeeded, absl::ZeroDuration(), sums->mutable_compute_output());
}

}  // namespace acuity::server
