// Stop strings over text that arrives in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pensieve::chat {

// Finds the stop string that ends first; of those that end together, the longest one. Not thread-safe; one per output.
class StopMatcher {
 public:
  // Empty strings are ignored. The caller has bounded number and length (64 of 256 bytes).
  explicit StopMatcher(std::vector<std::string> stop_strings);

  // Appends to `out` what surely belongs to the output: everything in front of a stop string, but a suffix that may
  // become one is held back. True when a stop string was found: nothing more is taken from then on.
  bool Push(std::string_view text, std::string& out);
  // The output ended without a stop string: appends what was held back.
  void Finish(std::string& out);

  // The index of the stop string that was found, -1 before.
  int matched() const { return matched_; }

 private:
  const std::vector<std::string> stop_strings_;
  std::string held_;
  int matched_ = -1;
};

}  // namespace pensieve::chat
