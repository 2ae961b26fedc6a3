// One request inside the engine: what was asked, the stream to its consumer, and what the engine thread keeps about it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/event_queue.h"

namespace pensieve::engine {

using Clock = std::chrono::steady_clock;

struct Request {
  Request(GenerateRequest request, int64_t depth_max, const std::shared_ptr<WakeSignal>& wake)
      : generate(std::move(request)), events(depth_max, wake) {
    stats.prompt_tokens = static_cast<int64_t>(generate.prompt.size());
  }
  Request(EmbedRequest request, const std::shared_ptr<WakeSignal>& wake)
      : is_embed(true), embed(std::move(request)), events(1, wake), embeddings(embed.sequences.size()) {
    for (const auto& sequence : embed.sequences) {
      input_lens.push_back(static_cast<int64_t>(sequence.size()));
      stats.prompt_tokens += input_lens.back();
    }
  }

  // Constant after submission.
  const bool is_embed = false;
  GenerateRequest generate;  // the prompt moves into its Sequence
  EmbedRequest embed;
  std::vector<int64_t> input_lens;  // of embed.sequences
  const Clock::time_point submitted = Clock::now();

  // Shared between threads.
  std::atomic<bool> cancelled{false};
  EventQueue events;

  // Engine thread only.
  int64_t arrival = 0;        // order of submission
  size_t inputs_started = 0;  // embed: sequences that were taken up so far
  size_t inputs_done = 0;
  std::vector<std::vector<float>> embeddings;
  RequestStats stats;
  bool started = false;
  bool over = false;  // its terminal event was pushed

  double SecondsSince() const { return std::chrono::duration<double>(Clock::now() - submitted).count(); }
  size_t num_inputs() const { return is_embed ? embed.sequences.size() : 1; }
};

}  // namespace pensieve::engine
