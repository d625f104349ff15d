#include "engine/tokenizer/chat_variables.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/template_json.h"

namespace acuity::engine {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Mark;
using jinja::Text;
using jinja::Value;

// Templates may spell a control token around the role ('<|' + role + '|>'), so roles must be
// trusted; an unknown role is not, lest it spell another token.
constexpr std::string_view kTrustedRoles[] = {"system",    "developer", "user",
                                              "assistant", "model",     "tool",
                                              "function",  "ipython",   "observation"};

Mark MarkOfRole(std::string_view role) {
  const bool known = std::find(std::begin(kTrustedRoles), std::end(kTrustedRoles), role) !=
                     std::end(kTrustedRoles);
  return known ? jinja::kTrusted : jinja::kUntrusted;
}

// Gathers members, and the first error.
class Members {
 public:
  explicit Members(std::string field) : field_(std::move(field)) {}

  void Add(std::string_view name, Value value) {
    dict_.depth = std::max(dict_.depth, value.Depth() + 1);
    dict_.Set(Value::Trusted(name), std::move(value));
  }
  void AddText(std::string_view name, std::string_view text) {
    if (!text.empty()) Add(name, Text(text, jinja::kUntrusted));
  }
  Value Json(std::string_view name, std::string_view json) {
    absl::StatusOr<Value> value = jinja::ParseJson(json);
    if (value.ok()) return *std::move(value);
    Fail(name, std::string(value.status().message()));
    return {};
  }
  // The members of a JSON object.
  void AddAll(std::string_view name, std::string_view json) {
    if (json.empty()) return;
    const Value value = Json(name, json);
    if (value.dict() == nullptr) return Fail(name, "it is not a JSON object");
    dict_.depth = std::max(dict_.depth, value.Depth());
    for (const auto& [key, member] : value.dict()->entries) dict_.Set(key, member);
  }
  void Fail(std::string_view name, std::string_view what) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat(field_, std::string(name), ": ", std::string(what)));
    }
  }
  bool Has(std::string_view name) const { return dict_.FindName(name) != nullptr; }

  absl::StatusOr<Dict> Take() {
    if (!status_.ok()) return status_;
    return std::move(dict_);
  }

 private:
  const std::string field_;
  Dict dict_;
  absl::Status status_;
};

absl::StatusOr<Dict> ToolCall(const ChatToolCall& call, const std::string& field) {
  Members function(field), members(field);
  function.AddText("name", call.name);
  if (call.arguments_text) {
    if (!call.arguments_json.empty()) function.Fail("arguments_text", "arguments_json is set too");
    function.Add("arguments", Text(*call.arguments_text, jinja::kUntrusted));
  } else if (!call.arguments_json.empty()) {
    function.Add("arguments", function.Json("arguments_json", call.arguments_json));
  }
  absl::StatusOr<Dict> named = function.Take();
  if (!named.ok()) return named;
  members.AddText("id", call.id);
  members.Add("type", Value::Trusted("function"));
  members.Add("function", *std::move(named));
  return members.Take();
}

// `content` with the text that is to be continued marked as such.
Value MarkFinal(const Value& content) {
  if (const Text* text = content.text()) return Text(text->bytes(), jinja::kFinal);
  if (content.list() == nullptr) return content;
  List parts = *content.list();
  for (auto part = parts.items.rbegin(); part != parts.items.rend(); ++part) {
    const Value* text = part->dict() == nullptr ? nullptr : part->dict()->FindName("text");
    if (text == nullptr || text->text() == nullptr) continue;
    Dict copy = *part->dict();
    copy.Set(Value::Trusted("text"), Text(text->text()->bytes(), jinja::kFinal));
    *part = std::move(copy);
    break;
  }
  return parts;
}

absl::StatusOr<Dict> Message(const ChatMessage& message, const std::string& field, bool final) {
  Members members(field);
  members.Add("role", Text(message.role, MarkOfRole(message.role)));
  if (message.content && !message.content_json.empty()) {
    members.Fail("content_json", "content is set too");
  }
  if (message.content || !message.content_json.empty()) {
    const Value content = message.content ? Value(Text(*message.content, jinja::kUntrusted))
                                          : members.Json("content_json", message.content_json);
    members.Add("content", final ? MarkFinal(content) : content);
  }
  members.AddText("reasoning_content", message.reasoning_content);
  members.AddText("name", message.name);
  members.AddText("tool_call_id", message.tool_call_id);
  List calls;
  for (size_t i = 0; i < message.tool_calls.size(); ++i) {
    absl::StatusOr<Dict> call =
        ToolCall(message.tool_calls[i], absl::StrCat(field, "tool_calls[", i, "]."));
    if (!call.ok()) return call;
    calls.depth = std::max(calls.depth, call->depth + 1);
    calls.items.emplace_back(*std::move(call));
  }
  if (!calls.items.empty()) members.Add("tool_calls", std::move(calls));
  members.AddAll("extra_json", message.extra_json);
  return members.Take();
}

}  // namespace

absl::StatusOr<Dict> ToVariables(const ChatInput& input) {
  List messages;
  for (size_t i = 0; i < input.messages.size(); ++i) {
    const bool final = input.continue_final_message && i + 1 == input.messages.size();
    absl::StatusOr<Dict> message =
        Message(input.messages[i], absl::StrCat("messages[", i, "]."), final);
    if (!message.ok()) return message;
    messages.depth = std::max(messages.depth, message->depth + 1);
    messages.items.emplace_back(*std::move(message));
  }
  Members members("");
  members.AddAll("variables_json", input.variables_json);
  for (const char* name : {"messages", "tools", "add_generation_prompt"}) {
    if (members.Has(name)) {
      members.Fail("variables_json", absl::StrCat("'", name, "' is a field of its own"));
    }
  }
  if (!members.Has("documents")) members.Add("documents", jinja::None{});
  members.Add("messages", std::move(messages));
  members.Add("add_generation_prompt", input.add_generation_prompt);
  Value tools = jinja::None{};
  if (!input.tools_json.empty()) {
    tools = members.Json("tools_json", input.tools_json);
    if (tools.list() == nullptr) members.Fail("tools_json", "it is not a JSON array");
  }
  members.Add("tools", tools);
  return members.Take();
}

}  // namespace acuity::engine
