#include "engine/tokenizer/byte_pair_merger.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"

namespace acuity::engine {

absl::StatusOr<BytePairMerger> BytePairMerger::Create(const std::vector<Merge>& merges) {
  BytePairMerger merger;
  merger.merges_.reserve(merges.size());
  for (const Merge& merge : merges) {
    const Merged merged{merge.rank, merge.result};
    if (!merger.merges_.emplace(Key(merge.left, merge.right), merged).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("the merge of tokens ", merge.left, " and ", merge.right, " occurs twice"));
    }
  }
  return merger;
}

// Looks up the merge at `position` with its successor and queues it.
void BytePairMerger::Queue(int32_t position, Scratch* scratch) const {
  Scratch::Symbol& symbol = scratch->symbols[position];
  symbol.rank = -1;
  if (symbol.next < 0) return;
  const auto it = merges_.find(Key(symbol.id, scratch->symbols[symbol.next].id));
  if (it == merges_.end()) return;
  symbol.rank = it->second.rank;
  symbol.result = it->second.result;
  scratch->heap.push_back(uint64_t{static_cast<uint32_t>(symbol.rank)} << 32 |
                          static_cast<uint32_t>(position));
}

void BytePairMerger::Apply(std::span<const TokenId> word, Scratch* scratch,
                           std::vector<TokenId>* out) const {
  auto& symbols = scratch->symbols;
  auto& heap = scratch->heap;
  symbols.clear();
  heap.clear();
  for (const TokenId id : word) {
    const int32_t n = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, n - 1, n + 1, -1, 0});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  for (size_t i = 0; i < symbols.size(); ++i) Queue(static_cast<int32_t>(i), scratch);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](int32_t position) {
    const size_t before = heap.size();
    Queue(position, scratch);
    if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    ++scratch->steps;
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const int32_t rank = static_cast<int32_t>(heap.back() >> 32);
    const int32_t position = static_cast<int32_t>(heap.back() & 0xFFFFFFFFu);
    heap.pop_back();
    Scratch::Symbol& symbol = symbols[position];
    if (symbol.rank != rank) continue;  // one of its sides was merged since
    Scratch::Symbol& right = symbols[symbol.next];
    symbol.id = symbol.result;
    symbol.next = right.next;
    right.rank = -1;
    if (symbol.next >= 0) symbols[symbol.next].previous = position;
    if (symbol.previous >= 0) push(symbol.previous);
    push(position);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) out->push_back(symbols[i].id);
}

}  // namespace acuity::engine
