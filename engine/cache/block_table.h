// One sequence's logical-to-physical block map. Move-only; gives its blocks back to the pool when
// it goes. A sequence's tokens are only ever appended to, so the hash of a full block is computed
// once and kept, even when the blocks are given back: every call on one table must be about the
// same, growing, tokens.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "engine/cache/block_pool.h"

namespace acuity::engine {

class BlockTable {
 public:
  BlockTable() = default;
  explicit BlockTable(BlockPool* pool, std::string_view salt);
  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(BlockTable&& other) noexcept;
  ~BlockTable();  // Clear

  // Takes findable blocks for the longest prefix of `tokens`, at most tokens.size() - 1 of them
  // (one token must be computed to have logits). Returns the number of tokens that need not be
  // computed. REQUIRES an empty table.
  int AcquirePrefix(std::span<const TokenId> tokens);
  // Room for num_tokens in this object's own arrays, so that growing to it does not allocate
  // memory. Takes no blocks.
  void Reserve(int num_tokens);
  // How many more blocks are needed to hold num_tokens.
  int MissingBlocks(int num_tokens) const;
  // Grows to hold num_tokens; false, with nothing changed, if the pool lacks the blocks.
  bool Grow(int num_tokens);
  // Publishes every full block among the first `computed` of `tokens` that is not yet published.
  void PublishComputed(std::span<const TokenId> tokens, int computed);
  // Makes all of this table's blocks unfindable, then releases them: their content is corrupt.
  void Poison();
  // Releases every block, last first, so that a prefix outlives its continuations in the free list.
  void Clear();

  std::span<const BlockId> blocks() const { return blocks_; }

 private:
  const BlockHash& HashOf(std::span<const TokenId> tokens, int index);

  BlockPool* pool_ = nullptr;
  std::vector<BlockId> blocks_;
  std::vector<BlockHash> hashes_;  // of the first full blocks of tokens, as far as ever asked for
  int published_ = 0;              // the first blocks_, which Publish was told of or Acquire found
  BlockHash root_{};
};

}  // namespace acuity::engine
