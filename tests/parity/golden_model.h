// Compares a model with a row of golden/architectures.json.gz, whatever file it came from.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/loader/checkpoint.h"

namespace acuity::engine {

// architectures.json.gz; see make_architectures.py.
const nlohmann::json& ArchitecturesGolden();

struct Measured {
  double difference = 0;  // the largest, of a log-probability
  int positions = 0, continuation = 0;
};
// By the rows' names, for the table in the documentation.
using Results = std::map<std::string, Measured>;

// Runs the row's prompt and continuation in float32: the log-probabilities of every token at every
// position, within 2e-4; the greedy continuation, on the cache; the same bits in one pass and in
// chunks. Fails the test if anything differs.
Measured CompareWithGolden(const nlohmann::json& row, const Checkpoint& checkpoint);

// The final hidden states [rows][hidden size] of `tokens`, taken `chunk` tokens at a time; those of
// every third row are replaced by its logits, for which the same steps are asked.
std::vector<std::vector<float>> HiddenStates(const Checkpoint& checkpoint,
                                             std::span<const int32_t> tokens, size_t chunk);

}  // namespace acuity::engine
