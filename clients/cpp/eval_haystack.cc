#include "clients/cpp/eval_haystack.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "clients/cpp/eval_statistics.h"

namespace acuity::client {
namespace {

constexpr const char* kCities[] = {"Marlow", "Tromso", "Cadiz",  "Hobart", "Nagano", "Tartu",
                                   "Quito",  "Zadar",  "Bergen", "Pune",   "Lagos",  "Ghent"};
constexpr size_t kSearch = 600;  // bytes to look for a sentence's end in

// The first start of a character from `at` on.
size_t WholeFrom(const std::string& text, size_t at) {
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) ++at;
  return at;
}

// The first place from `from` on where a sentence may be put in.
size_t Gap(const std::string& text, size_t from) {
  for (const std::string_view end : {". ", " "}) {
    const size_t found = text.find(end, from);
    if (found != std::string::npos && found < from + kSearch) return found + end.size();
  }
  return std::min(WholeFrom(text, from), text.size());
}

}  // namespace

std::string Needle::sentence() const {
  return "The secret number of " + city + " is " + number + ". ";
}

std::string Needle::question() const {
  return "What is the secret number of " + city + "? Answer with the number only.";
}

std::string Needle::lead() const { return "The secret number of " + city + " is"; }

Needle MakeNeedle(uint64_t seed, uint64_t index) {
  std::mt19937_64 random = GeneratorOf(seed, index, 0);
  Needle needle;
  needle.city = kCities[Below(random, std::size(kCities))];
  needle.number = std::to_string(10000 + Below(random, 90000));
  return needle;
}

std::string Hide(const Haystack& haystack, size_t first, size_t tokens, int depth,
                 const std::string& sentence, size_t* at) {
  std::string text;
  size_t token = first % haystack.ends.size();
  while (tokens > 0) {
    const size_t count = std::min(tokens, haystack.ends.size() - token);
    const size_t begin = WholeFrom(haystack.text, token == 0 ? 0 : haystack.ends[token - 1]);
    const size_t end = WholeFrom(haystack.text, haystack.ends[token + count - 1]);
    text += haystack.text.substr(begin, end - begin);
    tokens -= count;
    token = 0;
  }
  const size_t wanted = text.size() * static_cast<size_t>(depth) / 100;
  *at = depth == 0 ? 0 : Gap(text, wanted);
  return text.insert(*at, sentence);
}

TokenPart TokensOfBytes(const std::vector<std::string>& pieces, size_t begin, size_t end) {
  TokenPart part;
  size_t at = 0;
  int index = 0;
  for (const std::string& piece : pieces) {
    if (at + piece.size() <= begin) part.first = index + 1;
    if (at < end) part.last = index + 1;
    at += piece.size();
    ++index;
  }
  return part;
}

}  // namespace acuity::client
