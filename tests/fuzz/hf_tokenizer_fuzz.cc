// Reads the input as a tokenizer.json and, if it makes a tokenizer, encodes and decodes texts with
// it.
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engine/loader/hf_tokenizer_file.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"
#include "tests/fuzz/entry.h"

namespace acuity::engine {
namespace {

constexpr const char* kTexts[] = {"",
                                  " ",
                                  "ab  ab\n\n",
                                  "<s> <|end|><tool> </s>",
                                  "caf\u00e9 e\u0301\u0301 \u2581\u2581a 123",
                                  "\U0001F468\u200D\U0001F469 \u0915\u094D\u0937 \u3042\t\r\n"};

void Require(bool condition) {
  if (!condition) std::abort();
}

// Every id that comes out is a token; every text that comes out is UTF-8.
void Use(const Tokenizer& tokenizer) {
  for (const char* text : kTexts) {
    for (const bool special : {false, true}) {
      const auto ids = tokenizer.Encode(text, {.add_special = special, .parse_special = special});
      if (!ids.ok()) continue;  // a pattern may take too long
      for (const TokenId id : *ids) Require(id >= 0 && id < tokenizer.vocab_size());
      const std::string decoded = tokenizer.Decode(*ids, special);
      Require(ValidUtf8Prefix(decoded) == decoded.size());
    }
  }
}

}  // namespace
}  // namespace acuity::engine

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace engine = acuity::engine;
  auto spec =
      engine::ReadHfTokenizerFile(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!spec.ok()) return 0;
  const auto tokenizer = engine::Tokenizer::Create(*std::move(spec));
  if (tokenizer.ok()) engine::Use(**tokenizer);
  return 0;
}
