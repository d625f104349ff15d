// What the ordinary suite runs of the template fuzzer: seeded mutations, the same on every run.
#include "gtest/gtest.h"

#include <memory>
#include <random>
#include <string>

#include "tests/fuzz/template_fuzz.h"

namespace acuity::engine::testing {
namespace {

constexpr int kMutations = 20000;
// What a mutation puts in.
constexpr std::string_view kPieces[] = {"{{",          "}}",
                                        "{%",          "%}",
                                        "-",           "(",
                                        ")",           "[",
                                        "]",           "{",
                                        "}",           ":",
                                        ",",           "|",
                                        ".",           "'",
                                        "messages",    " if ",
                                        " else ",      "for",
                                        "endfor",      "macro",
                                        "endmacro",    "set",
                                        "tojson",      "9223372036854775807",
                                        " * ",         " // ",
                                        " ~ ",         "0",
                                        "loop",        "f()",
                                        "namespace()", "none",
                                        "range(9)",    "|list",
                                        "|map",        "\xff",
                                        "\xc3",        "\n"};

class Mutator {
 public:
  size_t Below(size_t limit) { return random_() % limit; }
  std::string Mutate(std::string text) {
    for (size_t left = 1 + Below(4); left > 0; --left) {
      const size_t at = Below(text.size() + 1), length = Below(12);
      const std::string part = text.substr(at, length);
      switch (Below(4)) {
        case 0:
          text.erase(at, length);
          break;
        case 1:
          text.insert(Below(text.size() + 1), part);
          break;
        default:
          text.insert(at, kPieces[Below(std::size(kPieces))]);
      }
    }
    return text;
  }

 private:
  std::mt19937_64 random_{1};
};

// In a heap block of exactly this size: ASan sees a byte too far.
void RunOnce(const std::string& text) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[text.size()]);
  std::copy(text.begin(), text.end(), copy.get());
  ASSERT_EQ(LLVMFuzzerTestOneInput(copy.get(), text.size()), 0);
}

TEST(TemplateFuzzSmoke, SeedsAndMutations) {
  Mutator mutator;
  for (int i = 0; i < kMutations; ++i) {
    std::string source(kTemplateSeeds[mutator.Below(std::size(kTemplateSeeds))]);
    std::string json(kJsonSeeds[mutator.Below(std::size(kJsonSeeds))]);
    if (i >= 100) source = mutator.Mutate(std::move(source));
    if (i % 5 == 4) json = mutator.Mutate(std::move(json));
    RunOnce(source + '\0' + json);
  }
}

}  // namespace
}  // namespace acuity::engine::testing
