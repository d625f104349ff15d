// The pipeline of a tokenizer.json around its model: normalizer, pre_tokenizer, decoder and
// post_processor -> the steps of a TokenizerSpec.
#pragma once

#include "absl/status/status.h"
#include "engine/loader/json_node.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace acuity::engine {

// `root` is the whole file. InvalidArgument names the JSON path and the type of a node, or the
// field of one, that is not supported.
absl::Status ReadHfPipeline(const JsonNode& root, TokenizerSpec* spec);

}  // namespace acuity::engine
