// Drives the tokenizer from tokenizer_parity.py. Usage: tokenizer_dump MODEL.gguf [PRE_TOKENIZER]
// stdin: requests, each an operation byte, a 32-bit length and that many bytes of payload:
//   E text: encode as plain text           -> count, ids
//   S text: encode, parsing control tokens -> count, ids
//   D ids:  decode, control tokens spelled -> length, bytes; then the same of StreamDecoder
// stdout: the answers. All integers are 32 bits, little-endian.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/loader/checkpoint.h"
#include "engine/tokenizer/tokenizer.h"

namespace {

using acuity::engine::StreamDecoder;
using acuity::engine::TokenId;
using acuity::engine::Tokenizer;

void Write(const void* data, size_t bytes) { std::fwrite(data, 1, bytes, stdout); }

void WriteSized(const void* data, size_t count, size_t bytes) {
  const uint32_t n = static_cast<uint32_t>(count);
  Write(&n, sizeof(n));
  Write(data, bytes);
}

bool Answer(const Tokenizer& tokenizer, char operation, std::string_view payload) {
  if (operation == 'D') {
    std::vector<TokenId> ids(payload.size() / sizeof(TokenId));
    std::memcpy(ids.data(), payload.data(), ids.size() * sizeof(TokenId));
    const std::string text = tokenizer.Decode(ids, /*with_special=*/true);
    WriteSized(text.data(), text.size(), text.size());
    StreamDecoder stream(&tokenizer);
    std::string streamed;
    for (const TokenId id : ids) streamed += stream.Push(id);
    streamed += stream.Finish();
    WriteSized(streamed.data(), streamed.size(), streamed.size());
    return true;
  }
  const auto ids =
      tokenizer.Encode(payload, {.add_special = false, .parse_special = operation == 'S'});
  if (!ids.ok()) {
    std::cerr << ids.status() << "\n";
    return false;
  }
  WriteSized(ids->data(), ids->size(), ids->size() * sizeof(TokenId));
  return true;
}

int Run(const char* path, const char* pre_tokenizer) {
  const auto checkpoint = acuity::engine::Checkpoint::Open(path);
  if (!checkpoint.ok()) {
    std::cerr << checkpoint.status() << "\n";
    return 1;
  }
  acuity::engine::TokenizerSpec spec = (*checkpoint)->tokenizer();
  if (pre_tokenizer != nullptr) spec.pre_tokenizer = pre_tokenizer;
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = Tokenizer::Create(std::move(spec));
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  const auto created = std::chrono::steady_clock::now();
  const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
  const auto read = std::chrono::steady_clock::now();
  for (size_t pos = 0; pos + 5 <= input.size();) {
    uint32_t bytes = 0;
    std::memcpy(&bytes, &input[pos + 1], sizeof(bytes));
    if (!Answer(**tokenizer, input[pos], std::string_view(input).substr(pos + 5, bytes))) return 1;
    pos += 5 + bytes;
  }
  const auto milliseconds = [](auto duration) {
    return std::chrono::duration<double, std::milli>(duration).count();
  };
  std::cerr << "created in " << milliseconds(created - start) << " ms, answered in "
            << milliseconds(std::chrono::steady_clock::now() - read) << " ms\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: tokenizer_dump MODEL.gguf [PRE_TOKENIZER]\n";
    return 2;
  }
  std::ios::sync_with_stdio(false);
  return Run(argv[1], argc > 2 ? argv[2] : nullptr);
}
