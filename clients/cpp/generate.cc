#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <stdexcept>

#include "clients/cpp/chat.h"
#include "clients/cpp/commands.h"
#include "clients/cpp/connection.h"
#include "clients/cpp/heat_map.h"
#include "clients/cpp/json.h"
#include "clients/cpp/spans.h"

namespace acuity::client {
namespace {

const char* FinishName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return "";
  }
}

// One sample, gathered from its deltas.
struct Sample {
  std::string text;
  std::vector<int> token_ids;
  Json logprobs = Json::array();
  const char* finish = "";

  void Add(const v1::Delta& delta) {
    text += delta.text();
    token_ids.insert(token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
    for (const v1::TokenLogprobs& l : delta.logprobs()) logprobs.push_back(client::ToJson(l));
    if (delta.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      finish = FinishName(delta.finish_reason());
    }
  }

  Json ToJson(bool with_logprobs) const {
    Json out = {{"text", text}, {"token_ids", token_ids}, {"finish_reason", finish}};
    if (with_logprobs) out["logprobs"] = logprobs;
    return out;
  }
};

Json ResultJson(const std::map<int, Sample>& samples, const v1::GenerateResult& result,
                bool logprobs) {
  Json out = samples.empty() ? Sample().ToJson(logprobs) : samples.begin()->second.ToJson(logprobs);
  if (samples.size() > 1) {
    out["samples"] = Json::array();
    for (const auto& [index, sample] : samples) out["samples"].push_back(sample.ToJson(logprobs));
  }
  out["usage"] = ToJson(result.usage());
  out["timings"] = ToJson(result.timings());
  out["seed"] = result.seed();
  out["attention"] = {{"prompt", ToJson(result.prompt_attention())},
                      {"generated", ToJson(result.generated_attention())}};
  if (result.has_prompt_spans()) {
    out["spans"] = {{"prompt", ToJson(result.prompt_spans())},
                    {"generated", ToJson(result.generated_spans())}};
  }
  return out;
}

void PrintSummary(const v1::GenerateResult& result, bool report) {
  const v1::Usage& usage = result.usage();
  const double first = result.timings().time_to_first_token_seconds();
  const double rest = result.timings().total_seconds() - first;
  std::cerr << "[" << usage.prompt_tokens() << " prompt tokens (" << usage.cached_tokens()
            << " cached), " << usage.completion_tokens() << " generated; first token after "
            << std::lround(first * 1000) << " ms";
  if (usage.completion_tokens() > 1 && rest > 0) {
    std::cerr << ", then " << std::lround((usage.completion_tokens() - 1) / rest) << " tokens/s";
  }
  std::cerr << "]\n";
  if (!report) return;
  const bool colour = isatty(STDOUT_FILENO) != 0;
  std::cout << DrawHeatMap(result.prompt_attention(), "Attention of the prompt", colour)
            << DrawHeatMap(result.generated_attention(), "Attention of the output", colour);
  if (result.prompt_attention().layers_size() == 0) {
    std::cout << "(no attention was measured: the whole prompt came from the prefix cache)\n";
  }
}

}  // namespace

bool FillPrompt(const CommonOptions& common, const PromptOptions& options, std::string* model,
                v1::Prompt* prompt) {
  *model = options.model;
  if (model->empty()) *model = DefaultModel(Connect(common), common.server);
  if (model->empty()) return false;
  if (options.chat.empty() && options.messages_file.empty()) {
    if (!options.tools_file.empty() || !options.variables.empty()) {
      throw std::runtime_error("--tools and --template-variables need --chat or --messages");
    }
    prompt->set_text(options.prompt_file.empty() ? options.prompt : ReadFile(options.prompt_file));
    return true;
  }
  v1::Chat* chat = prompt->mutable_chat();
  const std::pair<const char*, const std::string&> messages[] = {{"system", options.system},
                                                                 {"user", options.chat}};
  for (const auto& [role, content] : messages) {
    if (content.empty()) continue;
    v1::ChatMessage* message = chat->add_messages();
    message->set_role(role);
    message->set_content(content);
  }
  if (!options.messages_file.empty()) AddMessages(ReadFile(options.messages_file), chat);
  if (!options.tools_file.empty()) chat->set_tools_json(ReadFile(options.tools_file));
  chat->set_variables_json(options.variables);
  return true;
}

int Generate(const CommonOptions& common, const PromptOptions& prompt,
             const GenerateOptions& options) {
  v1::GenerateRequest request = options.request;
  if (!FillPrompt(common, prompt, request.mutable_model(), request.mutable_prompt())) return 1;
  if (options.report && request.attention() == v1::ATTENTION_DETAIL_UNSPECIFIED) {
    request.set_attention(v1::ATTENTION_DETAIL_LAYERS);
  }
  const Connection connection = Connect(common);
  grpc::ClientContext context;
  SetDeadline(context, common);
  const auto stream = connection.stub->Generate(&context, request);
  v1::GenerateResponse response;
  std::map<int, Sample> samples;
  v1::GenerateResult result;
  const bool several = request.sampling().n() > 1;
  while (stream->Read(&response)) {
    for (const v1::Delta& delta : response.deltas()) {
      samples[delta.sample()].Add(delta);
      if (!common.json && !several) std::cout << delta.text() << std::flush;
    }
    if (response.has_result()) result = response.result();
  }
  const grpc::Status status = stream->Finish();
  if (!common.json && !several) std::cout << "\n";
  if (!status.ok()) return Complain(status, common.server);
  if (common.json) {
    Print(ResultJson(samples, result, request.sampling().has_logprobs()));
    return 0;
  }
  if (several) {
    for (const auto& [index, sample] : samples)
      std::cout << "--- " << index << "\n" << sample.text << "\n";
  }
  PrintSummary(result, options.report);
  std::cout << DescribeSpans(request.watch(), result.prompt_spans(), "The prompt's last row")
            << DescribeSpans(request.watch(), result.generated_spans(), "The output's rows");
  return 0;
}

int Score(const CommonOptions& common, const PromptOptions& prompt, v1::ScoreRequest request) {
  if (!FillPrompt(common, prompt, request.mutable_model(), request.mutable_prompt())) return 1;
  const Connection connection = Connect(common);
  grpc::ClientContext context;
  SetDeadline(context, common);
  v1::ScoreResponse response;
  const grpc::Status status = connection.stub->Score(&context, request, &response);
  if (!status.ok()) return Complain(status, common.server);
  double sum = 0;
  Json logprobs = Json::array();
  for (double logprob : response.logprobs()) {
    if (std::isnan(logprob)) {
      logprobs.push_back(nullptr);  // the first token has nothing before it
    } else {
      logprobs.push_back(logprob);
      sum += logprob;
    }
  }
  if (common.json) {
    Json out = {
        {"token_ids", std::vector<int>(response.token_ids().begin(), response.token_ids().end())},
        {"logprobs", logprobs},
        {"usage", ToJson(response.usage())},
        {"timings", ToJson(response.timings())},
        {"attention", {{"prompt", ToJson(response.prompt_attention())}}}};
    if (response.has_prompt_spans()) out["spans"] = {{"prompt", ToJson(response.prompt_spans())}};
    Print(out);
    return 0;
  }
  const int scored = std::max(0, response.logprobs_size() - 1);
  std::cout << response.token_ids_size() << " tokens, log-probability " << sum << " nats";
  if (scored > 0) {
    std::cout << ", " << -sum / scored << " nats a token, perplexity " << std::exp(-sum / scored);
  }
  std::cout << "\n"
            << DrawHeatMap(response.prompt_attention(), "Attention", isatty(STDOUT_FILENO) != 0)
            << DescribeSpans(request.watch(), response.prompt_spans(), "The prompt's last row");
  return 0;
}

int Embed(const CommonOptions& common, const PromptOptions& prompt, v1::EmbedRequest request) {
  constexpr int kShown = 8;  // numbers of a vector, without --json
  if (!FillPrompt(common, prompt, request.mutable_model(), request.add_prompts())) return 1;
  const Connection connection = Connect(common);
  grpc::ClientContext context;
  SetDeadline(context, common);
  v1::EmbedResponse response;
  const grpc::Status status = connection.stub->Embed(&context, request, &response);
  if (!status.ok()) return Complain(status, common.server);
  for (const v1::Embedding& embedding : response.embeddings()) {
    const auto& values = embedding.values();
    if (common.json) {
      Print({{"embedding", std::vector<float>(values.begin(), values.end())},
             {"usage", ToJson(embedding.usage())},
             {"timings", ToJson(embedding.timings())}});
      continue;
    }
    std::cout << embedding.usage().prompt_tokens() << " tokens, " << values.size() << " numbers:";
    for (int i = 0; i < std::min(kShown, values.size()); ++i) std::cout << " " << values[i];
    std::cout << (values.size() > kShown ? " ...\n" : "\n");
  }
  return 0;
}

}  // namespace acuity::client
