// Renders the input: up to the first NUL a template, after it JSON, which the template sees as
// `messages`.
#include <algorithm>
#include <cstdlib>

#include "engine/tokenizer/template_evaluator.h"
#include "engine/tokenizer/template_json.h"
#include "engine/tokenizer/template_parser.h"
#include "tests/fuzz/entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace jinja = acuity::engine::jinja;
  // A few milliseconds.
  constexpr jinja::Bounds kBounds = {.fuel = 1 << 18, .output_bytes = 1 << 16};
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), size);
  jinja::Dict globals;
  const auto json = jinja::ParseJson(input.substr(std::min(end + 1, size)));
  if (json.ok()) globals.Set(jinja::Value::Trusted("messages"), *json);
  const auto block = jinja::Parse(input.substr(0, end));
  if (!block.ok()) return 0;
  const auto text = jinja::Evaluate(*block, globals, kBounds, absl::UnixEpoch());
  if (text.ok() && text->size() > kBounds.output_bytes) std::abort();
  return 0;
}
