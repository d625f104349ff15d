#include "engine/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

// Unicode's White_Space. PCRE2's \s also takes U+180E, which the tokenizers' own engines do not.
#define ACUITY_SPACE R"(\p{Z}\x09-\x0d\x{85})"

namespace acuity::engine {
namespace {

constexpr const char* kEachNumber = R"(\p{N})";
constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^)" ACUITY_SPACE
    R"(\p{L}\p{N}]+|[)" ACUITY_SPACE R"(]+(?![^)" ACUITY_SPACE R"(])|[)" ACUITY_SPACE R"(]+)";
// What GPT-4's family has in common; `number` is where they differ.
#define ACUITY_GPT4(number)                                                                       \
  R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" number R"(| ?[^)" ACUITY_SPACE      \
  R"(\p{L}\p{N}]+[\r\n]*|[)" ACUITY_SPACE R"(]*[\r\n]+|[)" ACUITY_SPACE R"(]+(?![^)" ACUITY_SPACE \
  R"(])|[)" ACUITY_SPACE R"(]+)"
constexpr const char* kLlama3 = ACUITY_GPT4(R"(\p{N}{1,3})");
constexpr const char* kQwen2 = ACUITY_GPT4(R"(\p{N})");

struct Entry {
  const char* name;
  const char* patterns[2];  // each splits what the one before left whole
  bool whole_word_first;
};

// qwen2's tokenizer also composes characters first (NFC); here, as in llama.cpp, text stays as it
// is.
constexpr Entry kTable[] = {
    {"gpt-2", {kGpt2, nullptr}, false},         {"gpt2", {kGpt2, nullptr}, false},
    {"llama-bpe", {kLlama3, nullptr}, true},    {"qwen2", {kQwen2, nullptr}, false},
    {"refact", {kEachNumber, kGpt2}, false},    {"smollm", {kEachNumber, kGpt2}, false},
    {"starcoder", {kEachNumber, kGpt2}, false},
};

// Only the interpreter counts strictly: some 8 steps for each byte of the longest prompt (4 MiB).
// No pattern of the table needs more, so reaching it is our bug, and the request fails instead of
// hanging.
constexpr uint32_t kMatchLimit = 32u << 20;

using MatchData = std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)>;

}  // namespace

struct PreTokenizer::Stage {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  bool jit = false;

  ~Stage() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }

  absl::Status Compile(const char* pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
    context = pcre2_match_context_create(nullptr);
    if (code == nullptr || context == nullptr) {
      return absl::InternalError(absl::StrCat("PCRE2 error ", error, " at ", offset));
    }
    jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;  // else the interpreter does it
    pcre2_set_match_limit(context, kMatchLimit);
    return absl::OkStatus();
  }

  // PCRE2's result: > 0 match, PCRE2_ERROR_NOMATCH, or another error. `text` is known to be UTF-8;
  // having PCRE2 check it again at every word would be quadratic.
  int Match(std::string_view text, size_t from, pcre2_match_data* data) const {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    if (jit) {
      const int rc = pcre2_jit_match(code, subject, text.size(), from, 0, data, context);
      if (rc != PCRE2_ERROR_JIT_STACKLIMIT) return rc;
    }
    return pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
                       context);
  }

  absl::Status Split(std::string_view text, pcre2_match_data* data,
                     std::vector<std::string_view>* pieces) const {
    size_t pos = 0;   // everything before is in `pieces`
    size_t from = 0;  // where the search goes on; > pos only after an empty match
    while (from < text.size()) {
      const int rc = Match(text, from, data);
      if (rc == PCRE2_ERROR_NOMATCH) break;
      if (rc < 0) {
        return absl::InternalError(absl::StrCat("pre-tokenizer: PCRE2 error ", rc));
      }
      const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
      if (bounds[1] == bounds[0]) {  // no pattern of the table can; never loop on one
        from =
            bounds[0] + (bounds[0] < text.size() ? DecodeUtf8(text.substr(bounds[0])).length : 1);
        continue;
      }
      if (bounds[0] > pos) pieces->push_back(text.substr(pos, bounds[0] - pos));
      pieces->push_back(text.substr(bounds[0], bounds[1] - bounds[0]));
      pos = from = bounds[1];
    }
    if (pos < text.size()) pieces->push_back(text.substr(pos));
    return absl::OkStatus();
  }
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<const PreTokenizer>> PreTokenizer::Create(std::string_view name) {
  std::string supported;
  for (const Entry& entry : kTable) {
    absl::StrAppend(&supported, supported.empty() ? "" : ", ", entry.name);
    if (name != entry.name) continue;
    std::unique_ptr<PreTokenizer> result(new PreTokenizer);
    result->whole_word_first_ = entry.whole_word_first;
    for (const char* pattern : entry.patterns) {
      if (pattern == nullptr) continue;
      auto stage = std::make_unique<Stage>();
      if (absl::Status status = stage->Compile(pattern); !status.ok()) return status;
      result->stages_.push_back(std::move(stage));
    }
    return result;
  }
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.pre: '", std::string(name),
                                                 "' is not supported (supported: ", supported,
                                                 ")"));
}

absl::Status PreTokenizer::Split(std::string_view text,
                                 std::vector<std::string_view>* words) const {
  const MatchData data(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  if (data == nullptr) return absl::ResourceExhaustedError("pre-tokenizer: out of memory");
  std::vector<std::string_view> pieces = {text}, next;
  for (size_t i = 0; i + 1 < stages_.size(); ++i) {
    next.clear();
    for (std::string_view piece : pieces) {
      if (absl::Status s = stages_[i]->Split(piece, data.get(), &next); !s.ok()) return s;
    }
    pieces.swap(next);
  }
  for (std::string_view piece : pieces) {
    if (absl::Status s = stages_.back()->Split(piece, data.get(), words); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace acuity::engine
