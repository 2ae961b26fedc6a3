#include "chat/jinja_text.h"

#include <algorithm>

namespace pensieve::chat::jinja {

void TracedText::Append(std::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  if (!bytes_.empty() && origin != origin_) earlier_.push_back({bytes_.size(), origin_});
  origin_ = origin;
  bytes_.append(bytes);
}

void TracedText::Append(const TracedText& other, size_t begin, size_t end) {
  const std::string_view bytes = other.bytes_;
  auto run = std::upper_bound(other.earlier_.begin(), other.earlier_.end(), begin,
                              [](size_t at, const OriginRun& candidate) { return at < candidate.end; });
  while (begin < end) {
    const bool last = run == other.earlier_.end();
    const size_t stop = last ? end : std::min(end, run->end);
    Append(bytes.substr(begin, stop - begin), last ? other.origin_ : run->origin);
    begin = stop;
    if (!last) ++run;
  }
}

TracedText TracedText::Slice(size_t begin, size_t end) const {
  TracedText slice;
  slice.Append(*this, begin, end);
  return slice;
}

Origin TracedText::FirstSource() const {
  for (const OriginRun& run : earlier_) {
    if (run.origin != kFromTemplate) return run.origin;
  }
  return bytes_.empty() ? kFromTemplate : origin_;
}

std::vector<OriginRun> TracedText::Runs() const {
  std::vector<OriginRun> runs = earlier_;
  if (!bytes_.empty()) runs.push_back({bytes_.size(), origin_});
  return runs;
}

}  // namespace pensieve::chat::jinja
