#include "backend/cpu/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "backend/cpu/bandwidth.h"

namespace pensieve::backend::cpu {
namespace {

TEST(WorkerPool, RunsEveryChunkOnce) {
  for (const int threads : {1, 2, 5}) {
    WorkerPool pool(threads);
    for (const int64_t chunks : {0, 1, 2, 3, 17, 1000}) {
      std::vector<int> runs(static_cast<size_t>(chunks), 0);
      pool.Run(chunks, [&](int64_t chunk, int worker) {
        ASSERT_GE(worker, 0);
        ASSERT_LT(worker, threads);
        ++runs[static_cast<size_t>(chunk)];
      });
      for (const int count : runs) EXPECT_EQ(count, 1);
    }
  }
}

// Many small operations after one another, some after a pause in which workers fall asleep.
TEST(WorkerPool, ResultsAreVisibleAfterRun) {
  WorkerPool pool(3);
  std::vector<int64_t> values(64, 0);
  for (int round = 1; round <= 2000; ++round) {
    pool.Run(64, [&](int64_t chunk, int) { values[static_cast<size_t>(chunk)] += chunk; });
    const int64_t sum = std::accumulate(values.begin(), values.end(), int64_t{0});
    ASSERT_EQ(sum, int64_t{64} * 63 / 2 * round);
    if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// As many engine threads as models: every operation is whole, and no more threads compute than the pool has.
TEST(WorkerPool, CallersTakeTurns) {
  for (const int threads : {1, 3}) {
    WorkerPool pool(threads);
    std::atomic<int> computing{0};
    std::atomic<int> most{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller) {
      callers.emplace_back([&] {
        std::vector<int64_t> values(16, 0);
        for (int64_t round = 1; round <= 500; ++round) {
          pool.Run(16, [&](int64_t chunk, int) {
            const int now = ++computing;
            for (int seen = most.load(); seen < now && !most.compare_exchange_weak(seen, now);) {}
            values[static_cast<size_t>(chunk)] += chunk;
            --computing;
          });
          ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 120 * round);
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_LE(most.load(), threads);
  }
}

TEST(Bandwidth, IsMeasured) { EXPECT_GT(MeasureReadBandwidth(1), 0.0); }

// Small and large operations in turn, back to back: late workers of one meet the next. A worker that claims a chunk which
// does not exist makes the count of finished ones wrong, and Run waits for ever: the failure this test once had in some
// ten thousand operations is a time-out.
TEST(WorkerPool, LateWorkersNeverRunAChunkThatDoesNotExist) {
  for (const int threads : {2, 3}) {
    WorkerPool pool(threads);
    for (int64_t i = 0; i < 200000; ++i) {
      const int64_t chunks = i % 2 == 0 ? 2 : 40;
      std::atomic<int64_t> runs{0};
      std::atomic<bool> outside{false};
      pool.Run(chunks, [&](int64_t chunk, int) {
        if (chunk < 0 || chunk >= chunks) outside = true;
        ++runs;
      });
      ASSERT_FALSE(outside);
      ASSERT_EQ(runs, chunks);
    }
  }
}

}  // namespace
}  // namespace pensieve::backend::cpu
