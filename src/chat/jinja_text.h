// Text that knows where it comes from, in runs of bytes: written by the template, or taken from the request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pensieve::chat::jinja {

// 0 is the template, with its constants and what it was given as its own; other numbers are sources of the request, as
// RenderContext names them.
using Origin = uint32_t;
inline constexpr Origin kFromTemplate = 0;

// Text of one origin up to byte `end`.
struct OriginRun {
  size_t end = 0;
  Origin origin = kFromTemplate;
  bool operator==(const OriginRun&) const = default;
};

class TracedText {
 public:
  TracedText() = default;
  TracedText(std::string bytes, Origin origin) : bytes_(std::move(bytes)), origin_(origin) {}

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  void Reserve(size_t bytes) { bytes_.reserve(bytes); }

  void Append(std::string_view bytes, Origin origin);
  void Append(const TracedText& other) { Append(other, 0, other.size()); }
  // The bytes [begin, end) of `other`, which is not this text.
  void Append(const TracedText& other, size_t begin, size_t end);
  // With the origin of the last byte: for what stands between pieces of one value, so that a long value stays one run.
  void AppendAlike(std::string_view bytes) { Append(bytes, bytes_.empty() ? kFromTemplate : origin_); }

  TracedText Slice(size_t begin, size_t end) const;
  // Every run changed by `change`, a function from std::string_view to std::string that looks at no neighbours.
  template <typename Change>
  TracedText Map(Change change) const {
    TracedText out;
    size_t begin = 0;
    for (const OriginRun& run : earlier_) {
      out.Append(change(std::string_view(bytes_).substr(begin, run.end - begin)), run.origin);
      begin = run.end;
    }
    out.Append(change(std::string_view(bytes_).substr(begin)), origin_);
    return out;
  }

  // The first origin that is not the template; kFromTemplate when all is the template's.
  Origin FirstSource() const;
  // All runs, neighbours of different origin; none for an empty text.
  std::vector<OriginRun> Runs() const;
  // Memory beyond the object itself.
  size_t Bytes() const { return bytes_.size() + earlier_.size() * sizeof(OriginRun); }
  std::string TakeBytes() && { return std::move(bytes_); }

 private:
  std::string bytes_;
  Origin origin_ = kFromTemplate;  // of what stands behind the earlier runs
  std::vector<OriginRun> earlier_;
};

}  // namespace pensieve::chat::jinja
