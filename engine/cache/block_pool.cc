#include "engine/cache/block_pool.h"

#include <openssl/evp.h>

#include <bit>
#include <cstring>
#include <memory>

#include "engine/base/check.h"

namespace acuity::engine {
namespace {

// One digest context per thread: EVP allocates when a context is made, not when it is started
// again.
class Sha256 {
 public:
  Sha256() : digest_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context_(EVP_MD_CTX_new()) {
    ACUITY_CHECK(digest_ != nullptr && context_ != nullptr);
  }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  ~Sha256() {
    EVP_MD_CTX_free(context_);
    EVP_MD_free(digest_);
  }

  // Of tag, head and body in a row. The tag keeps a root's input from ever being a chain's.
  BlockHash operator()(uint8_t tag, std::span<const uint8_t> head, std::span<const uint8_t> body) {
    BlockHash hash;
    unsigned size = 0;
    ACUITY_CHECK(EVP_DigestInit_ex(context_, digest_, nullptr) == 1 &&
                 EVP_DigestUpdate(context_, &tag, 1) == 1 &&
                 EVP_DigestUpdate(context_, head.data(), head.size()) == 1 &&
                 EVP_DigestUpdate(context_, body.data(), body.size()) == 1 &&
                 EVP_DigestFinal_ex(context_, hash.data(), &size) == 1 && size == hash.size());
    return hash;
  }

 private:
  EVP_MD* digest_;
  EVP_MD_CTX* context_;
};

Sha256& ThreadSha256() {
  thread_local Sha256 sha256;
  return sha256;
}

constexpr uint8_t kRootTag = 0, kChainTag = 1;

}  // namespace

BlockHash RootHash(std::string_view salt) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(salt.data());
  return ThreadSha256()(kRootTag, {}, {bytes, salt.size()});
}

BlockHash ChainHash(const BlockHash& parent, std::span<const TokenId> tokens) {
  // Hashes never leave the process, so the tokens go in as they lie in memory.
  const auto* bytes = reinterpret_cast<const uint8_t*>(tokens.data());
  return ThreadSha256()(kChainTag, parent, {bytes, tokens.size_bytes()});
}

BlockPool::BlockPool(int num_blocks, int block_size) : block_size_(block_size) {
  ACUITY_CHECK(num_blocks >= 1 && block_size >= 1);
  blocks_.resize(num_blocks);
  // Load factor <= 1 with every block findable.
  buckets_.assign(std::bit_ceil(static_cast<uint32_t>(num_blocks)), -1);
  for (int32_t i = num_blocks - 1; i >= 0; --i) PushFree(i);  // so that block 0 goes first
}

BlockPool::Block& BlockPool::At(BlockId block) {
  ACUITY_CHECK(block.value >= 0 && block.value < num_blocks());
  return blocks_[block.value];
}

int BlockPool::references(BlockId block) const {
  ACUITY_CHECK(block.value >= 0 && block.value < num_blocks());
  return blocks_[block.value].references;
}

std::optional<BlockId> BlockPool::Allocate() {
  const int32_t index = head_;
  if (index < 0) return std::nullopt;
  Unlink(index);
  Unpublish(index);
  blocks_[index].references = 1;
  return BlockId{index};
}

std::optional<BlockId> BlockPool::Acquire(const BlockHash& hash) {
  const int32_t index = Find(hash);
  if (index < 0) return std::nullopt;
  if (blocks_[index].references == 0) Unlink(index);
  ++blocks_[index].references;
  return BlockId{index};
}

void BlockPool::Publish(BlockId block, const BlockHash& hash) {
  Block& b = At(block);
  ACUITY_CHECK(b.references > 0);
  if (Find(hash) >= 0) return;
  Unpublish(block.value);
  int32_t* bucket = Bucket(hash);
  b.hash = hash;
  b.findable = true;
  b.next_in_bucket = *bucket;
  *bucket = block.value;
}

void BlockPool::Release(BlockId block) {
  Block& b = At(block);
  ACUITY_CHECK(b.references > 0);
  if (--b.references == 0) PushFree(block.value);
}

void BlockPool::Forget(BlockId block) {
  ACUITY_CHECK(At(block).references > 0);
  Unpublish(block.value);
}

int32_t* BlockPool::Bucket(const BlockHash& hash) {
  uint64_t bits;  // SHA-256 is uniform: any of its bits will do
  std::memcpy(&bits, hash.data(), sizeof bits);
  return &buckets_[bits & (buckets_.size() - 1)];
}

int32_t BlockPool::Find(const BlockHash& hash) {
  int32_t index = *Bucket(hash);
  while (index >= 0 && blocks_[index].hash != hash) index = blocks_[index].next_in_bucket;
  return index;
}

void BlockPool::Unpublish(int32_t index) {
  Block& b = blocks_[index];
  if (!b.findable) return;
  int32_t* link = Bucket(b.hash);
  while (*link != index) link = &blocks_[*link].next_in_bucket;
  *link = b.next_in_bucket;
  b.next_in_bucket = -1;
  b.findable = false;
}

void BlockPool::Unlink(int32_t index) {
  Block& b = blocks_[index];
  (b.previous < 0 ? head_ : blocks_[b.previous].next) = b.next;
  (b.next < 0 ? tail_ : blocks_[b.next].previous) = b.previous;
  b.previous = b.next = -1;
  --num_free_;
}

void BlockPool::PushFree(int32_t index) {
  Block& b = blocks_[index];
  if (b.findable) {
    b.previous = tail_;
    (tail_ < 0 ? head_ : blocks_[tail_].next) = index;
    tail_ = index;
  } else {  // nobody can reuse what it holds: it goes before all that somebody might
    b.next = head_;
    (head_ < 0 ? tail_ : blocks_[head_].previous) = index;
    head_ = index;
  }
  ++num_free_;
}

void BlockPool::CheckInvariants() const {
  int free = 0;
  bool findable_seen = false;
  for (int32_t i = head_, before = -1; i >= 0; before = i, i = blocks_[i].next) {
    ACUITY_CHECK(blocks_[i].references == 0 && blocks_[i].previous == before);
    ACUITY_CHECK(!findable_seen || blocks_[i].findable);
    ACUITY_CHECK(blocks_[i].next >= 0 || tail_ == i);
    ACUITY_CHECK(++free <= num_blocks());  // no cycle
    findable_seen = blocks_[i].findable;
  }
  ACUITY_CHECK(free == num_free_);
  int held = 0, findable = 0, chained = 0;
  for (const Block& b : blocks_) {
    held += b.references > 0;
    findable += b.findable;
    ACUITY_CHECK(b.references >= 0);
  }
  ACUITY_CHECK(free + held == num_blocks());
  auto* self = const_cast<BlockPool*>(this);
  for (const int32_t& head : buckets_) {
    for (int32_t i = head; i >= 0; i = blocks_[i].next_in_bucket) {
      ACUITY_CHECK(blocks_[i].findable && self->Bucket(blocks_[i].hash) == &head);
      ACUITY_CHECK(self->Find(blocks_[i].hash) == i);  // no two blocks with one hash
      ACUITY_CHECK(++chained <= findable);
    }
  }
  ACUITY_CHECK(chained == findable);
}

}  // namespace acuity::engine
