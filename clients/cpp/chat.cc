#include "clients/cpp/chat.h"

#include <stdexcept>

#include "clients/cpp/json.h"

namespace acuity::client {
namespace {

void AddToolCall(const Json& json, v1::ToolCall* call) {
  const Json& function = json.contains("function") ? json.at("function") : json;
  call->set_id(json.value("id", ""));
  call->set_name(function.at("name").get<std::string>());
  if (!function.contains("arguments")) return;
  const Json& arguments = function.at("arguments");
  if (arguments.is_string()) {
    call->set_arguments_text(arguments.get<std::string>());
  } else {
    call->set_arguments_json(arguments.dump());
  }
}

void AddMessage(const Json& json, v1::ChatMessage* message) {
  Json extra = Json::object();
  for (const auto& [name, value] : json.items()) {
    if (name == "role") {
      message->set_role(value.get<std::string>());
    } else if (name == "content" && value.is_string()) {
      message->set_content(value.get<std::string>());
    } else if (name == "content") {
      message->set_content_json(value.dump());
    } else if (name == "reasoning_content" && value.is_string()) {
      message->set_reasoning_content(value.get<std::string>());
    } else if (name == "tool_call_id") {
      message->set_tool_call_id(value.get<std::string>());
    } else if (name == "name") {
      message->set_name(value.get<std::string>());
    } else if (name == "tool_calls" && value.is_array()) {
      for (const Json& call : value) AddToolCall(call, message->add_tool_calls());
    } else {
      extra[name] = value;
    }
  }
  if (!extra.empty()) message->set_extra_json(extra.dump());
}

}  // namespace

void AddMessages(const std::string& json, v1::Chat* chat) {
  const Json messages = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!messages.is_array()) throw std::runtime_error("--messages: the file is not a JSON array");
  for (const Json& message : messages) {
    const std::string name = "--messages: message " + std::to_string(chat->messages_size());
    if (!message.is_object()) throw std::runtime_error(name + " is not an object");
    try {
      AddMessage(message, chat->add_messages());
    } catch (const Json::exception& e) {
      throw std::runtime_error(name + ": " + e.what());
    }
  }
}

}  // namespace acuity::client
