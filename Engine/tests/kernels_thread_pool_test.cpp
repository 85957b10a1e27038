#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <stdexcept>
#include <vector>

#include "kernels/thread_pool.h"

namespace blas_engine {
namespace {

TEST(ThreadPool, RunsEveryChunkOnce) {
    for (const int threads : {1, 2, 5}) {
        ThreadPool pool(threads);
        ASSERT_EQ(pool.threads(), threads);
        for (const int chunks : {0, 1, 2, 3, 7, 1000, 600000}) {
            std::vector<std::atomic<int>> seen(static_cast<size_t>(chunks));
            std::atomic<bool> bad_thread{false};
            pool.run(chunks, [&](int chunk, int thread) {
                seen[static_cast<size_t>(chunk)].fetch_add(1);
                if (thread < 0 || thread >= threads) bad_thread = true;
            });
            for (const auto& count : seen) ASSERT_EQ(count.load(), 1);
            ASSERT_FALSE(bad_thread);
        }
    }
}

TEST(ThreadPool, KeepsShortJobsApart) {
    ThreadPool pool(4);
    std::vector<int> values(16);
    for (int job = 0; job < 20000; ++job) {
        const int chunks = job % 15 + 2;
        pool.run(chunks, [&](int chunk, int) { values[static_cast<size_t>(chunk)] = job; });
        for (int chunk = 0; chunk < chunks; ++chunk) ASSERT_EQ(values[static_cast<size_t>(chunk)], job);
    }
}

TEST(ThreadPool, ReportsAnExceptionAndGoesOn) {
    ThreadPool pool(3);
    for (int i = 0; i < 50; ++i) {
        EXPECT_THROW(pool.run(10,
                              [](int chunk, int) {
                                  if (chunk == 4) throw std::runtime_error("no");
                              }),
                     std::runtime_error);
        std::atomic<int> sum{0};
        pool.run(10, [&](int chunk, int) { sum += chunk; });
        EXPECT_EQ(sum.load(), 45);
    }
}

TEST(ThreadPool, SleepsWhenIdleAndWakesUp) {
    ThreadPool pool(3);
    std::atomic<int> sum{0};
    pool.run(8, [&](int, int) { ++sum; });
    const auto cpu = [] { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; };
    // Workers spin for a while and then sleep: sooner or later time passes that costs no CPU time.
    bool idle = false;
    for (int i = 0; i < 200 && !idle; ++i) {
        const double before = cpu();
        timespec pause{0, 50'000'000};
        nanosleep(&pause, nullptr);
        idle = cpu() - before < 0.005;
    }
    EXPECT_TRUE(idle);
    pool.run(8, [&](int, int) { ++sum; });
    EXPECT_EQ(sum.load(), 16);
}

TEST(ThreadPool, CountsAtLeastOneCpu) {
    EXPECT_GE(usable_cpus(), 1);
    ThreadPool pool(0);
    EXPECT_EQ(pool.threads(), usable_cpus());
}

}  // namespace
}  // namespace blas_engine
