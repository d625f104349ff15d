// SentencePiece's precompiled character map, applied as Hugging Face's tokenizers apply it.
// Immutable after Create; thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace acuity::engine {

class CharacterMap {
 public:
  // `blob`: the bytes of a double-array trie (its length first, 32 bits, little-endian), then the
  // strings that its values point to, each ended by a zero byte. InvalidArgument if it is cut.
  static absl::StatusOr<std::unique_ptr<const CharacterMap>> Create(std::string_view blob);

  // Each grapheme of < 6 bytes that the map knows is replaced as a whole, else each of its
  // characters that the map knows. The shortest key that starts a piece decides, as in the original
  // (longer ones are there, but never used). REQUIRES: `text` is valid UTF-8.
  std::string Apply(std::string_view text) const;

 private:
  std::optional<std::string_view> Find(std::string_view piece) const;
  void AppendPiece(std::string_view grapheme, std::string* out) const;

  std::vector<uint32_t> units_;
  std::string strings_;
};

}  // namespace acuity::engine
