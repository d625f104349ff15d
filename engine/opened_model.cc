#include "engine/opened_model.h"

#include <utility>

#include "engine/loader/policy.h"

namespace acuity::engine {

absl::StatusOr<OpenedModel> OpenModel(const std::string& path, std::string_view attention_policy) {
  OpenedModel model;
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  model.checkpoint = *std::move(checkpoint);
  model.spec = model.checkpoint->spec();
  if (!attention_policy.empty()) {
    const absl::Status applied = ApplyPolicy(attention_policy, &model.spec);
    if (!applied.ok()) return applied;
  }
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer =
      Tokenizer::Create(model.checkpoint->tokenizer());
  if (!tokenizer.ok()) return tokenizer.status();
  model.tokenizer = *std::move(tokenizer);
  const TokenizerSpec& tokenizer_spec = model.tokenizer->spec();
  if (!tokenizer_spec.chat_template.empty()) {
    absl::StatusOr<std::unique_ptr<const ChatTemplate>> chat =
        ChatTemplate::Parse(tokenizer_spec.chat_template, tokenizer_spec);
    if (!chat.ok()) return chat.status();
    model.chat_template = *std::move(chat);
  }
  return model;
}

}  // namespace acuity::engine
