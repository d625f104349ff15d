#include "engine/cache/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>

namespace acuity::engine {
namespace {

BlockHash HashOf(TokenId token) { return ChainHash(RootHash(""), std::span(&token, 1)); }

std::string Hex(const BlockHash& hash) {
  std::string hex;
  for (const uint8_t byte : hash) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

TEST(BlockHash, IsSha256OfTagParentAndTokens) {
  // printf '\000salt' | sha256sum; the second: that digest after '\001', then 1 and 2 as int32.
  EXPECT_EQ(Hex(RootHash("salt")),
            "98bb14acb95c743fe1d4f5ccad604caf5c32b81c862eebda2257afb33cd0c5a4");
  const TokenId tokens[] = {1, 2};
  EXPECT_EQ(Hex(ChainHash(RootHash("salt"), tokens)),
            "31fba599f333edd18bee1e7e890a56cbedd4293c13710c234178fe41a84efd0e");
}

TEST(BlockHash, TellsSaltsPrefixesAndLengthsApart) {
  const TokenId tokens[] = {1, 2, 3, 0};
  std::set<BlockHash> seen;
  for (const char* salt : {"", "a", "b", "ab"}) {
    const BlockHash root = RootHash(salt);
    EXPECT_TRUE(seen.insert(root).second);
    for (size_t n = 1; n <= 4; ++n) {
      EXPECT_TRUE(seen.insert(ChainHash(root, std::span(tokens, n))).second);
    }
    EXPECT_TRUE(seen.insert(ChainHash(ChainHash(root, std::span(tokens, 2)), {})).second);
  }
  // A salt that spells a parent's hash and tokens is still a salt.
  const BlockHash root = RootHash("");
  const std::string forged = std::string("\1") + std::string(root.begin(), root.end());
  EXPECT_NE(RootHash(forged), ChainHash(root, {}));
  EXPECT_NE(RootHash(forged.substr(1)), ChainHash(root, {}));
}

TEST(BlockPool, AllocatesEachBlockOnce) {
  BlockPool pool(5, 16);
  std::set<int> ids;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(pool.free_blocks(), 5 - i);
    ids.insert(pool.Allocate()->value);
    pool.CheckInvariants();
  }
  EXPECT_EQ(ids, (std::set<int>{0, 1, 2, 3, 4}));
  EXPECT_FALSE(pool.Allocate().has_value());
  EXPECT_EQ(pool.held_blocks(), 5);
}

TEST(BlockPool, OneBlock) {
  BlockPool pool(1, 1);
  const BlockId block = *pool.Allocate();
  pool.Publish(block, HashOf(1));
  pool.Release(block);
  pool.CheckInvariants();
  EXPECT_EQ(pool.Acquire(HashOf(1)), block);
  pool.Release(block);
  EXPECT_EQ(pool.Allocate(), block);
  EXPECT_FALSE(pool.Acquire(HashOf(1)).has_value());
}

TEST(BlockPool, SharedBlockIsFreeAfterItsLastReference) {
  BlockPool pool(2, 4);
  const BlockId block = *pool.Allocate();
  pool.Publish(block, HashOf(1));
  EXPECT_EQ(pool.Acquire(HashOf(1)), block);
  EXPECT_EQ(pool.references(block), 2);
  pool.Release(block);
  EXPECT_EQ(pool.free_blocks(), 1);
  pool.Release(block);
  EXPECT_EQ(pool.free_blocks(), 2);
  EXPECT_EQ(pool.references(block), 0);
}

TEST(BlockPool, TakesUnfindableThenLeastRecentlyFreed) {
  BlockPool pool(4, 4);
  BlockId blocks[4];
  for (BlockId& block : blocks) block = *pool.Allocate();
  for (const int i : {0, 1, 3}) pool.Publish(blocks[i], HashOf(i));
  for (const int i : {3, 0, 2, 1}) pool.Release(blocks[i]);
  // Used again: 3 is now the most recently freed.
  pool.Release(*pool.Acquire(HashOf(3)));
  pool.CheckInvariants();
  for (const int i : {2, 0, 1, 3}) {
    EXPECT_EQ(pool.Allocate(), blocks[i]);
    EXPECT_FALSE(pool.Acquire(HashOf(i)).has_value());
  }
}

TEST(BlockPool, SecondBlockOfOneContentStaysUnfindable) {
  BlockPool pool(3, 4);
  const BlockId first = *pool.Allocate(), second = *pool.Allocate();
  pool.Publish(first, HashOf(1));
  pool.Publish(second, HashOf(1));
  pool.CheckInvariants();
  EXPECT_EQ(pool.Acquire(HashOf(1)), first);
  pool.Release(first);
  pool.Forget(second);  // takes nothing from the first
  EXPECT_EQ(pool.Acquire(HashOf(1)), first);
}

TEST(BlockPool, ForgottenBlockIsNotFound) {
  BlockPool pool(2, 4);
  const BlockId block = *pool.Allocate();
  pool.Publish(block, HashOf(1));
  pool.Forget(block);
  EXPECT_FALSE(pool.Acquire(HashOf(1)).has_value());
  pool.Release(block);
  EXPECT_FALSE(pool.Acquire(HashOf(1)).has_value());
  pool.CheckInvariants();
}

TEST(BlockPoolDeathTest, RefusesWhatOnlyABugDoes) {
  EXPECT_DEATH(BlockPool(0, 1), "check failed");
  EXPECT_DEATH(BlockPool(1, 0), "check failed");
  BlockPool pool(1, 1);
  EXPECT_DEATH(pool.Release(BlockId{0}), "check failed");
  EXPECT_DEATH(pool.Publish(BlockId{0}, HashOf(1)), "check failed");
  EXPECT_DEATH(pool.Forget(BlockId{0}), "check failed");
  EXPECT_DEATH(pool.references(BlockId{1}), "check failed");
}

// Against a model that keeps contents in plain maps.
TEST(BlockPool, RandomOperationsAgreeWithAModel) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    const int size = 1 + static_cast<int>(random() % 20);
    BlockPool pool(size, 4);
    std::vector<int> references(size, 0), content(size, -1);
    for (int i = 0; i < 2000; ++i) {
      const BlockId block{static_cast<int>(random() % size)};
      const int token = static_cast<int>(random() % 12);
      const auto owner = std::find(content.begin(), content.end(), token) - content.begin();
      switch (random() % 5) {
        case 0:
          if (const auto taken = pool.Allocate()) {
            ASSERT_EQ(references[taken->value]++, 0);
            content[taken->value] = -1;
          } else {
            ASSERT_EQ(std::count(references.begin(), references.end(), 0), 0);
          }
          break;
        case 1:
          if (const auto found = pool.Acquire(HashOf(token))) {
            ASSERT_EQ(found->value, owner);
            ++references[found->value];
          } else {
            ASSERT_EQ(owner, size);
          }
          break;
        case 2:
          if (references[block.value] == 0 || content[block.value] >= 0) break;
          pool.Publish(block, HashOf(token));
          if (owner == size) content[block.value] = token;
          break;
        case 3:
          if (references[block.value] == 0) break;
          pool.Release(block);
          --references[block.value];
          break;
        default:
          if (references[block.value] == 0 || random() % 4 != 0) break;
          pool.Forget(block);
          content[block.value] = -1;
      }
      ASSERT_EQ(pool.free_blocks(), std::count(references.begin(), references.end(), 0));
      pool.CheckInvariants();
    }
  }
}

}  // namespace
}  // namespace acuity::engine
