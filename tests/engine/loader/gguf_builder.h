// Writes GGUF files for tests, valid ones and, on request, damaged ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/loader/dequantise.h"
#include "engine/loader/gguf.h"

namespace acuity::engine::testing {

using Bytes = std::vector<uint8_t>;

template <typename T>
void Append(T value, Bytes* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  for (size_t i = 0; i < sizeof(value); ++i) out->push_back(bytes[i]);
}

inline void AppendString(std::string_view text, Bytes* out) {
  Append<uint64_t>(text.size(), out);
  out->insert(out->end(), text.begin(), text.end());
}

class GgufBuilder {
 public:
  struct Entry {
    std::string key;
    uint32_t type = 0;
    Bytes value;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;
    uint32_t type = 0;
    std::optional<uint64_t> offset;  // the next aligned one if not set
  };

  // What the header says, if not the truth.
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> num_keys, num_tensors;
  uint64_t alignment = 32;  // of the data; general.alignment is a key like any other
  std::vector<Entry> entries;
  std::vector<Tensor> tensors;

  // Replaces the key's value, or adds the key.
  void SetRaw(const std::string& key, GgufType type, Bytes value) {
    Entry entry{key, static_cast<uint32_t>(type), std::move(value)};
    const auto at = std::find_if(entries.begin(), entries.end(),
                                 [&key](const Entry& e) { return e.key == key; });
    if (at != entries.end()) {
      *at = std::move(entry);
    } else {
      entries.push_back(std::move(entry));
    }
  }
  template <typename T>
  void SetNumber(const std::string& key, GgufType type, T number) {
    Bytes value;
    Append(number, &value);
    SetRaw(key, type, std::move(value));
  }
  void SetUint32(const std::string& key, uint32_t number) {
    SetNumber(key, GgufType::kUint32, number);
  }
  void SetFloat(const std::string& key, float number) {
    SetNumber(key, GgufType::kFloat32, number);
  }
  void SetBool(const std::string& key, uint8_t number) { SetNumber(key, GgufType::kBool, number); }
  void SetString(const std::string& key, std::string_view text) {
    Bytes value;
    AppendString(text, &value);
    SetRaw(key, GgufType::kString, std::move(value));
  }
  void SetStrings(const std::string& key, const std::vector<std::string>& strings) {
    Bytes value;
    Append(static_cast<uint32_t>(GgufType::kString), &value);
    Append<uint64_t>(strings.size(), &value);
    for (const std::string& text : strings) AppendString(text, &value);
    SetRaw(key, GgufType::kArray, std::move(value));
  }
  void SetInt32s(const std::string& key, const std::vector<int32_t>& numbers) {
    Bytes value;
    Append(static_cast<uint32_t>(GgufType::kInt32), &value);
    Append<uint64_t>(numbers.size(), &value);
    for (const int32_t number : numbers) Append(number, &value);
    SetRaw(key, GgufType::kArray, std::move(value));
  }
  void RemoveKey(const std::string& key) {
    std::erase_if(entries, [&key](const Entry& entry) { return entry.key == key; });
  }

  void AddTensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type) {
    tensors.push_back({name, std::move(dims), type, std::nullopt});
  }
  void RemoveTensor(const std::string& name) {
    std::erase_if(tensors, [&name](const Tensor& tensor) { return tensor.name == name; });
  }
  // REQUIRES: there is one of that name.
  Tensor& tensor(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&name](const Tensor& tensor) { return tensor.name == name; });
  }

  // The file, ending at the last byte of the last tensor. Tensors without an explicit offset follow
  // each other; their bytes are small, so that a float16 read from them is finite.
  Bytes Build() const {
    Bytes file(magic.begin(), magic.end());
    Append(version, &file);
    Append<uint64_t>(num_tensors.value_or(tensors.size()), &file);
    Append<uint64_t>(num_keys.value_or(entries.size()), &file);
    for (const Entry& entry : entries) {
      AppendString(entry.key, &file);
      Append(entry.type, &file);
      file.insert(file.end(), entry.value.begin(), entry.value.end());
    }
    uint64_t end = 0;
    for (const Tensor& tensor : tensors) {
      const uint64_t offset = tensor.offset.value_or(Aligned(end));
      AppendString(tensor.name, &file);
      Append(static_cast<uint32_t>(tensor.dims.size()), &file);
      for (const uint64_t dim : tensor.dims) Append(dim, &file);
      Append(tensor.type, &file);
      Append(offset, &file);
      if (!tensor.offset.has_value()) end = offset + DataBytes(tensor);
    }
    const size_t data_begin = Aligned(file.size());
    const size_t size = end == 0 ? file.size() : data_begin + end;
    while (file.size() < size) file.push_back(static_cast<uint8_t>(file.size() * 7 % 0x3b));
    return file;
  }

 private:
  uint64_t Aligned(uint64_t position) const {
    return (position + alignment - 1) / alignment * alignment;
  }
  // As the file should have; 0 for types and shapes that no reader takes.
  static uint64_t DataBytes(const Tensor& tensor) {
    const TensorType* type = FindTensorType(tensor.type);
    uint64_t elements = 1;
    for (const uint64_t dim : tensor.dims) elements *= dim;
    if (type == nullptr || elements > (1u << 20)) return 0;
    return elements / static_cast<uint64_t>(type->elements_per_block) *
           static_cast<uint64_t>(type->bytes_per_block);
  }
};

// A valid model of about 7 KB: 1 layer, 2 heads of 16 and 1 KV head, width 32, 8 tokens, tied
// embeddings.
inline GgufBuilder TinyLlama() {
  constexpr uint32_t kF32 = 0, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8;
  GgufBuilder b;
  b.SetString("general.architecture", "llama");
  b.SetString("general.name", "tiny");
  b.SetUint32("general.quantization_version", 2);
  b.SetUint32("llama.block_count", 1);
  b.SetUint32("llama.context_length", 64);
  b.SetUint32("llama.embedding_length", 32);
  b.SetUint32("llama.feed_forward_length", 32);
  b.SetUint32("llama.attention.head_count", 2);
  b.SetUint32("llama.attention.head_count_kv", 1);
  b.SetFloat("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  b.SetFloat("llama.rope.freq_base", 10000.0f);
  b.SetUint32("llama.rope.dimension_count", 16);
  b.SetUint32("llama.vocab_size", 8);
  b.SetString("tokenizer.ggml.model", "gpt2");
  b.SetString("tokenizer.ggml.pre", "smollm");
  b.SetStrings("tokenizer.ggml.tokens",
               {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "ab", "abc"});
  b.SetInt32s("tokenizer.ggml.token_type", {3, 3, 3, 1, 1, 1, 1, 1});
  b.SetStrings("tokenizer.ggml.merges", {"a b", "ab c"});
  b.SetUint32("tokenizer.ggml.bos_token_id", 1);
  b.SetUint32("tokenizer.ggml.eos_token_id", 2);
  b.SetBool("tokenizer.ggml.add_bos_token", 0);
  b.SetString("tokenizer.chat_template", "{{ messages }}");
  b.AddTensor("token_embd.weight", {32, 8}, kQ8_0);
  b.AddTensor("blk.0.attn_norm.weight", {32}, kF32);
  b.AddTensor("blk.0.attn_q.weight", {32, 32}, kQ4_1);
  b.AddTensor("blk.0.attn_k.weight", {32, 16}, kQ4_1);
  b.AddTensor("blk.0.attn_v.weight", {32, 16}, kQ4_1);
  b.AddTensor("blk.0.attn_output.weight", {32, 32}, kQ4_1);
  b.AddTensor("blk.0.ffn_norm.weight", {32}, kF32);
  b.AddTensor("blk.0.ffn_gate.weight", {32, 32}, kQ4_0);
  b.AddTensor("blk.0.ffn_up.weight", {32, 32}, kQ4_0);
  b.AddTensor("blk.0.ffn_down.weight", {32, 32}, kQ4_0);
  b.AddTensor("output_norm.weight", {32}, kF32);
  return b;
}

inline void AppendUtf8(int code, std::string* text) {  // below U+0800
  if (code >= 0x80) *text += static_cast<char>(0xc0 | code >> 6);
  *text += static_cast<char>(code < 0x80 ? code : 0x80 | (code & 0x3f));
}

// TinyLlama whose vocabulary has a token for each byte, without which no tokenizer is made: 3
// special tokens, 256 bytes, 2 merges.
inline GgufBuilder ServableLlama() {
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (int byte = 0, next = 256; byte < 256; ++byte) {  // GPT-2's letters for bytes
    const bool printable = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    AppendUtf8(printable ? byte : next++, &tokens.emplace_back());
  }
  tokens.insert(tokens.end(), {"ab", "abc"});
  std::vector<int32_t> types(tokens.size(), 1);
  std::fill_n(types.begin(), 3, 3);
  GgufBuilder b = TinyLlama();
  b.SetUint32("llama.vocab_size", static_cast<uint32_t>(tokens.size()));
  b.SetStrings("tokenizer.ggml.tokens", tokens);
  b.SetInt32s("tokenizer.ggml.token_type", types);
  b.tensor("token_embd.weight").dims = {32, tokens.size()};
  return b;
}

}  // namespace acuity::engine::testing
