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

TEST(Bandwidth, IsMeasured) { EXPECT_GT(MeasureReadBandwidth(1), 0.0); }

// Short operations of changing size, back to back and with more threads than processors: late workers of one operation meet the next.
TEST(WorkerPool, LateWorkersNeverRunAChunkThatDoesNotExist) {
  WorkerPool pool(6);
  std::vector<std::atomic<int>> runs(64);
  for (int64_t i = 0; i < 20000; ++i) {
    const int64_t chunks = 2 + (i * 37) % 62;
    for (auto& count : runs) count.store(0);
    std::atomic<bool> outside{false};
    pool.Run(chunks, [&](int64_t chunk, int) {
      if (chunk < 0 || chunk >= chunks) {
        outside = true;
      } else {
        runs[static_cast<size_t>(chunk)].fetch_add(1);
      }
    });
    ASSERT_FALSE(outside);
    for (int64_t c = 0; c < chunks; ++c) ASSERT_EQ(runs[static_cast<size_t>(c)].load(), 1) << i;
  }
}

}  // namespace
}  // namespace pensieve::backend::cpu
