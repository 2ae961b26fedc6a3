#include "engine/sequence.h"

#include <algorithm>
#include <utility>

namespace pensieve::engine {

Sequence::Sequence(std::shared_ptr<Request> owner, size_t index, int64_t context_max, int64_t block_len)
    : request(std::move(owner)), input_idx(index) {
  tokens = std::move(request->is_embed ? request->embed.sequences[index] : request->generate.prompt);
  prompt_len = len();
  len_max = prompt_len;
  if (!request->is_embed) {
    // Room for everything that can come, so that a decode step allocates nothing.
    const GenerateRequest& generate = request->generate;
    len_max += std::min(generate.new_tokens_max, context_max - prompt_len);
    tokens.reserve(static_cast<size_t>(len_max));
    sampler.emplace(generate.sampling);
    share_more = true;
  }
  block_table.reserve(static_cast<size_t>((len_max + block_len - 1) / block_len));
}

bool Sequence::Before(const Sequence& other) const {
  return std::pair(request->arrival, input_idx) < std::pair(other.request->arrival, other.input_idx);
}

void Sequence::Restart() {
  PENSIEVE_CHECK(block_table.empty());
  cached_len = 0;
  computed_len = 0;
  pooled.clear();
}

void Sequence::CheckInvariant() const {
  PENSIEVE_CHECK(cached_len <= computed_len && computed_len <= len() && len() <= len_max);
}

}  // namespace pensieve::engine
