#include "cli/spelling.h"

#include <algorithm>
#include <limits>

namespace pensieve::cli {
namespace {

constexpr size_t kLengthMax = 64;

// The optimal string alignment distance, by rows: row[i][j] for the first i and j letters.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> row(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        row[i][j] = i + j;
        continue;
      }
      row[i][j] = std::min({row[i - 1][j] + 1, row[i][j - 1] + 1, row[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[i][j] = std::min(row[i][j], row[i - 2][j - 2] + 1);
    }
  }
  return row[a.size()][b.size()];
}

}  // namespace

std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates) {
  std::string nearest;
  size_t nearest_distance = std::numeric_limits<size_t>::max();
  if (word.empty() || word.size() > kLengthMax) return nearest;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLengthMax) continue;
    const size_t distance = Distance(word, candidate);
    if (distance >= nearest_distance || distance > std::max<size_t>(1, candidate.size() / 3)) continue;
    nearest = candidate;
    nearest_distance = distance;
  }
  return nearest;
}

}  // namespace pensieve::cli
