#include "chat/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace pensieve::chat {

StopMatcher::StopMatcher(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {}

bool StopMatcher::Push(std::string_view text, std::string& out) {
  if (matched_ >= 0) return true;
  held_ += text;
  size_t best_end = std::string::npos;
  size_t best_begin = 0;
  for (size_t i = 0; i < stop_strings_.size(); ++i) {
    const std::string& stop = stop_strings_[i];
    const size_t begin = stop.empty() ? std::string::npos : held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end > best_end || (end == best_end && begin >= best_begin)) continue;
    best_end = end;
    best_begin = begin;
    matched_ = static_cast<int>(i);
  }
  if (matched_ >= 0) {
    out.append(held_, 0, best_begin);
    held_.clear();
    return true;
  }
  // The longest suffix that is a proper prefix of a stop string stays.
  size_t kept = 0;
  for (const std::string& stop : stop_strings_) {
    if (stop.empty()) continue;
    size_t length = std::min(stop.size() - 1, held_.size());
    while (length > kept && held_.compare(held_.size() - length, length, stop, 0, length) != 0) --length;
    kept = std::max(kept, length);
  }
  out.append(held_, 0, held_.size() - kept);
  held_.erase(0, held_.size() - kept);
  return false;
}

void StopMatcher::Finish(std::string& out) {
  if (matched_ < 0) out += held_;
  held_.clear();
}

}  // namespace pensieve::chat
