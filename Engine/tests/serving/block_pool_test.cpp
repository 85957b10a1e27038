#include "core/block_pool.h"

#include <gtest/gtest.h>

#include <vector>

namespace blas_engine {
namespace {

BlockHash content(uint64_t n) { return {n, ~n}; }

TEST(BlockPool, EvictsTheBlockFreedLongestAgo) {
    BlockPool pool(3, true);
    int32_t a = pool.allocate(), b = pool.allocate(), c = pool.allocate();
    EXPECT_EQ(pool.num_free(), 0);
    pool.publish(a, content(1));
    pool.publish(b, content(2));
    pool.publish(c, content(3));
    pool.release(b);
    pool.release(a);
    EXPECT_EQ(pool.allocate(), b);
    EXPECT_FALSE(pool.find(content(2)));
    EXPECT_EQ(pool.find(content(1)), a);
    EXPECT_EQ(pool.find(content(3)), c);
}

TEST(BlockPool, RevivesACachedFreeBlock) {
    BlockPool pool(2, true);
    int32_t a = pool.allocate();
    pool.publish(a, content(1));
    pool.release(a);
    EXPECT_EQ(pool.num_free(), 2);
    pool.retain(a);
    EXPECT_EQ(pool.num_free(), 1);
    EXPECT_NE(pool.allocate(), a);
    EXPECT_EQ(pool.find(content(1)), a);
    pool.retain(a);
    pool.release(a);
    EXPECT_FALSE(pool.is_free(a));
}

TEST(BlockPool, KeepsTheFirstCopyOfEqualContent) {
    BlockPool pool(2, true);
    int32_t a = pool.allocate(), b = pool.allocate();
    pool.publish(a, content(1));
    pool.publish(b, content(1));
    EXPECT_EQ(pool.find(content(1)), a);
    pool.release(b);
    pool.allocate();  // takes b, whose content was never the cached one
    EXPECT_EQ(pool.find(content(1)), a);
}

TEST(BlockPool, ResetsOnlyWhenNothingIsInUse) {
    BlockPool pool(2, true);
    int32_t a = pool.allocate();
    pool.publish(a, content(1));
    EXPECT_FALSE(pool.reset_cache());
    EXPECT_TRUE(pool.find(content(1)));
    pool.release(a);
    EXPECT_TRUE(pool.reset_cache());
    EXPECT_FALSE(pool.find(content(1)));
    EXPECT_EQ(pool.usage(), 0);
}

// Reference values of SipHash-2-4-128 for key 00..0f and messages 00, 00 01, ... (from its authors' test vectors).
TEST(BlockHash, IsSipHash128) {
    BlockHasher hasher(0x0706050403020100, 0x0f0e0d0c0b0a0908);
    EXPECT_EQ(hasher.hash({}), (BlockHash{0xe6a825ba047f81a3, 0x930255c71472f66d}));
    const uint8_t one[] = {0};
    EXPECT_EQ(hasher.hash(one), (BlockHash{0x44af996bd8c187da, 0x45fc229b11597634}));
}

TEST(BlockHash, DependsOnParentSaltAndTokens) {
    BlockHasher hasher(1, 2);
    const std::vector<int32_t> tokens = {1, 2, 3, 4};
    const std::vector<int32_t> others = {1, 2, 3, 5};
    BlockHash plain = hasher.chain(hasher.root(""), tokens);
    EXPECT_EQ(plain, hasher.chain(hasher.root(""), tokens));
    EXPECT_NE(plain, hasher.chain(hasher.root("salt"), tokens));
    EXPECT_NE(plain, hasher.chain(hasher.root(""), others));
    EXPECT_NE(plain, hasher.chain(plain, tokens));
    EXPECT_NE(plain, BlockHasher(1, 3).chain(BlockHasher(1, 3).root(""), tokens));
}

}  // namespace
}  // namespace blas_engine
