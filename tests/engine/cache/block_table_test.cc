#include "engine/cache/block_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace acuity::engine {
namespace {

std::vector<TokenId> Iota(int size) {
  std::vector<TokenId> tokens(size);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

// A table that computed and published all of `tokens`.
BlockTable Computed(BlockPool* pool, std::span<const TokenId> tokens, std::string_view salt = "") {
  BlockTable table(pool, salt);
  EXPECT_TRUE(table.Grow(static_cast<int>(tokens.size())));
  table.PublishComputed(tokens, static_cast<int>(tokens.size()));
  return table;
}

TEST(BlockTable, CountsMissingBlocks) {
  BlockPool pool(10, 4);
  BlockTable table(&pool, "");
  const std::pair<int, int> cases[] = {{0, 0}, {1, 1}, {4, 1}, {5, 2}, {40, 10}, {41, 11}};
  for (const auto& [tokens, blocks] : cases) EXPECT_EQ(table.MissingBlocks(tokens), blocks);
  ASSERT_TRUE(table.Grow(5));
  EXPECT_EQ(table.blocks().size(), 2u);
  EXPECT_EQ(table.MissingBlocks(8), 0);
  EXPECT_EQ(table.MissingBlocks(1), 0);
  EXPECT_EQ(table.MissingBlocks(9), 1);
}

TEST(BlockTable, GrowTakesAllOrNothing) {
  BlockPool pool(3, 4);
  BlockTable table(&pool, "");
  ASSERT_TRUE(table.Grow(4));
  EXPECT_FALSE(table.Grow(13));
  EXPECT_EQ(table.blocks().size(), 1u);
  EXPECT_EQ(pool.free_blocks(), 2);
  EXPECT_TRUE(table.Grow(12));
  EXPECT_EQ(pool.free_blocks(), 0);
}

TEST(BlockTable, LeavesAtLeastOneTokenToCompute) {
  const auto tokens = Iota(13);
  for (int size = 1; size <= 13; ++size) {
    BlockPool pool(8, 4);
    const BlockTable first = Computed(&pool, tokens);
    BlockTable table(&pool, "");
    EXPECT_EQ(table.AcquirePrefix(std::span(tokens).first(size)), (size - 1) / 4 * 4);
    EXPECT_EQ(table.blocks().size(), (size - 1u) / 4);
  }
  BlockPool pool(1, 4);
  BlockTable table(&pool, "");
  EXPECT_EQ(table.AcquirePrefix({}), 0);
}

TEST(BlockTable, AcquiresTheLongestCommonPrefix) {
  BlockPool pool(20, 4);
  const BlockTable first = Computed(&pool, Iota(16));
  auto other = Iota(16);
  other[9] = 100;
  BlockTable table(&pool, "");
  EXPECT_EQ(table.AcquirePrefix(other), 8);
  EXPECT_EQ(table.blocks()[0], first.blocks()[0]);
  EXPECT_EQ(table.blocks()[1], first.blocks()[1]);
  // Equal blocks after a different one are not equal prefixes.
  other = Iota(16);
  other[0] = 100;
  BlockTable third(&pool, "");
  EXPECT_EQ(third.AcquirePrefix(other), 0);
}

TEST(BlockTable, SaltsShareNothing) {
  BlockPool pool(20, 4);
  const BlockTable first = Computed(&pool, Iota(16), "tenant");
  BlockTable none(&pool, ""), other(&pool, "tenant2"), same(&pool, "tenant");
  EXPECT_EQ(none.AcquirePrefix(Iota(16)), 0);
  EXPECT_EQ(other.AcquirePrefix(Iota(16)), 0);
  EXPECT_EQ(same.AcquirePrefix(Iota(16)), 12);
}

TEST(BlockTable, PublishesOnlyFullComputedBlocks) {
  BlockPool pool(20, 4);
  const auto tokens = Iota(20);
  BlockTable table(&pool, "");
  ASSERT_TRUE(table.Grow(20));
  for (int computed = 0; computed <= 20; ++computed) {
    table.PublishComputed(tokens, computed);
    BlockTable reader(&pool, "");
    EXPECT_EQ(reader.AcquirePrefix(tokens), std::min(computed / 4 * 4, 16));
  }
}

TEST(BlockTable, PrefixOutlivesItsContinuation) {
  BlockPool pool(4, 4);
  { const BlockTable table = Computed(&pool, Iota(16)); }
  EXPECT_EQ(pool.free_blocks(), 4);
  (void)pool.Allocate();  // evicts the last block, the first one to be released
  BlockTable reader(&pool, "");
  EXPECT_EQ(reader.AcquirePrefix(Iota(17)), 12);
}

TEST(BlockTable, ContinuesAfterAHitAndAfterClear) {
  BlockPool pool(20, 4);
  const auto tokens = Iota(16);
  const BlockTable first = Computed(&pool, std::span(tokens).first(8));
  BlockTable table(&pool, "");
  EXPECT_EQ(table.AcquirePrefix(tokens), 8);
  ASSERT_TRUE(table.Grow(16));
  table.PublishComputed(tokens, 16);
  table.Clear();
  EXPECT_TRUE(table.blocks().empty());
  EXPECT_EQ(table.AcquirePrefix(Iota(20)), 16);  // the tokens have grown meanwhile
  ASSERT_TRUE(table.Grow(20));
  table.PublishComputed(Iota(20), 20);
  table.Clear();
  EXPECT_EQ(table.AcquirePrefix(Iota(21)), 20);
  pool.CheckInvariants();
}

TEST(BlockTable, PublishesAfreshAfterClear) {
  BlockPool pool(4, 4);
  BlockTable table = Computed(&pool, Iota(16));
  table.Clear();
  BlockTable other(&pool, "");
  ASSERT_TRUE(other.Grow(16));  // evicts them all
  other.Clear();
  ASSERT_TRUE(table.Grow(16));
  table.PublishComputed(Iota(16), 16);
  BlockTable reader(&pool, "");
  EXPECT_EQ(reader.AcquirePrefix(Iota(17)), 16);
}

TEST(BlockTable, PoisonedBlocksAreNotFound) {
  BlockPool pool(8, 4);
  BlockTable table = Computed(&pool, Iota(8));
  BlockTable sharer(&pool, "");
  ASSERT_EQ(sharer.AcquirePrefix(Iota(9)), 8);
  table.Poison();
  EXPECT_TRUE(table.blocks().empty());
  EXPECT_EQ(pool.references(sharer.blocks()[0]), 1);
  BlockTable reader(&pool, "");
  EXPECT_EQ(reader.AcquirePrefix(Iota(9)), 0);
  sharer.Clear();
  EXPECT_EQ(reader.AcquirePrefix(Iota(9)), 0);
  EXPECT_EQ(pool.free_blocks(), 8);
  pool.CheckInvariants();
}

TEST(BlockTable, MovesAndGivesBack) {
  BlockPool pool(8, 4);
  BlockTable a(&pool, "");
  ASSERT_TRUE(a.Grow(8));
  BlockTable b(std::move(a));
  EXPECT_EQ(pool.held_blocks(), 2);
  BlockTable c(&pool, "");
  ASSERT_TRUE(c.Grow(4));
  c = std::move(b);
  EXPECT_EQ(pool.held_blocks(), 2);
  EXPECT_EQ(c.blocks().size(), 2u);
  c = BlockTable();
  EXPECT_EQ(pool.held_blocks(), 0);
}

}  // namespace
}  // namespace acuity::engine
