// Grammars of answers, compiled once for equal rules.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/mutex.h"
#include "base/status.h"
#include "chat/answer_grammar.h"
#include "sampling/grammar.h"

namespace pensieve::service {

// Thread-safe. Keeps those that were used last, up to both limits.
class AnswerGrammars {
 public:
  explicit AnswerGrammars(size_t count_max = 128, int64_t bytes_max = int64_t{64} << 20)
      : count_max_(count_max), bytes_max_(bytes_max) {}

  // As chat::CompileAnswer; compiles on the caller's thread when it must.
  Result<std::shared_ptr<const sampling::Grammar>> Get(const chat::AnswerRules& rules);
  int64_t compiled() const { return compiled_; }

 private:
  struct Entry {
    std::string fingerprint;
    std::shared_ptr<const sampling::Grammar> grammar;  // or null: the rules allow everything
    int64_t bytes = 0;
  };

  const size_t count_max_;
  const int64_t bytes_max_;
  std::atomic<int64_t> compiled_{0};
  Mutex mutex_;
  std::list<Entry> entries_ PENSIEVE_GUARDED_BY(mutex_);  // the last used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> found_
      PENSIEVE_GUARDED_BY(mutex_);  // keys in entries_
  int64_t bytes_ PENSIEVE_GUARDED_BY(mutex_) = 0;
};

}  // namespace pensieve::service
