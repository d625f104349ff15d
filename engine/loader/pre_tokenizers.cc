#include "engine/loader/pre_tokenizers.h"

#include <string>

#include "engine/loader/gguf.h"
#include "engine/loader/status_util.h"

namespace acuity::engine {
namespace {

constexpr std::string_view kEachNumber = R"(\p{N})";
// What GPT-4's family has in common; they differ in the number and in what a letter is.
#define ACUITY_GPT4(letters, number)                                                       \
  R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?)" letters R"(+|)" number R"(| ?[^\s)" \
  R"(\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr std::string_view kLlama3 = ACUITY_GPT4(R"(\p{L})", R"(\p{N}{1,3})");
constexpr std::string_view kQwen2 = ACUITY_GPT4(R"(\p{L})", R"(\p{N})");
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
    R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words that change from lower to upper case are split there.
#define ACUITY_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define ACUITY_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define ACUITY_CASED(suffix, number)                                           \
  R"([^\r\n\p{L}\p{N}]?)" ACUITY_UPPER "*" ACUITY_LOWER "+" suffix             \
  R"(|[^\r\n\p{L}\p{N}]?)" ACUITY_UPPER "+" ACUITY_LOWER "*" suffix "|" number \
  R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr std::string_view kGpt4o = ACUITY_CASED("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", R"(\p{N}{1,3})");
constexpr std::string_view kTekken = ACUITY_CASED("", R"(\p{N})");
constexpr std::string_view kIdeographs = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
constexpr std::string_view kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kUpToThreeNumbers = R"(\p{N}{1,3})";
constexpr std::string_view kLineEnd = R"([\r\n])";
constexpr std::string_view kCoderLetters = R"(\s?\p{L}+)";
constexpr std::string_view kCoderPunctuation = R"(\s?\p{P}+)";
constexpr std::string_view kCoderIdeographs = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";

constexpr size_t kMaxPatterns = 5;

struct Entry {
  std::string_view name;
  std::string_view patterns[kMaxPatterns];  // each splits what the one before left whole
  bool whole_words = false;
  bool composes = false;  // the original tokenizer has text in NFC
  bool adds_bos = false;  // where tokenizer.ggml.add_bos_token does not say
};

constexpr Entry kTable[] = {
    {"gpt-2", {kGpt2Pattern}},
    {"gpt2", {kGpt2Pattern}},
    {"phi-2", {kGpt2Pattern}},
    {"mpt", {kGpt2Pattern}, false, true},
    {"olmo", {kGpt2Pattern}, false, true},
    {"llama-bpe", {kLlama3}, true, false, true},
    {"llama3", {kLlama3}, true, false, true},
    {"llama-v3", {kLlama3}, true, false, true},
    {"falcon3", {kLlama3}, true, false, true},
    {"pixtral", {kLlama3}, true, false, true},
    {"lfm2", {kLlama3}, true, false, true},
    {"dbrx", {kLlama3}},
    {"smaug-bpe", {kLlama3}},
    {"glm4", {kLlama3}},
    {"chatglm-bpe", {kLlama3}},
    {"qwen2", {kQwen2}, false, true},
    {"deepseek-r1-qwen", {kQwen2}},
    {"qwen35", {kQwen35}},
    {"stablelm2", {kQwen2}},
    {"gpt-4o", {kGpt4o}},
    {"llama4", {kGpt4o}},
    {"tekken", {kTekken}, true, false, true},
    {"starcoder", {kEachNumber, kGpt2Pattern}},
    {"refact", {kEachNumber, kGpt2Pattern}},
    {"smollm", {kEachNumber, kGpt2Pattern}},
    {"command-r", {kEachNumber, kGpt2Pattern}, false, true},
    {"deepseek-v3", {kUpToThreeNumbers, kIdeographs, kDeepSeek3}},
    {"deepseek-coder", {kLineEnd, kCoderLetters, kCoderPunctuation, kCoderIdeographs, kEachNumber}},
};

}  // namespace

PreTokenizerStep SplitStep(std::string_view regex) {
  PreTokenizerStep step;
  step.pattern = {std::string(regex), /*is_regex=*/true};
  return step;
}

void AppendMetaspace(PreTokenizerStep::Prefix prefix, std::string_view replacement, bool split,
                     std::vector<PreTokenizerStep>* steps) {
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::Kind::kMetaspace;
  step.content = std::string(replacement);
  step.prefix = prefix;
  steps->push_back(step);
  if (!split) return;
  PreTokenizerStep at_space;
  at_space.pattern = {std::string(replacement), /*is_regex=*/false};
  at_space.behaviour = PreTokenizerStep::Behaviour::kMergedWithNext;
  steps->push_back(at_space);
}

absl::Status SetPreTokenizer(std::string_view name, TokenizerSpec* spec, bool* adds_bos) {
  std::string supported;
  for (const Entry& entry : kTable) {
    supported += supported.empty() ? "" : ", ";
    supported += entry.name;
    if (name != entry.name) continue;
    if (entry.composes) spec->normaliser.push_back({.kind = NormaliserStep::Kind::kNfc});
    for (const std::string_view pattern : entry.patterns) {
      if (!pattern.empty()) spec->pre_tokenizer.push_back(SplitStep(pattern));
    }
    spec->whole_words = entry.whole_words;
    *adds_bos = entry.adds_bos;
    return absl::OkStatus();
  }
  return InvalidArgument("GGUF: tokenizer.ggml.pre is ", QuoteForError(name),
                         "; supported: ", supported);
}

}  // namespace acuity::engine
