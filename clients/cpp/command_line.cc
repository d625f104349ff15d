#include "clients/cpp/command_line.h"

#include <iostream>

#include "clients/cpp/connection.h"
#include "clients/cpp/eval_command_line.h"
#include "clients/cpp/spans.h"

namespace acuity::client {
namespace {

const std::map<std::string, v1::AttentionDetail> kDetails = {
    {"auto", v1::ATTENTION_DETAIL_UNSPECIFIED},
    {"off", v1::ATTENTION_DETAIL_OFF},
    {"summary", v1::ATTENTION_DETAIL_SUMMARY},
    {"layers", v1::ATTENTION_DETAIL_LAYERS},
    {"heads", v1::ATTENTION_DETAIL_HEADS}};

void AddPrompt(CLI::App& app, PromptOptions& prompt) {
  app.add_option("--model", prompt.model, "Model name; default: the daemon's first");
  auto* group = app.add_option_group("prompt");
  group->add_option("--prompt", prompt.prompt, "Raw text: no template");
  group->add_option("--prompt-file", prompt.prompt_file, "Raw text from a file; - is stdin");
  group->add_option("--chat", prompt.chat, "A user message, rendered with the model's template");
  group->add_option("--messages", prompt.messages_file,
                    "A conversation: a file with a JSON array of messages; - is stdin");
  group->require_option(1);
  app.add_option("--system", prompt.system, "System message before --chat")->needs("--chat");
  app.add_option("--tools", prompt.tools_file, "A file with a JSON array of tools, for a chat");
  app.add_option("--template-variables", prompt.variables,
                 "A JSON object for the chat template, such as '{\"enable_thinking\": false}'");
}

// --attention and --watch, of a request that has both fields.
template <typename Request>
void AddAttention(CLI::App& app, Request& request) {
  app.add_option_function<std::string>(
         "--attention",
         [&request](const std::string& name) { request.set_attention(kDetails.at(name)); },
         "Attention report: auto, off, summary, layers, heads")
      ->check(CLI::IsMember(kDetails, CLI::ignore_case));
  app.add_option_function<std::vector<std::string>>(
         "--watch",
         [&request](const std::vector<std::string>& spans) {
           for (const std::string& span : spans) {
             if (!ParseSpan(span, request.add_watch())) {
               throw CLI::ValidationError("--watch", span + " is not BEGIN:END");
             }
           }
         },
         "How much attention do these tokens of the prompt get? May be repeated")
      ->type_name("BEGIN:END");
}

template <typename Value, typename Setter>
void AddSampling(CLI::App& app, const char* flag, const char* help, Setter set) {
  app.add_option_function<Value>(flag, set, help);
}

void AddSamplingOptions(CLI::App& app, v1::Sampling* s) {
  AddSampling<float>(app, "--temperature", "0 is greedy [1]",
                     [s](float v) { s->set_temperature(v); });
  AddSampling<int>(app, "--top-k", "0: all [0]", [s](int v) { s->set_top_k(v); });
  AddSampling<float>(app, "--top-p", "[1]", [s](float v) { s->set_top_p(v); });
  AddSampling<float>(app, "--min-p", "[0]", [s](float v) { s->set_min_p(v); });
  AddSampling<float>(app, "--repetition-penalty", "[1]",
                     [s](float v) { s->set_repetition_penalty(v); });
  AddSampling<float>(app, "--presence-penalty", "[0]",
                     [s](float v) { s->set_presence_penalty(v); });
  AddSampling<float>(app, "--frequency-penalty", "[0]",
                     [s](float v) { s->set_frequency_penalty(v); });
  AddSampling<uint64_t>(app, "--seed", "[drawn]", [s](uint64_t v) { s->set_seed(v); });
  AddSampling<int>(app, "-n,--n", "Samples [1]", [s](int v) { s->set_n(v); });
  AddSampling<int>(app, "--max-tokens", "[what the context leaves, at most 512]",
                   [s](int v) { s->set_max_tokens(v); });
  AddSampling<int>(app, "--min-tokens", "[0]", [s](int v) { s->set_min_tokens(v); });
  AddSampling<int>(app, "--logprobs", "Alternatives per token", [s](int v) { s->set_logprobs(v); });
  AddSampling<std::vector<std::string>>(app, "--stop", "Stop string; may be repeated",
                                        [s](const std::vector<std::string>& v) {
                                          for (const std::string& stop : v) s->add_stop(stop);
                                        });
  app.add_flag_function(
      "--ignore-eos", [s](int64_t) { s->set_ignore_eos(true); }, "Go on after the end");
}

void AddGenerate(CLI::App& app, CommonOptions& common, PromptOptions& prompt,
                 GenerateOptions& options, int& code) {
  auto* generate = app.add_subcommand("generate", "Stream a continuation");
  AddCommon(*generate, common);
  AddPrompt(*generate, prompt);
  AddSamplingOptions(*generate, options.request.mutable_sampling());
  AddAttention(*generate, options.request);
  generate->add_flag("--report", options.report, "Draw the attention report as a heat map");
  generate->add_option_function<int>(
      "--priority", [&options](int v) { options.request.set_priority(v); }, "-100 to 100 [0]");
  generate->add_option_function<std::string>(
      "--tenant", [&options](const std::string& v) { options.request.set_tenant(v); },
      "Prefixes are reused within a tenant only");
  generate->add_option_function<std::string>(
      "--request-id", [&options](const std::string& v) { options.request.set_request_id(v); },
      "For the daemon's log");
  generate->callback([&] { code = Generate(common, prompt, options); });
}

void AddEmbed(CLI::App& app, CommonOptions& common, PromptOptions& prompt,
              v1::EmbedRequest& request, int& code) {
  static const std::map<std::string, v1::Pooling> kPoolings = {{"last", v1::POOLING_LAST},
                                                               {"mean", v1::POOLING_MEAN}};
  auto* embed = app.add_subcommand("embed", "A vector that stands for a text");
  AddCommon(*embed, common);
  AddPrompt(*embed, prompt);
  embed
      ->add_option_function<std::string>(
          "--pooling",
          [&request](const std::string& name) { request.set_pooling(kPoolings.at(name)); },
          "Of the tokens' hidden states: last or mean [last]")
      ->check(CLI::IsMember(kPoolings));
  embed->add_flag_function(
      "--normalize", [&request](int64_t) { request.set_normalize(true); }, "To length 1");
  embed->callback([&] { code = Embed(common, prompt, request); });
}

void AddBench(CLI::App& app, CommonOptions& common, std::string& model, BenchOptions& options,
              int& code) {
  auto* bench = app.add_subcommand("bench", "Load the daemon and measure it");
  AddCommon(*bench, common);
  bench->add_option("--model", model, "Model name; default: the daemon's first");
  bench->add_option("--requests", options.requests, "How many")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  bench->add_option("--concurrency", options.concurrency, "Closed loop: this many at a time")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  bench->add_option("--rate", options.rate, "Open loop: Poisson arrivals per second")
      ->check(CLI::PositiveNumber);
  bench->add_option("--prompt-tokens", options.prompt_tokens, "Tokens of each prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  bench->add_option("--max-tokens", options.max_tokens, "Tokens to generate")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  bench->add_flag("--shared-prompt", options.shared_prompt, "One prompt for all (prefix reuse)");
  bench->callback([&] { code = Bench(common, model, options); });
}

struct InspectOptions {
  std::string path, attention_policy;
  bool json = false;
};

void AddInspect(CLI::App& app, InspectOptions& options, int& code) {
  auto* inspect = app.add_subcommand("inspect", "What a model on disk is; needs no daemon");
  inspect->add_option("MODEL", options.path, "GGUF file or Hugging Face directory")->required();
  inspect->add_option("--attention", options.attention_policy, "Logit policy, as acuityd's");
  inspect->add_flag("--json", options.json, "Print JSON");
  inspect->callback(
      [&] { code = InspectModel(options.path, options.attention_policy, options.json); });
}

void AddCalibrate(CLI::App& app, CalibrateOptions& options, bool& json, int& code) {
  auto* calibrate = app.add_subcommand(
      "calibrate", "Fit a model on disk to contexts longer than it was trained to");
  calibrate->add_option("MODEL", options.model, "GGUF file or Hugging Face directory")->required();
  calibrate->add_option("--text", options.texts, "What to fit to: text of N tokens or more")
      ->type_name("FILE")
      ->required();
  calibrate->add_option("--held-out", options.held_out, "Texts to check the result on, afterwards")
      ->type_name("FILE");
  calibrate->add_option("--to-context", options.to_context, "Tokens to serve")
      ->type_name("N")
      ->required();
  calibrate
      ->add_option("--trained-context", options.trained_context,
                   "Tokens that the model is good for; 0: what it says")
      ->capture_default_str();
  calibrate->add_flag("--keep-rope", options.keep_rope, "Leave the rotary embedding as it is");
  calibrate->add_option("--out", options.out, "The sidecar, for acuityd --attention NAME=file:FILE")
      ->type_name("FILE")
      ->capture_default_str();
  calibrate->add_option("--report", options.report, "All that was measured, as JSON")
      ->type_name("FILE");
  calibrate->add_option("--daemon", options.daemon, "acuityd; default: beside this program")
      ->type_name("FILE");
  calibrate->add_option("--threads", options.threads, "Compute threads; 0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  calibrate->add_flag("--json", json, "Print JSON");
  calibrate->callback([&] { code = Calibrate(options, json); });
}

}  // namespace

void AddCommon(CLI::App& app, CommonOptions& common) {
  app.add_option("--server", common.server, "The daemon: HOST:PORT or unix:PATH")
      ->capture_default_str();
  app.add_flag("--json", common.json, "Print JSON");
  app.add_option("--timeout", common.timeout_seconds, "Deadline of the call in seconds; 0: none")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--tls-ca", common.tls_ca, "TLS: who signed the daemon's certificate, PEM")
      ->type_name("FILE");
  auto* cert = app.add_option("--tls-cert", common.tls_cert, "TLS: the client's certificate, PEM")
                   ->type_name("FILE");
  auto* key = app.add_option("--tls-key", common.tls_key, "TLS: the client's private key, PEM")
                  ->type_name("FILE")
                  ->needs(cert);
  cert->needs(key);
  app.add_option("--token-file", common.token_file,
                 "Bearer token; default: the environment's ACUITY_TOKEN")
      ->type_name("FILE");
}

int RunCommandLine(int argc, char** argv) {
  CLI::App app("Talks to acuityd", "acuity");
  app.set_version_flag("--version", "acuity " ACUITY_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  int code = 0;
  CommonOptions common;
  PromptOptions prompt;
  GenerateOptions generate;
  BenchOptions bench;
  InspectOptions inspect;
  EvalCommand eval;
  CalibrateOptions calibrate;
  v1::ScoreRequest score_request;
  v1::EmbedRequest embed;
  std::string bench_model;
  double interval = 1;
  int iterations = 0;
  app.add_option("--server", common.server, "The daemon: HOST:PORT or unix:PATH")
      ->capture_default_str();

  AddGenerate(app, common, prompt, generate, code);
  auto* score = app.add_subcommand("score", "Log-probability of each token of a text");
  AddCommon(*score, common);
  AddPrompt(*score, prompt);
  AddAttention(*score, score_request);
  score->callback([&] { code = Score(common, prompt, score_request); });
  AddEmbed(app, common, prompt, embed, code);
  auto* tokenize = app.add_subcommand("tokenize", "Token ids of a text");
  AddCommon(*tokenize, common);
  AddPrompt(*tokenize, prompt);
  tokenize->callback([&] { code = Tokenize(common, prompt); });
  auto* models = app.add_subcommand("models", "What the daemon serves");
  AddCommon(*models, common);
  models->callback([&] { code = Models(common); });
  auto* health = app.add_subcommand("health", "Exits 0 when the daemon serves");
  AddCommon(*health, common);
  health->callback([&] { code = Health(common); });
  AddInspect(app, inspect, code);
  AddCalibrate(app, calibrate, common.json, code);
  AddBench(app, common, bench_model, bench, code);
  eval.AddTo(app, common, code);
  auto* top = app.add_subcommand("top", "Live view of the daemon");
  AddCommon(*top, common);
  top->add_option("--interval", interval, "Seconds between updates")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  top->add_option("--iterations", iterations, "Stop after this many updates; 0: never");
  top->callback([&] { code = Top(common, interval, iterations); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e, std::cout, std::cerr) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    std::cerr << "acuity: " << e.what() << "\n";
    return 1;
  }
  return code;
}

}  // namespace acuity::client
