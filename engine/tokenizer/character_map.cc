#include "engine/tokenizer/character_map.h"

#include <utf8proc.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

namespace acuity::engine {
namespace {

constexpr size_t kUnitBytes = sizeof(uint32_t);
constexpr size_t kMaxWholeGrapheme = 5;  // bytes; longer ones are looked up by character

// A unit of a Darts-clone trie.
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Value(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t Label(uint32_t unit) { return unit & 0x800000FFu; }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

uint32_t Load(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < kUnitBytes; ++i) {
    value |= uint32_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  }
  return value;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const CharacterMap>> CharacterMap::Create(std::string_view blob) {
  const auto invalid = [&blob](const char* problem) {
    return absl::InvalidArgumentError(
        absl::StrCat("character map of ", blob.size(), " bytes: ", problem));
  };
  if (blob.size() < kUnitBytes) return invalid("its trie's length is cut off");
  const size_t trie_bytes = Load(blob, 0);
  if (trie_bytes == 0 || trie_bytes % kUnitBytes != 0 || trie_bytes > blob.size() - kUnitBytes) {
    return invalid("its trie's length is wrong");
  }
  auto map = std::make_unique<CharacterMap>();
  map->units_.resize(trie_bytes / kUnitBytes);
  for (size_t i = 0; i < map->units_.size(); ++i) {
    map->units_[i] = Load(blob, (i + 1) * kUnitBytes);
  }
  map->strings_ = std::string(blob.substr(kUnitBytes + trie_bytes));
  if (ValidUtf8Prefix(map->strings_) != map->strings_.size()) {
    return invalid("its strings are not valid UTF-8");
  }
  return std::unique_ptr<const CharacterMap>(std::move(map));
}

std::optional<std::string_view> CharacterMap::Find(std::string_view piece) const {
  uint32_t node = Offset(units_[0]);
  for (const char c : piece) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (byte == 0) break;
    node ^= byte;
    if (node >= units_.size() || Label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= Offset(unit);
    if (!HasLeaf(unit)) continue;
    const size_t at = node < units_.size() ? Value(units_[node]) : strings_.size();
    if (at >= strings_.size()) return std::nullopt;
    const std::string_view rest = std::string_view(strings_).substr(at);
    if ((static_cast<uint8_t>(rest[0]) & 0xC0) == 0x80) return std::nullopt;  // inside a character
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

void CharacterMap::AppendPiece(std::string_view grapheme, std::string* out) const {
  if (grapheme.size() <= kMaxWholeGrapheme) {
    if (const auto mapped = Find(grapheme)) {
      out->append(*mapped);
      return;
    }
  }
  for (size_t pos = 0; pos < grapheme.size();) {
    const std::string_view character =
        grapheme.substr(pos, DecodeUtf8(grapheme.substr(pos)).length);
    out->append(Find(character).value_or(character));
    pos += character.size();
  }
}

std::string CharacterMap::Apply(std::string_view text) const {
  std::string result;
  result.reserve(text.size());
  utf8proc_int32_t state = 0;
  size_t begin = 0;
  int32_t before = 0;
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = DecodeUtf8(text.substr(pos));
    const int32_t code = static_cast<int32_t>(c.code);
    if (pos > 0 && utf8proc_grapheme_break_stateful(before, code, &state)) {
      AppendPiece(text.substr(begin, pos - begin), &result);
      begin = pos;
    }
    before = code;
    pos += c.length;
  }
  if (begin < text.size()) AppendPiece(text.substr(begin), &result);
  return result;
}

}  // namespace acuity::engine
