// `acuity eval needle|ppl|flatness`: what a daemon's models make of long contexts.
#pragma once

#include <cstdint>
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
  std::string task_file;                // keyed recall of tokens, see eval_recall.h; or
  std::vector<std::string> text_files;  // a haystack of text, see eval_haystack.h
  std::vector<int>
      lengths;  // of prompts, in tokens; none: doubling, from the trained length or 512
  std::vector<int> depths = {0, 25, 50, 75, 100};  // of the needle in a text, percent
  int prompts = 10;                                // of each length (and depth)
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
int EvalRecall(const CommonOptions& common, const EvalOptions& options,
               const NeedleOptions& needle);
int EvalHaystack(const CommonOptions& common, const EvalOptions& options,
                 const NeedleOptions& needle);
int EvalPpl(const CommonOptions& common, const EvalOptions& options, const PplOptions& ppl);
int EvalFlatness(const CommonOptions& common, const EvalOptions& options,
                 const FlatnessOptions& flatness);

}  // namespace acuity::client
