// Makes the masks of constrained sequences on a thread of its own, beside the forward pass.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "sampling/constraint.h"
#include "sampling/token_set.h"

namespace pensieve::engine {

// What one sequence may draw next. From Ask until it is ready, it is the worker's; otherwise the engine thread's.
struct NextMask {
  NextMask(std::shared_ptr<sampling::Constraint> constraint_, std::vector<int32_t> stop_ids_)
      : constraint(std::move(constraint_)), stop_ids(std::move(stop_ids_)), allowed(constraint->vocab_size()) {}

  const std::shared_ptr<sampling::Constraint> constraint;
  const std::vector<int32_t> stop_ids;  // allowed where the text may end
  sampling::TokenSet allowed;
  std::atomic<bool> ready{false};
};

// The thread starts with the first question. Ask is for one thread.
class MaskWorker {
 public:
  // `wake` is called, from the worker's thread, whenever a mask has become ready.
  explicit MaskWorker(std::function<void()> wake) : wake_(std::move(wake)) {}
  ~MaskWorker();  // leaves open questions unanswered
  MaskWorker(const MaskWorker&) = delete;
  MaskWorker& operator=(const MaskWorker&) = delete;

  // `mask` is not ready and was not asked for. In the order of asking.
  void Ask(std::shared_ptr<NextMask> mask);

 private:
  void Run();

  const std::function<void()> wake_;
  Mutex mutex_;
  Condition asked_;
  std::deque<std::shared_ptr<NextMask>> open_ PENSIEVE_GUARDED_BY(mutex_);
  bool stopping_ PENSIEVE_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace pensieve::engine
