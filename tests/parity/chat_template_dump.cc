// Drives chat templates from chat_template_parity.py. stdin: a JSON array of
//   {"template": t, "bos": s, "eos": s, "messages": [{"role": r, "content": c}],
//   "add_generation_prompt": b}
// stdout: a JSON array of {"segments": [[text, trusted], ...]} or {"error": message}.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/tokenizer/chat_template.h"

namespace {

using nlohmann::json;
namespace engine = acuity::engine;

json Render(const json& request) {
  engine::TokenizerSpec spec;
  spec.tokens = {request["bos"].get<std::string>(), request["eos"].get<std::string>()};
  spec.bos = 0;
  spec.eos = 1;
  const auto parsed = engine::ChatTemplate::Parse(request["template"].get<std::string>(), spec);
  if (!parsed.ok()) return {{"error", std::string(parsed.status().message())}};
  std::vector<engine::ChatMessage> messages;
  for (const json& message : request["messages"]) {
    messages.push_back({message["role"], message["content"]});
  }
  const auto segments = (*parsed)->Render(messages, request["add_generation_prompt"].get<bool>());
  if (!segments.ok()) return {{"error", std::string(segments.status().message())}};
  json result = json::array();
  for (const auto& segment : *segments) result.push_back({segment.text, segment.trusted});
  return {{"segments", std::move(result)}};
}

}  // namespace

int main() {
  json answers = json::array();
  for (const json& request : json::parse(std::cin)) answers.push_back(Render(request));
  std::cout << answers.dump() << "\n";
}
