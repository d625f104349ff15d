// Drives the tokenizer from the parity tests. Usage: tokenizer_dump MODEL.gguf | DIRECTORY
// stdin: requests, each an operation byte, a 32-bit length and that many bytes of payload:
//   E text: encode as plain text           -> count, ids
//   S text: encode, parsing control tokens -> count, ids
//   W text: the same, with what is put around a text
//   D ids:  decode, control tokens spelled -> length, bytes; then what StreamDecoder makes of them
// stdout: the answers. All integers are 32 bits, little-endian.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/loader/gguf.h"
#include "engine/loader/gguf_metadata.h"
#include "engine/loader/gguf_tokenizer.h"
#include "engine/loader/hf_tokenizer.h"
#include "engine/loader/mapped_file.h"
#include "engine/tokenizer/tokenizer.h"

namespace {

using acuity::engine::StreamDecoder;
using acuity::engine::TokenId;
using acuity::engine::Tokenizer;
using acuity::engine::TokenizerSpec;

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
    StreamDecoder stream(&tokenizer, StreamDecoder::From::kStart);
    std::string streamed;
    for (const TokenId id : ids) streamed += stream.Push(id);
    streamed += stream.Finish();
    WriteSized(streamed.data(), streamed.size(), streamed.size());
    return true;
  }
  const auto ids = tokenizer.Encode(
      payload, {.add_special = operation == 'W', .parse_special = operation != 'E'});
  if (!ids.ok()) {
    std::cerr << ids.status() << "\n";
    return false;
  }
  WriteSized(ids->data(), ids->size(), ids->size() * sizeof(TokenId));
  return true;
}

absl::StatusOr<TokenizerSpec> ReadSpec(const std::string& path) {
  if (std::filesystem::is_directory(path)) return acuity::engine::ReadHfTokenizer(path);
  const auto file = acuity::engine::MappedFile::Open(path, uint64_t{1} << 40);
  if (!file.ok()) return file.status();
  const auto gguf = acuity::engine::ParseGguf((*file)->bytes());
  if (!gguf.ok()) return gguf.status();
  acuity::engine::GgufMetadata metadata(&*gguf);
  return acuity::engine::ReadTokenizerSpec(&metadata);
}

int Run(const char* path) {
  auto spec = ReadSpec(path);
  if (!spec.ok()) {
    std::cerr << spec.status() << "\n";
    return 1;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = Tokenizer::Create(*std::move(spec));
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
  if (argc != 2) {
    std::cerr << "usage: tokenizer_dump MODEL.gguf | DIRECTORY\n";
    return 2;
  }
  std::ios::sync_with_stdio(false);
  return Run(argv[1]);
}
