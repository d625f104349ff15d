// What the command line asks for, and the functions that do it. Each returns the process's exit
// code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "acuity/v1/acuity.pb.h"

namespace acuity::client {

struct CommonOptions {
  std::string server = "127.0.0.1:8700";
  std::string tls_ca, tls_cert, tls_key;  // PEM files; all "": plaintext
  std::string token_file;                 // "": the environment's ACUITY_TOKEN, if it is set
  bool json = false;
  double timeout_seconds = 0;  // 0: none
};

struct PromptOptions {
  std::string model;  // "": the daemon's first
  std::string prompt, prompt_file, chat, system;
  std::string messages_file, tools_file;  // JSON
  std::string variables;                  // of the template, JSON
};

struct GenerateOptions {
  v1::GenerateRequest request;  // all but model and prompt
  bool report = false;          // draw the heat map
};

struct BenchOptions {
  int requests = 32;
  int concurrency = 8;  // closed loop
  double rate = 0;      // open loop, requests per second; 0: closed
  int prompt_tokens = 128;
  int max_tokens = 64;
  bool shared_prompt =
      false;  // else every prompt differs, so that none is found in the prefix cache
};

struct CalibrateOptions {
  std::string model;                         // on disk
  std::vector<std::string> texts, held_out;  // files
  int64_t to_context = 0;
  int64_t trained_context = 0;  // 0: what the model says
  bool keep_rope = false;       // sharpen only
  std::string out = "acuity.json";
  std::string report;  // JSON of all that was measured; "": none
  std::string daemon;  // "": beside this program
  int threads = 0;     // 0: one per core
};

int Generate(const CommonOptions& common, const PromptOptions& prompt,
             const GenerateOptions& options);
// `request`, here and below: all but model and prompt.
int Score(const CommonOptions& common, const PromptOptions& prompt, v1::ScoreRequest request);
int Embed(const CommonOptions& common, const PromptOptions& prompt, v1::EmbedRequest request);
int Tokenize(const CommonOptions& common, const PromptOptions& prompt);
int Models(const CommonOptions& common);
int Health(const CommonOptions& common);
int Bench(const CommonOptions& common, const std::string& model, const BenchOptions& options);
// Of a model on disk: what it is, or why acuityd would refuse it (1).
int InspectModel(const std::string& path, const std::string& attention_policy, bool json);
// Runs daemons of its own.
int Calibrate(const CalibrateOptions& options, bool json);
int Top(const CommonOptions& common, double interval_seconds, int iterations);

// Fills model and prompt. False, told on stderr, if they cannot be had.
bool FillPrompt(const CommonOptions& common, const PromptOptions& options, std::string* model,
                v1::Prompt* prompt);

// Parses argv and runs the command. 2: wrong usage.
int RunCommandLine(int argc, char** argv);

}  // namespace acuity::client
