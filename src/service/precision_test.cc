// Precision follows a token's place in the conversation, over real kernels: an answer that comes back in the next turn
// is taken over from the cache, and has the bits that computing it gives.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "model/loader.h"

namespace pensieve::service {
namespace {

// Ids and the bits of their log-probabilities, and how much of the prompt was cached.
struct Answer {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  int64_t cached = 0;
};

class Precision : public testing::TestWithParam<const char*> {
 protected:
  void Start(int64_t step_rows_max) {
    engine_.reset();
    model::LoadOptions load;
    load.rows_max = 256;
    auto loaded = model::Load(std::string(PENSIEVE_SOURCE_DIR "/tests/data/models/") + GetParam(), load);
    ASSERT_TRUE(loaded.has_value()) << loaded.status().ToString();
    model_ = *std::move(loaded);
    engine::EngineOptions options;
    options.kv_bytes_max = 16 << 20;
    options.step_rows_max = step_rows_max;
    auto engine = engine::Engine::Create(*model_->backend, *model_->network, options);
    ASSERT_TRUE(engine.has_value()) << engine.status().ToString();
    engine_ = *std::move(engine);
  }

  Answer Run(const engine::GenerateRequest& request) {
    Answer answer;
    auto stream = engine_->Generate(request);
    EXPECT_TRUE(stream.has_value()) << stream.status().ToString();
    if (!stream.has_value()) return answer;
    while (auto event = (*stream)->Next()) {
      if (event->kind == engine::Event::Kind::kToken) {
        answer.ids.push_back(event->sample.id);
        answer.logprobs.push_back(event->sample.logprob);
      }
      if (event->terminal()) answer.cached = event->stats.cached_prompt_tokens;
    }
    return answer;
  }

  engine::GenerateRequest Ask(std::vector<int32_t> prompt, int64_t new_tokens) const {
    engine::GenerateRequest request;
    request.prompt = std::move(prompt);
    request.new_tokens_max = new_tokens;
    request.sampling.temperature = 0.0f;
    request.sampling.logprobs = true;
    return request;
  }

  std::vector<int32_t> Tokens(int64_t count, int64_t first) const {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < count; ++i) {
      tokens.push_back(static_cast<int32_t>((first + i * 5) % model_->config.vocab_size));
    }
    return tokens;
  }

  std::unique_ptr<model::LoadedModel> model_;
  std::unique_ptr<engine::Engine> engine_;
};

TEST_P(Precision, AnAnswerTakenOverHasTheBitsOfAComputedOne) {
  Answer whole;
  for (const int64_t step_rows : {256, 7, 64, 100}) {
    SCOPED_TRACE(step_rows);
    ASSERT_NO_FATAL_FAILURE(Start(step_rows));
    engine::GenerateRequest turn = Ask(Tokens(70, 3), 30);
    const Answer first = Run(turn);
    ASSERT_EQ(first.ids.size(), 30u);
    engine::GenerateRequest next = turn;
    next.precise_ranges = {{70, 100}};
    next.new_tokens_max = 20;
    next.prompt.insert(next.prompt.end(), first.ids.begin(), first.ids.end());
    for (const int32_t token : Tokens(4, 7)) next.prompt.push_back(token);
    const Answer taken_over = Run(next);
    EXPECT_EQ(taken_over.cached, 96);  // 99 were computed
    next.cache_partition = 1;
    const Answer computed = Run(next);
    EXPECT_EQ(computed.cached, 0);
    EXPECT_EQ(computed.ids, taken_over.ids);
    EXPECT_EQ(computed.logprobs, taken_over.logprobs);
    if (whole.ids.empty()) whole = computed;
    EXPECT_EQ(computed.logprobs, whole.logprobs);
  }
}

TEST_P(Precision, MarkingATokenMatters) {
  ASSERT_NO_FATAL_FAILURE(Start(256));
  engine::GenerateRequest request = Ask(Tokens(110, 3), 16);
  const Answer coarse = Run(request);
  request.precise_ranges = {{64, 105}};
  const Answer marked = Run(request);
  // The products of a decoder's first layer are precise for every token.
  EXPECT_EQ(marked.logprobs == coarse.logprobs, model_->config.layers == 1);
  request.precise_ranges = {{0, 64}};  // these are precise anyway
  const Answer again = Run(request);
  EXPECT_EQ(again.logprobs, coarse.logprobs);
  EXPECT_EQ(again.cached, 96);
}

INSTANTIATE_TEST_SUITE_P(Models, Precision,
                         testing::Values("tiny-llama-q4_1.gguf", "tiny-llama-mlx", "tiny-gemma3-mlx",
                                         "tiny-mixtral-mlx"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           for (char& c : name) c = c == '-' || c == '.' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace pensieve::service
