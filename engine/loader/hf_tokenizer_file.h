// A tokenizer.json -> TokenizerSpec.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/loader/json_node.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

// Models BPE and Unigram. Leaves to its caller what the file does not know: which tokens are BOS,
// EOS and so on, what ends generation, the chat template. InvalidArgument names the JSON path, the
// value and the limit. Allocates in proportion to the file.
absl::StatusOr<TokenizerSpec> ReadHfTokenizerFile(std::string_view bytes);

// Adds to `spec` the token that `node`, of "added_tokens" or "added_tokens_decoder", describes, or
// changes what is known of it. `id` is where it belongs.
absl::Status ReadHfAddedToken(const JsonNode& node, int64_t id, TokenizerSpec* spec);

}  // namespace acuity::engine
