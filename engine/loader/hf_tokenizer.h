// The tokenizer of a Hugging Face model directory -> TokenizerSpec.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

// Reads, from `directory`:
//   tokenizer.json          vocabulary, merges or scores, and the whole pipeline; required
//   tokenizer_config.json   special tokens, add_bos_token, add_eos_token, chat_template
//   special_tokens_map.json special tokens, where tokenizer_config.json does not name them
//   generation_config.json  ids that end generation; config.json's eos_token_id if it is absent
//   chat_template.jinja, chat_template.json   the chat template, before tokenizer_config.json's
// Ids beyond the vocabulary are for the caller to judge: a model may have more embedding rows than
// the tokenizer has tokens (padding), never fewer.
// NotFound if there is no tokenizer.json. InvalidArgument names the file, the JSON path, the value
// and the limit of what is damaged, contradictory or not understood: a node of a type, or a field
// of a node, that could change the tokens is refused, never ignored.
absl::StatusOr<TokenizerSpec> ReadHfTokenizer(const std::string& directory);

}  // namespace acuity::engine
