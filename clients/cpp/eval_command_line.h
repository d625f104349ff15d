// `acuity eval` on the command line.
#pragma once

#include <CLI/CLI.hpp>

#include "clients/cpp/eval.h"

namespace acuity::client {

// The `eval` command with its subcommands; `code` becomes the exit code when one has run.
class EvalCommand {
 public:
  void AddTo(CLI::App& app, CommonOptions& common, int& code);

 private:
  CLI::App* Add(CLI::App& eval, CommonOptions& common, const char* name, const char* about);

  void AddNeedle(CLI::App& eval, CommonOptions& common, int& code);
  void AddPpl(CLI::App& eval, CommonOptions& common, int& code);
  void AddFlatness(CLI::App& eval, CommonOptions& common, int& code);

  EvalOptions options_;
  NeedleOptions needle_;
  PplOptions ppl_;
  FlatnessOptions flatness_;
};

}  // namespace acuity::client
