#include "engine/sequence.h"

#include <algorithm>
#include <utility>

namespace pensieve::engine {
namespace {

void MakePrecise(std::vector<int32_t>& keys, TokenRange range) {
  for (int64_t i = range.first; i < range.end; ++i) {
    int32_t& key = keys[static_cast<size_t>(i)];
    if (key >= 0) key = ~key;
  }
}

}  // namespace

Sequence::Sequence(std::shared_ptr<Request> owner, size_t index, int64_t context_max, int64_t block_len,
                   int64_t precise_positions)
    : request(std::move(owner)), input_idx(index) {
  tokens = std::move(request->is_embed ? request->embed.sequences[index] : request->generate.prompt);
  prompt_len = len();
  len_max = prompt_len;
  row_keys = tokens;
  MakePrecise(row_keys, {0, std::min(precise_positions, prompt_len)});
  if (!request->is_embed) {
    // Room for everything that can come, so that a decode step allocates nothing.
    const GenerateRequest& generate = request->generate;
    len_max += std::min(generate.new_tokens_max, context_max - prompt_len);
    tokens.reserve(static_cast<size_t>(len_max));
    row_keys.reserve(static_cast<size_t>(len_max));
    for (const TokenRange& range : generate.precise_ranges) MakePrecise(row_keys, range);
    share_more = true;
  }
  block_table.reserve(static_cast<size_t>((len_max + block_len - 1) / block_len));
}

void Sequence::Append(int32_t token) {
  tokens.push_back(token);
  row_keys.push_back(~token);
}

int64_t Sequence::RunEnd(int64_t first, int64_t end) const {
  int64_t at = first + 1;
  while (at < end && is_precise(at) == is_precise(first)) ++at;
  return at;
}

bool Sequence::Before(const Sequence& other) const {
  return std::pair(request->arrival, input_idx) < std::pair(other.request->arrival, other.input_idx);
}

void Sequence::Restart() {
  PENSIEVE_CHECK(block_table.empty());
  cached_len = 0;
  computed_len = 0;
  holds_logits = false;  // their row comes again
  pooled.clear();
}

void Sequence::CheckInvariant() const {
  PENSIEVE_CHECK(cached_len <= computed_len && computed_len <= len() && len() <= len_max);
  PENSIEVE_CHECK(row_keys.size() == tokens.size());
}

}  // namespace pensieve::engine
