// Everything about a model that is decided before its weights are read, in the order in which it is
// refused. Shared by the engine and by `acuity inspect`, so that both say the same. Links no
// LibTorch.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/model_spec.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace acuity::engine {

struct OpenedModel {
  std::unique_ptr<Checkpoint> checkpoint;
  ModelSpec spec;  // the checkpoint's, with the policy applied
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;  // null if the model has none
};

// Opens the checkpoint, applies `attention_policy` (grammar of ApplyPolicy; empty: the checkpoint's
// own) and builds the tokenizer and the chat template. The first error of these.
absl::StatusOr<OpenedModel> OpenModel(const std::string& path, std::string_view attention_policy);

}  // namespace acuity::engine
