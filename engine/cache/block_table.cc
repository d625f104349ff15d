#include "engine/cache/block_table.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace acuity::engine {

BlockTable::BlockTable(BlockPool* pool, std::string_view salt)
    : pool_(pool), root_(RootHash(salt)) {}

BlockTable::BlockTable(BlockTable&& other) noexcept { *this = std::move(other); }

BlockTable& BlockTable::operator=(BlockTable&& other) noexcept {
  if (this == &other) return *this;
  Clear();
  pool_ = other.pool_;
  blocks_ = std::exchange(other.blocks_, {});
  hashes_ = std::exchange(other.hashes_, {});
  published_ = std::exchange(other.published_, 0);
  root_ = other.root_;
  return *this;
}

BlockTable::~BlockTable() { Clear(); }

const BlockHash& BlockTable::HashOf(std::span<const TokenId> tokens, int index) {
  const size_t size = pool_->block_size();
  while (static_cast<int>(hashes_.size()) <= index) {
    const BlockHash& parent = hashes_.empty() ? root_ : hashes_.back();
    hashes_.push_back(ChainHash(parent, tokens.subspan(hashes_.size() * size, size)));
  }
  return hashes_[index];
}

int BlockTable::AcquirePrefix(std::span<const TokenId> tokens) {
  ACUITY_CHECK(blocks_.empty());
  if (tokens.empty()) return 0;
  const int usable = static_cast<int>((tokens.size() - 1) / pool_->block_size());
  for (int i = 0; i < usable; ++i) {
    const std::optional<BlockId> block = pool_->Acquire(HashOf(tokens, i));
    if (!block.has_value()) break;
    blocks_.push_back(*block);
  }
  published_ = static_cast<int>(blocks_.size());
  return published_ * pool_->block_size();
}

void BlockTable::Reserve(int num_tokens) {
  const int blocks = MissingBlocks(num_tokens) + static_cast<int>(blocks_.size());
  blocks_.reserve(blocks);
  hashes_.reserve(blocks);
}

int BlockTable::MissingBlocks(int num_tokens) const {
  const int64_t size = pool_->block_size();
  const int64_t blocks = (num_tokens + size - 1) / size;
  return static_cast<int>(std::max<int64_t>(0, blocks - static_cast<int64_t>(blocks_.size())));
}

bool BlockTable::Grow(int num_tokens) {
  const int missing = MissingBlocks(num_tokens);
  if (missing > pool_->free_blocks()) return false;
  for (int i = 0; i < missing; ++i) blocks_.push_back(*pool_->Allocate());
  return true;
}

void BlockTable::PublishComputed(std::span<const TokenId> tokens, int computed) {
  const int full = computed / pool_->block_size();
  ACUITY_CHECK(full <= static_cast<int>(blocks_.size()) &&
               computed <= static_cast<int64_t>(tokens.size()));
  for (; published_ < full; ++published_) {
    pool_->Publish(blocks_[published_], HashOf(tokens, published_));
  }
}

void BlockTable::Poison() {
  for (const BlockId block : blocks_) pool_->Forget(block);
  Clear();
}

void BlockTable::Clear() {
  while (!blocks_.empty()) {
    pool_->Release(blocks_.back());
    blocks_.pop_back();
  }
  published_ = 0;
}

}  // namespace acuity::engine
