// Renders a chat into the segments that the model was trained on. Immutable after Parse;
// thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/tokenizer/tokenizer.h"

namespace acuity::engine {

// Fields named *_json hold JSON text, "" for none, because a template sees what JSON says: 5 is not
// 5.0, and members keep their order.
struct ChatToolCall {
  std::string id, name;
  std::string arguments_json;                 // a mapping, for most templates
  std::optional<std::string> arguments_text;  // instead: a string, for those that print it as it is
};
struct ChatMessage {
  std::string role;
  std::optional<std::string> content;  // absent: the message has no such member
  std::string content_json;            // instead: a list of parts
  std::vector<ChatToolCall> tool_calls;
  std::string reasoning_content, name, tool_call_id;  // "": no such member
  std::string extra_json;  // an object: members that this model's template reads, or replaces
};
struct ChatInput {
  std::vector<ChatMessage> messages;
  std::string tools_json;      // an array of tools
  std::string variables_json;  // an object: variables of the template, such as enable_thinking
  bool add_generation_prompt = false;
  // The output ends where the last message's content does, without the end of its turn.
  bool continue_final_message = false;
  absl::Time now = absl::Now();  // for strftime_now
};

class ChatTemplate {
 public:
  // `source` is the model's Jinja template. InvalidArgument with line and construct if it uses what
  // we do not support.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Parse(std::string_view source,
                                                                   const TokenizerSpec& spec);
  ~ChatTemplate();

  // Every string of `input` is untrusted, everything else trusted. A role is trusted if it is one
  // of the usual names (templates spell control tokens around it), else untrusted as well.
  // InvalidArgument names the field of `input` that is wrong, or the template's line. No I/O; step
  // fuel, output and depth are bounded (ResourceExhausted with line and limit); raise_exception
  // becomes InvalidArgument with the template's message.
  absl::StatusOr<std::vector<Tokenizer::Segment>> Render(const ChatInput& input) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace acuity::engine
