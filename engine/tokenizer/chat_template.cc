#include "engine/tokenizer/chat_template.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/limits.h"
#include "engine/tokenizer/chat_variables.h"
#include "engine/tokenizer/template_evaluator.h"
#include "engine/tokenizer/template_parser.h"

namespace acuity::engine {
namespace {

using jinja::Dict;
using jinja::Text;
using jinja::Value;

// The largest template in use has 40 KB.
constexpr size_t kMaxTemplateBytes = 256u << 10;
// The longest prompt and as much again from the template.
constexpr size_t kMaxOutputBytes = 2 * kMaxPromptBytes;
// A template that copies the longest prompt 12 times, or takes 4 million steps: less than a second.
constexpr int64_t kFuel = 64 << 20;

}  // namespace

struct ChatTemplate::Impl {
  jinja::Block block;
  Dict tokens;  // bos_token and the like
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
      impl->tokens.Set(Value::Trusted(name), Value::Trusted(spec.tokens[*id]));
    }
  }
  return std::unique_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

absl::StatusOr<std::vector<Tokenizer::Segment>> ChatTemplate::Render(const ChatInput& input) const {
  absl::StatusOr<Dict> variables = ToVariables(input);
  if (!variables.ok()) return variables.status();
  Dict globals = impl_->tokens;
  for (auto& [name, value] : variables->entries) globals.Set(name, std::move(value));
  const absl::StatusOr<Text> text =
      jinja::Evaluate(impl_->block, globals, {kFuel, kMaxOutputBytes}, input.now);
  if (!text.ok()) return text.status();
  size_t size = text->size();
  if (input.continue_final_message) {
    size = text->EndOfLast(jinja::kFinal);
    if (size == 0) {
      return absl::InvalidArgumentError(
          "messages: the last one's content is empty or not in the output");
    }
  }
  std::vector<Tokenizer::Segment> segments;
  for (size_t begin = 0; begin < size;) {
    const size_t end = std::min(size, text->RunEnd(begin));
    segments.push_back({std::string(text->bytes().substr(begin, end - begin)),
                        text->mark(begin) == jinja::kTrusted});
    begin = end;
  }
  return segments;
}

}  // namespace acuity::engine
