#include "clients/cpp/eval_text.h"

#include <algorithm>
#include <stdexcept>

namespace acuity::client {
namespace {

std::vector<int32_t> TokensOf(const EvalDaemon& daemon, const std::string& model,
                              const std::string& text) {
  v1::Prompt prompt;
  prompt.set_text(text);
  const v1::TokenizeResponse response = daemon.Tokenize(model, prompt);
  return {response.token_ids().begin(), response.token_ids().end()};
}

}  // namespace

std::vector<int32_t> TextPrefix(const EvalDaemon& daemon, const std::string& model) {
  std::vector<int32_t> prefix;
  for (const char* text : {"a", "7", "("}) {
    const std::vector<int32_t> tokens = TokensOf(daemon, model, text);
    if (tokens.size() < 2) return {};
    if (prefix.empty()) prefix = {tokens[0]};
    if (prefix[0] != tokens[0]) return {};
  }
  return prefix;
}

std::vector<std::vector<int32_t>> CutWindows(std::vector<int32_t> tokens,
                                             const std::vector<int32_t>& prefix, int length,
                                             int count) {
  if (std::equal(prefix.begin(), prefix.end(), tokens.begin(),
                 tokens.begin() + std::min<ptrdiff_t>(std::ssize(prefix), std::ssize(tokens)))) {
    tokens.erase(tokens.begin(), tokens.begin() + std::ssize(prefix));
  }
  const size_t step = static_cast<size_t>(length) - prefix.size();
  std::vector<std::vector<int32_t>> windows;
  for (size_t begin = 0; begin < tokens.size(); begin += step) {
    const size_t size = std::min(step, tokens.size() - begin);
    if (std::ssize(windows) == count || (size < step && begin > 0)) break;
    std::vector<int32_t>& window = windows.emplace_back(prefix);
    const auto from = tokens.begin() + static_cast<ptrdiff_t>(begin);
    window.insert(window.end(), from, from + static_cast<ptrdiff_t>(size));
  }
  return windows;
}

std::vector<std::vector<int32_t>> WindowsOfFiles(const EvalDaemon& daemon, const std::string& model,
                                                 const std::vector<std::string>& files, int length,
                                                 int count_of_each) {
  const std::vector<int32_t> prefix = TextPrefix(daemon, model);
  std::vector<std::vector<int32_t>> all;
  for (const std::string& file : files) {
    std::vector<int32_t> tokens = TokensOf(daemon, model, ReadText(file));
    for (auto& window : CutWindows(std::move(tokens), prefix, length, count_of_each)) {
      if (std::ssize(window) < 2) throw std::runtime_error(file + ": fewer than 2 tokens");
      all.push_back(std::move(window));
    }
  }
  return all;
}

}  // namespace acuity::client
