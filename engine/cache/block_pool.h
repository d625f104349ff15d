// The paged KV cache's book-keeping: which fixed-size blocks are free, held, or free but still
// findable by content. Knows blocks, never sequences. Owned by the engine thread; not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"

namespace acuity::engine {

// SHA-256 of (parent hash, salt at the root, the block's tokens): equal only for equal prefixes of
// one tenant's salt.
using BlockHash = std::array<uint8_t, 32>;

BlockHash RootHash(std::string_view salt);
BlockHash ChainHash(const BlockHash& parent, std::span<const TokenId> tokens);

class BlockPool {
 public:
  // REQUIRES num_blocks >= 1, block_size >= 1.
  BlockPool(int num_blocks, int block_size);

  // A block with one reference, or nullopt if all are held. Takes a free block that is not findable
  // if there is one, else the least recently freed, and forgets its hash.
  std::optional<BlockId> Allocate();
  // The held or free block with this content, with one more reference; nullopt if there is none.
  std::optional<BlockId> Acquire(const BlockHash& hash);
  // Says what a full block holds, so that Acquire finds it. REQUIRES a held block. If another block
  // already has this hash, this one stays unfindable.
  void Publish(BlockId block, const BlockHash& hash);
  // Drops one reference. The last one frees the block; its content stays findable until Allocate
  // takes it.
  void Release(BlockId block);
  // Makes a block unfindable (its content is not to be trusted). REQUIRES a held block.
  void Forget(BlockId block);

  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  int block_size() const { return block_size_; }
  int free_blocks() const { return num_free_; }  // includes free-but-findable ones
  int held_blocks() const { return num_blocks() - num_free_; }
  // How many tables hold the block. More than one: it is shared, and must not be written to.
  int references(BlockId block) const;

  // Aborts unless free + held == total, every list link is sound and every findable hash points
  // back. For tests.
  void CheckInvariants() const;

 private:
  struct Block {
    int32_t references = 0;
    int32_t previous = -1, next = -1;  // in the free list
    int32_t next_in_bucket = -1;       // in the hash table, while findable
    bool findable = false;
    BlockHash hash{};
  };
  Block& At(BlockId block);
  void Unlink(int32_t index);
  void PushFree(int32_t index);
  int32_t* Bucket(const BlockHash& hash);
  int32_t Find(const BlockHash& hash);
  void Unpublish(int32_t index);

  std::vector<Block> blocks_;
  std::vector<int32_t> buckets_;  // chains through next_in_bucket: a hash table of fixed size
  // The free list: blocks that are not findable, then the others, least recently freed first.
  int32_t head_ = -1, tail_ = -1;
  int num_free_ = 0;
  int block_size_;
};

}  // namespace acuity::engine
