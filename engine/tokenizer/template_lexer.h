// Splits a template into text and the tokens of its tags, with Jinja's treatment of white space
// around tags.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace acuity::engine::jinja {

enum class TokenType : uint8_t {
  kText,           // outside tags
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  std::string text;
  int line = 1;
};

// The last token is kEnd. White space as in an environment with trim_blocks and lstrip_blocks,
// which is what chat templates are written for. InvalidArgument with the line.
absl::StatusOr<std::vector<Token>> Lex(std::string_view source);

}  // namespace acuity::engine::jinja
