// Drives chat templates from chat_template_parity.py and chat_templates_real.py. stdin: a JSON
// object {"now": Unix seconds, "bos": s, "eos": s, "templates": {name: source}, "chats":
// [{"messages":
// [...], "tools": [...] or absent, "variables": {...}, "add_generation_prompt": b}], "cases":
// [[name, index of a chat]]}.
// stdout: a JSON array of {"segments": [[text, trusted], ...]} or {"error": message}, one a case.
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/tokenizer/chat_template.h"

namespace {

using json = nlohmann::ordered_json;
namespace engine = acuity::engine;

// Role and a content that is a string go the usual way, everything else as JSON.
engine::ChatMessage ToMessage(const json& from) {
  engine::ChatMessage message;
  json extra = json::object();
  for (const auto& [key, value] : from.items()) {
    if (key == "role") {
      message.role = value;
    } else if (key == "content" && value.is_string()) {
      message.content = value.get<std::string>();
    } else if (key == "content") {
      message.content_json = value.dump();
    } else {
      extra[key] = value;
    }
  }
  if (!extra.empty()) message.extra_json = extra.dump();
  return message;
}

engine::ChatInput ToInput(const json& chat, int64_t now) {
  engine::ChatInput input;
  for (const json& message : chat["messages"]) input.messages.push_back(ToMessage(message));
  if (chat.contains("tools")) input.tools_json = chat["tools"].dump();
  if (chat.contains("variables")) input.variables_json = chat["variables"].dump();
  input.add_generation_prompt = chat["add_generation_prompt"];
  input.now = absl::FromUnixSeconds(now);
  return input;
}

using Parsed = absl::StatusOr<std::unique_ptr<const engine::ChatTemplate>>;

json Render(const Parsed& parsed, const engine::ChatInput& input) {
  if (!parsed.ok()) return {{"error", std::string(parsed.status().message())}};
  const auto segments = (*parsed)->Render(input);
  if (!segments.ok()) return {{"error", std::string(segments.status().message())}};
  json result = json::array();
  for (const auto& segment : *segments) result.push_back({segment.text, segment.trusted});
  return {{"segments", std::move(result)}};
}

}  // namespace

int main() {
  const json request = json::parse(std::cin);
  engine::TokenizerSpec spec;
  spec.tokens = {request["bos"].get<std::string>(), request["eos"].get<std::string>()};
  spec.bos = 0;
  spec.eos = 1;
  std::map<std::string, Parsed> templates;
  for (const auto& [name, source] : request["templates"].items()) {
    templates.emplace(name, engine::ChatTemplate::Parse(source.get<std::string>(), spec));
  }
  std::vector<engine::ChatInput> inputs;
  for (const json& chat : request["chats"]) inputs.push_back(ToInput(chat, request["now"]));
  json answers = json::array();
  for (const json& item : request["cases"]) {
    answers.push_back(Render(templates.at(item[0]), inputs[item[1].get<size_t>()]));
  }
  std::cout << answers.dump() << "\n";
}
