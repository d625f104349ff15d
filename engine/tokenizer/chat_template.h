// Renders a chat into the segments that the model was trained on. Immutable after Parse;
// thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer.h"

namespace acuity::engine {

struct ChatMessage {
  std::string role;
  std::string content;
};

class ChatTemplate {
 public:
  // `source` is the model's Jinja template. InvalidArgument with line and construct if it uses what
  // we do not support.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Parse(std::string_view source,
                                                                   const TokenizerSpec& spec);
  ~ChatTemplate();

  // Text that comes from `messages` is untrusted, everything else trusted. A role is trusted if it
  // is one of the usual names (templates spell control tokens around it), else untrusted as well.
  // No I/O; step fuel and output are bounded (ResourceExhausted); raise_exception becomes
  // InvalidArgument with the template's message.
  absl::StatusOr<std::vector<Tokenizer::Segment>> Render(std::span<const ChatMessage> messages,
                                                         bool add_generation_prompt) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace acuity::engine
