// A mutex whose use clang checks (-Wthread-safety, `make thread-safety`): members say which mutex guards them, functions
// which one they need. Other compilers see plain std::mutex and std::condition_variable.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <utility>

#if defined(__clang__)
#define PENSIEVE_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define PENSIEVE_THREAD_ANNOTATION(x)
#endif

// Of a member: read and written only while `mutex` is held.
#define PENSIEVE_GUARDED_BY(mutex) PENSIEVE_THREAD_ANNOTATION(guarded_by(mutex))
// Of a function or lambda: to be called only while `mutex` is held.
#define PENSIEVE_REQUIRES(mutex) PENSIEVE_THREAD_ANNOTATION(requires_capability(mutex))
// Of a function that the analysis cannot follow. Say why beside it.
#define PENSIEVE_NOT_ANALYZED PENSIEVE_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace pensieve {

class PENSIEVE_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void lock() PENSIEVE_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void unlock() PENSIEVE_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a mutex to the end of its scope, or until unlock.
class PENSIEVE_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) PENSIEVE_THREAD_ANNOTATION(acquire_capability(mutex)) : lock_(mutex.mutex_) {}
  ~MutexLock() PENSIEVE_THREAD_ANNOTATION(release_capability()) = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  void lock() PENSIEVE_THREAD_ANNOTATION(acquire_capability()) { lock_.lock(); }
  void unlock() PENSIEVE_THREAD_ANNOTATION(release_capability()) { lock_.unlock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

// Several readers or one writer.
class PENSIEVE_THREAD_ANNOTATION(capability("mutex")) SharedMutex {
 public:
  SharedMutex() = default;
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

 private:
  friend class WriterLock;
  friend class ReaderLock;
  std::shared_mutex mutex_;
};

class PENSIEVE_THREAD_ANNOTATION(scoped_lockable) WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) PENSIEVE_THREAD_ANNOTATION(acquire_capability(mutex)) : lock_(mutex.mutex_) {}
  ~WriterLock() PENSIEVE_THREAD_ANNOTATION(release_capability()) = default;

 private:
  std::unique_lock<std::shared_mutex> lock_;
};

class PENSIEVE_THREAD_ANNOTATION(scoped_lockable) ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) PENSIEVE_THREAD_ANNOTATION(acquire_shared_capability(mutex))
      : lock_(mutex.mutex_) {}
  ~ReaderLock() PENSIEVE_THREAD_ANNOTATION(release_generic_capability()) = default;

 private:
  std::shared_lock<std::shared_mutex> lock_;
};

// std::condition_variable under a MutexLock. Predicates run with the mutex held: annotate them with PENSIEVE_REQUIRES.
class Condition {
 public:
  void wait(MutexLock& lock) { condition_.wait(lock.lock_); }

  // The analysis does not know that the predicate's mutex is the lock's.
  template <typename Predicate>
  void wait(MutexLock& lock, Predicate holds) PENSIEVE_NOT_ANALYZED {
    condition_.wait(lock.lock_, std::move(holds));
  }
  template <typename Rep, typename Period>
  void wait_for(MutexLock& lock, std::chrono::duration<Rep, Period> time) {
    condition_.wait_for(lock.lock_, time);
  }
  // False when the time is over and the predicate does not hold.
  template <typename Rep, typename Period, typename Predicate>
  bool wait_for(MutexLock& lock, std::chrono::duration<Rep, Period> time, Predicate holds) PENSIEVE_NOT_ANALYZED {
    return condition_.wait_for(lock.lock_, time, std::move(holds));
  }
  template <typename Clock, typename Duration, typename Predicate>
  bool wait_until(MutexLock& lock, std::chrono::time_point<Clock, Duration> end,
                  Predicate holds) PENSIEVE_NOT_ANALYZED {
    return condition_.wait_until(lock.lock_, end, std::move(holds));
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace pensieve
