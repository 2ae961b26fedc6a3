// Threads that share the chunks of one operation with the thread that issues it.
//
// Any thread may call Run(); it works as worker 0 of its operation. Operations of several callers (one engine thread a
// model) run one after the other, in the order in which they came, each on all threads: so models share the processor
// evenly, and never compute with more threads than the pool has. Between operations the workers spin for a while, then
// sleep. Chunks are claimed one by one, so a worker that the system holds back delays nothing but its own chunk.
// Nothing is allocated after construction. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/mutex.h"

namespace pensieve::backend::cpu {

class WorkerPool {
 public:
  explicit WorkerPool(int threads);  // 1 and more, the caller's own included
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // fn(chunk, worker) for every chunk in [0, chunks), worker in [0, threads()). Returns when all are done; what they
  // wrote is then visible to the caller. One chunk alone is run by the caller at once, whoever else computes.
  template <typename Fn>
  void Run(int64_t chunks, Fn&& fn) {
    if (chunks <= 1) {
      if (chunks == 1) fn(0, 0);
      return;
    }
    using Plain = std::remove_reference_t<Fn>;
    const auto call = [](const void* context, int64_t chunk, int worker) {
      (*const_cast<Plain*>(static_cast<const Plain*>(context)))(chunk, worker);
    };
    RunShared(chunks, call, &fn);
  }

 private:
  // Whose operation runs: one caller's at a time, first come, first served.
  class Turns {
   public:
    void Take();
    void Pass();

   private:
    std::atomic<uint32_t> next_{0};
    std::atomic<uint32_t> now_{0};
  };

  using Function = void (*)(const void* context, int64_t chunk, int worker);

  void RunShared(int64_t chunks, Function function, const void* context);
  void WorkerMain(int worker);
  // Claims and runs chunks of generation `generation` until none is left.
  void Work(uint32_t generation, int worker);
  void Sleep(uint32_t seen);

  std::vector<std::thread> workers_;
  Turns turns_;  // guards the fields below, workers' claims apart
  // High half: generation, the number of the operation. Low half: how many of its chunks are unclaimed. A claim is a
  // compare and swap of the whole, and the fields below are read after it: then they are those of the claimed chunk.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<Function> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<uint32_t> chunks_{0};
  std::atomic<uint32_t> done_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  Mutex mutex_;
  Condition wake_;
};

}  // namespace pensieve::backend::cpu
