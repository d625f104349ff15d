#include "engine/tokenizer/chat_template.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/limits.h"
#include "engine/tokenizer/template_evaluator.h"
#include "engine/tokenizer/template_parser.h"

namespace acuity::engine {
namespace {

using jinja::Map;
using jinja::None;
using jinja::Text;
using jinja::Value;

// The largest template in use has 20 KB.
constexpr size_t kMaxTemplateBytes = 256u << 10;
// The longest prompt and as much again from the template.
constexpr size_t kMaxOutputBytes = 2 * kMaxPromptBytes;
// A template that copies the longest prompt 12 times, or takes 4 million steps: less than a second.
constexpr int64_t kFuel = 64 << 20;

// Templates may spell a control token around the role ('<|' + role + '|>'), so roles must be
// trusted; an unknown role is not, lest it spell another token.
constexpr std::string_view kTrustedRoles[] = {"system",    "developer", "user",
                                              "assistant", "model",     "tool"};

bool IsTrustedRole(std::string_view role) {
  return std::find(std::begin(kTrustedRoles), std::end(kTrustedRoles), role) !=
         std::end(kTrustedRoles);
}

}  // namespace

struct ChatTemplate::Impl {
  jinja::Block block;
  Map globals;  // all but the messages
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                        const TokenizerSpec& spec) {
  if (source.size() > kMaxTemplateBytes) {
    return absl::InvalidArgumentError(absl::StrCat("chat template has ", source.size(),
                                                   " bytes (at most ", kMaxTemplateBytes, ")"));
  }
  absl::StatusOr<jinja::Block> block = jinja::Parse(source);
  if (!block.ok()) return block.status();
  auto impl = std::make_unique<Impl>();
  impl->block = *std::move(block);
  const std::pair<const char*, std::optional<TokenId>> tokens[] = {{"bos_token", spec.bos},
                                                                   {"eos_token", spec.eos},
                                                                   {"unk_token", spec.unk},
                                                                   {"pad_token", spec.pad}};
  for (const auto& [name, id] : tokens) {
    if (id && *id >= 0 && static_cast<size_t>(*id) < spec.tokens.size()) {
      impl->globals.emplace_back(name, Value::Trusted(spec.tokens[*id]));
    }
  }
  impl->globals.emplace_back("tools", None{});
  impl->globals.emplace_back("documents", None{});
  return std::unique_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

absl::StatusOr<std::vector<Tokenizer::Segment>> ChatTemplate::Render(
    std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  jinja::List list;
  list.depth = 1;
  for (const ChatMessage& message : messages) {
    list.items.emplace_back(Map{{"role", Text(message.role, IsTrustedRole(message.role))},
                                {"content", Text(message.content, false)}});
  }
  Map globals = impl_->globals;
  globals.emplace_back("messages", std::move(list));
  globals.emplace_back("add_generation_prompt", add_generation_prompt);
  absl::StatusOr<Text> text = jinja::Evaluate(impl_->block, globals, {kFuel, kMaxOutputBytes});
  if (!text.ok()) return text.status();
  std::vector<Tokenizer::Segment> segments;
  for (size_t begin = 0; begin < text->size();) {
    const size_t end = text->RunEnd(begin);
    segments.push_back(
        {std::string(text->bytes().substr(begin, end - begin)), text->trusted(begin)});
    begin = end;
  }
  return segments;
}

}  // namespace acuity::engine
