// What the ordinary suite runs of the template fuzzer: seeded mutations, the same on every run.
#include <string>

#include "gtest/gtest.h"
#include "tests/fuzz/smoke.h"
#include "tests/fuzz/template_seeds.h"

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

TEST(TemplateFuzzSmoke, SeedsAndMutations) {
  TextMutator mutator(kPieces);
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
