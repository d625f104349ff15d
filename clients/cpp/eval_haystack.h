// A sentence with a number, hidden in a text: the needle for models that know language.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acuity::client {

struct Needle {
  std::string city, number;  // drawn
  std::string sentence() const;
  std::string question() const;
  // How a text goes on to the answer, for models without a chat template.
  std::string lead() const;
};

// A function of its arguments.
Needle MakeNeedle(uint64_t seed, uint64_t index);

// A text as a model's tokens: where each ends.
struct Haystack {
  std::string text;
  std::vector<size_t> ends;  // [tokens] bytes of `text` up to and with each token
};

// About `tokens` tokens of the haystack from token `first` on, going round at its end, with
// `sentence` at the first end of a sentence, else of a word, after `depth` percent of it. Cut at
// whole characters. `at` becomes the byte where the sentence starts.
std::string Hide(const Haystack& haystack, size_t first, size_t tokens, int depth,
                 const std::string& sentence, size_t* at);

// The tokens, out of a text's [tokens] pieces, that hold any of its bytes [begin, end): [first,
// last).
struct TokenPart {
  int first = 0, last = 0;
};
TokenPart TokensOfBytes(const std::vector<std::string>& pieces, size_t begin, size_t end);

}  // namespace acuity::client
