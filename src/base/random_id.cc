#include "base/random_id.h"

#include <random>

namespace pensieve {

std::string NewId(std::string_view prefix) {
  constexpr std::string_view kAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  constexpr int kLength = 24;  // 62^24 > 2^142
  // The system's entropy, asked anew for each id: two processes, or two forks of one, never continue the same sequence.
  thread_local std::random_device entropy;
  std::uniform_int_distribution<size_t> letter(0, kAlphabet.size() - 1);
  std::string id(prefix);
  for (int i = 0; i < kLength; ++i) id += kAlphabet[letter(entropy)];
  return id;
}

}  // namespace pensieve
