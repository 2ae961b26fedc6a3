#include "engine/mask_worker.h"

#include <pthread.h>

#include <utility>

namespace pensieve::engine {

MaskWorker::~MaskWorker() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  asked_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void MaskWorker::Ask(std::shared_ptr<NextMask> mask) {
  {
    const MutexLock lock(mutex_);
    open_.push_back(std::move(mask));
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  asked_.notify_one();
}

void MaskWorker::Run() {
#ifdef __APPLE__
  pthread_setname_np("masks");
#else
  pthread_setname_np(pthread_self(), "masks");
#endif
  MutexLock lock(mutex_);
  while (true) {
    asked_.wait(lock, [this]() PENSIEVE_REQUIRES(mutex_) { return stopping_ || !open_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<NextMask> mask = std::move(open_.front());
    open_.pop_front();
    lock.unlock();
    mask->constraint->FillMask(mask->allowed);
    // A stop id ends the answer even where its text would be allowed, as it is in reasoning.
    const bool may_end = mask->constraint->accepting();
    for (const int32_t id : mask->stop_ids) {
      if (id < 0 || id >= mask->allowed.size()) continue;
      may_end ? mask->allowed.Add(id) : mask->allowed.Remove(id);
    }
    mask->ready.store(true, std::memory_order_release);
    wake_();
    lock.lock();
  }
}

}  // namespace pensieve::engine
