// Texts cut into prompts of token ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clients/cpp/eval_run.h"

namespace acuity::client {

// What the model's tokenizer puts before every text, such as <s>: the first token of texts that
// begin differently, or nothing.
std::vector<int32_t> TextPrefix(const EvalDaemon& daemon, const std::string& model);

// Consecutive pieces of `tokens`, each of `length` tokens with `prefix` in front, at most `count`;
// what is left at the end is dropped, but tokens too few for one piece are one. tokens may already
// begin with the prefix. length > prefix.size().
std::vector<std::vector<int32_t>> CutWindows(std::vector<int32_t> tokens,
                                             const std::vector<int32_t>& prefix, int length,
                                             int count);

// Of each file in turn, with `model`'s tokenizer.
std::vector<std::vector<int32_t>> WindowsOfFiles(const EvalDaemon& daemon, const std::string& model,
                                                 const std::vector<std::string>& files, int length,
                                                 int count_of_each);

}  // namespace acuity::client
