#include "backend/cpu/worker_pool.h"

#include <pthread.h>

#include <chrono>
#include <string>

#include "base/check.h"

namespace pensieve::backend::cpu {
namespace {

// About 100 microseconds: longer than the gap between two operations of a step, shorter than a scheduler's slice.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  // Not "yield", which most cores take for nothing: this one empties the pipeline, some tens of nanoseconds.
  asm volatile("isb");
#endif
}

void NameThread(int worker) {
#if defined(__linux__)
  ::pthread_setname_np(::pthread_self(), ("compute-" + std::to_string(worker)).c_str());
#else
  (void)worker;
#endif
}

uint32_t GenerationOf(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }
// Chunks of the operation that nobody has claimed yet.
uint32_t UnclaimedOf(uint64_t ticket) { return static_cast<uint32_t>(ticket); }

}  // namespace

WorkerPool::WorkerPool(int threads) {
  PENSIEVE_CHECK(threads >= 1);
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { WorkerMain(worker); });
  }
}

WorkerPool::~WorkerPool() {
  {
    const MutexLock lock(mutex_);
    stop_.store(true);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void WorkerPool::Turns::Take() {
  const uint32_t mine = next_.fetch_add(1, std::memory_order_relaxed);
  int spins = 0;
  for (uint32_t now = now_.load(std::memory_order_acquire); now != mine; now = now_.load(std::memory_order_acquire)) {
    ++spins < kSpins ? Pause() : now_.wait(now, std::memory_order_acquire);
  }
}

void WorkerPool::Turns::Pass() {
  now_.fetch_add(1, std::memory_order_release);
  now_.notify_all();
}

void WorkerPool::RunShared(int64_t chunks, Function function, const void* context) {
  PENSIEVE_CHECK(chunks < (int64_t{1} << 31));
  turns_.Take();
  // The ticket of the operation before has no chunk left, so nobody can claim one, and with it read what is stored here,
  // until the new ticket is out. (The count must be in the ticket: a late worker that compared an old ticket with a new
  // count would run a chunk that does not exist.)
  const uint32_t generation = GenerationOf(ticket_.load(std::memory_order_relaxed)) + 1;
  function_.store(function, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  chunks_.store(static_cast<uint32_t>(chunks), std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(static_cast<uint64_t>(generation) << 32 | static_cast<uint32_t>(chunks));
  if (sleepers_.load() > 0) {
    { const MutexLock lock(mutex_); }
    wake_.notify_all();
  }
  Work(generation, 0);
  for (int spins = 0; done_.load(std::memory_order_acquire) != static_cast<uint32_t>(chunks); ++spins) {
    // A worker that lost its processor in the middle of a chunk gets it back sooner when we yield ours.
    spins < kSpins ? Pause() : std::this_thread::yield();
  }
  turns_.Pass();
}

void WorkerPool::Work(uint32_t generation, int worker) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (GenerationOf(ticket) == generation && UnclaimedOf(ticket) > 0) {
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    // With a claimed chunk the operation cannot end, so these are its own.
    const Function function = function_.load(std::memory_order_relaxed);
    const uint32_t chunk = chunks_.load(std::memory_order_relaxed) - UnclaimedOf(ticket);
    function(context_.load(std::memory_order_relaxed), chunk, worker);
    done_.fetch_add(1, std::memory_order_release);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void WorkerPool::Sleep(uint32_t seen) {
  MutexLock lock(mutex_);
  sleepers_.fetch_add(1);
  wake_.wait(lock, [&]() PENSIEVE_REQUIRES(mutex_) { return stop_.load() || GenerationOf(ticket_.load()) != seen; });
  sleepers_.fetch_sub(1);
}

void WorkerPool::WorkerMain(int worker) {
  NameThread(worker);
  uint32_t seen = 0;
  int spins = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint32_t generation = GenerationOf(ticket_.load(std::memory_order_acquire));
    if (generation != seen) {
      seen = generation;
      spins = 0;
      Work(generation, worker);
    } else if (++spins < kSpins) {
      Pause();
    } else {
      Sleep(seen);
      spins = 0;
    }
  }
}

}  // namespace pensieve::backend::cpu
