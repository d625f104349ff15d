// `acuity eval needle|ppl|flatness`: what a daemon's models make of long contexts.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "clients/cpp/commands.h"

namespace acuity::client {

struct EvalOptions {
  std::vector<std::string> models;  // "NAME" or "LABEL=NAME,NAME,..."; none: the daemon's first
  std::string out;                  // folder for results.json and report.html; "": none
  int concurrency = 4;              // calls at a time
  uint64_t seed = 1;
};

struct NeedleOptions {
  std::string task_file;     // keyed recall of tokens, see eval_recall.h
  std::vector<int> lengths;  // of prompts, in tokens; none: 1, 2, 4, ... 32 times trained_length
  int prompts = 20;          // of each length
};

struct PplOptions {
  std::vector<std::string> text_files;
  int window = 0;          // tokens of a prompt; 0: as the smallest context of the models allows
  int max_tokens = 65536;  // of each text
  int bucket = 0;          // positions; 0: powers of two
};

struct FlatnessOptions {
  std::vector<std::string> text_files;
  int tokens = 0;   // of a prompt; 0: as the smallest context of the models allows
  int prompts = 4;  // of each text, at most
};

// Each returns the process's exit code, or throws std::runtime_error for a person.
int EvalNeedle(const CommonOptions& common, const EvalOptions& options,
               const NeedleOptions& needle);
int EvalPpl(const CommonOptions& common, const EvalOptions& options, const PplOptions& ppl);
int EvalFlatness(const CommonOptions& common, const EvalOptions& options,
                 const FlatnessOptions& flatness);

// The `eval` command with its subcommands; `code` becomes the exit code when one has run.
class EvalCommand {
 public:
  void AddTo(CLI::App& app, CommonOptions& common, int& code);

 private:
  CLI::App* Add(CLI::App& eval, CommonOptions& common, const char* name, const char* about);

  EvalOptions options_;
  NeedleOptions needle_;
  PplOptions ppl_;
  FlatnessOptions flatness_;
};

}  // namespace acuity::client
