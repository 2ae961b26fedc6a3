// Text from a file as it may stand in an error message: one line, short, plain.
#pragma once

#include <string>
#include <string_view>

namespace pensieve::formats {

// Control characters and bytes outside ASCII become '?'; what is longer than `length_max` ends in "...".
inline std::string Printable(std::string_view text, size_t length_max = 100) {
  std::string out(text.substr(0, length_max));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e) c = '?';  // char may be signed: bytes above 0x7f are then negative
  }
  if (text.size() > length_max) out += "...";
  return out;
}

}  // namespace pensieve::formats
