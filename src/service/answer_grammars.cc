#include "service/answer_grammars.h"

#include <utility>

namespace pensieve::service {

Result<std::shared_ptr<const sampling::Grammar>> AnswerGrammars::Get(const chat::AnswerRules& rules) {
  std::string fingerprint = rules.Fingerprint();
  {
    const MutexLock lock(mutex_);
    const auto found = found_.find(fingerprint);
    if (found != found_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->grammar;
    }
  }
  ++compiled_;
  PENSIEVE_TRY(auto grammar, chat::CompileAnswer(rules));
  const MutexLock lock(mutex_);
  if (found_.contains(fingerprint)) return grammar;  // another thread was faster
  const auto size = static_cast<int64_t>(fingerprint.size());
  entries_.push_front({std::move(fingerprint), grammar, size + (grammar != nullptr ? grammar->bytes() : 0)});
  found_.emplace(entries_.front().fingerprint, entries_.begin());
  bytes_ += entries_.front().bytes;
  while (entries_.size() > 1 && (entries_.size() > count_max_ || bytes_ > bytes_max_)) {
    bytes_ -= entries_.back().bytes;
    found_.erase(entries_.back().fingerprint);
    entries_.pop_back();
  }
  return grammar;
}

}  // namespace pensieve::service
