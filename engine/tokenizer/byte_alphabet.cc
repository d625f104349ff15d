#include "engine/tokenizer/byte_alphabet.h"

#include <array>

#include "engine/tokenizer/utf8.h"

namespace acuity::engine {
namespace {

struct ByteAlphabet {
  std::array<uint16_t, 256> code{};   // byte -> character
  std::array<int16_t, 0x144> byte{};  // character -> byte, or -1

  ByteAlphabet() {
    byte.fill(-1);
    uint16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      code[b] = printable ? static_cast<uint16_t>(b) : next++;
      byte[code[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& Alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

std::string SpellByte(uint8_t byte) {
  std::string spelling;
  AppendUtf8(Alphabet().code[byte], &spelling);
  return spelling;
}

void AppendSpelledBytes(std::string_view spelling, std::string* out) {
  const size_t start = out->size();
  for (size_t pos = 0; pos < spelling.size();) {
    const Utf8Char c = DecodeUtf8(spelling.substr(pos));
    if (c.state != Utf8Char::State::kValid || c.code >= Alphabet().byte.size() ||
        Alphabet().byte[c.code] < 0) {
      out->resize(start);
      out->append(spelling);
      return;
    }
    out->push_back(static_cast<char>(Alphabet().byte[c.code]));
    pos += c.length;
  }
}

}  // namespace acuity::engine
