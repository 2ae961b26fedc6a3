// The service over real files: the tiny models of the repository, and SmolLM2 where it has been fetched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "model/loader.h"
#include "service/service.h"

namespace pensieve::service {
namespace {

using Kind = GenerationEvent::Kind;

std::unique_ptr<Service> Serve(const std::string& path, bool exact) {
  model::LoadOptions load;
  load.rows_max = 64;
  if (exact) load.compute.activations = backend::InputPrecision::kF32;
  auto loaded = model::Load(path, load);
  EXPECT_TRUE(loaded.has_value()) << loaded.status().ToString();
  if (!loaded.has_value()) return nullptr;
  ServiceOptions options;
  options.memory_gate = false;
  options.engine.kv_bytes_max = 64 << 20;
  options.engine.step_rows_max = 64;
  auto service = Service::Create(options);
  EXPECT_TRUE(service->AddModel("m", {}, *std::move(loaded)).ok());
  return service;
}

std::string TestModel(const char* name) { return std::string(PENSIEVE_SOURCE_DIR "/tests/data/models/") + name; }

struct Answer {
  std::vector<int32_t> ids;
  std::string text;
  GenerationEvent last;
};

Answer Follow(Generation& generation) {
  Answer answer;
  while (auto event = generation.Next()) {
    if (event->kind == Kind::kText) answer.text += event->text;
    answer.last = std::move(*event);
  }
  answer.ids = generation.generated_ids();
  return answer;
}

TEST(RealModels, ATinyLlamaAnswersAloneAsBesideOthers) {
  const auto service = Serve(TestModel("tiny-llama"), /*exact=*/true);
  ASSERT_NE(service, nullptr);
  const auto answer = [&](int32_t start) {
    CompletionRequest request;
    request.prompt_ids = {start, start + 1, start + 2};
    request.new_tokens_max = 20;
    request.sampling.temperature = 0.0f;
    auto generation = service->Complete(request);
    EXPECT_TRUE(generation.has_value()) << generation.status().ToString();
    return Follow(**generation);
  };
  std::vector<Answer> alone;
  for (int32_t start = 3; start < 11; ++start) alone.push_back(answer(start));
  std::vector<std::future<Answer>> together;
  for (int32_t start = 3; start < 11; ++start) together.push_back(std::async(std::launch::async, answer, start));
  for (size_t i = 0; i < alone.size(); ++i) {
    const Answer beside = together[i].get();
    EXPECT_EQ(beside.ids, alone[i].ids);
    EXPECT_EQ(beside.text, alone[i].text);
    EXPECT_EQ(beside.last.kind, Kind::kDone);
    EXPECT_EQ(beside.last.usage.completion_tokens, static_cast<int64_t>(beside.ids.size()));
  }
}

std::vector<float> Embed(Service& service, std::vector<std::string> texts, size_t which) {
  EmbedRequest request;
  request.texts = std::move(texts);
  std::promise<Result<EmbedResult>> promise;
  service.Embed(std::move(request), [&](Result<EmbedResult> result) { promise.set_value(std::move(result)); });
  auto result = promise.get_future().get();
  EXPECT_TRUE(result.has_value()) << result.status().ToString();
  return result.has_value() ? result->embeddings[which] : std::vector<float>();
}

TEST(RealModels, ATinyBertEmbedsAloneAsInABatch) {
  const auto service = Serve(TestModel("tiny-bert"), /*exact=*/true);
  ASSERT_NE(service, nullptr);
  const std::vector<float> alone = Embed(*service, {"a b c"}, 0);
  ASSERT_FALSE(alone.empty());
  EXPECT_EQ(alone, Embed(*service, {"c c", "a b c", "", "b"}, 1));
  double squares = 0;
  for (const float value : alone) squares += static_cast<double>(value) * value;
  EXPECT_TRUE(std::isfinite(squares) && squares > 0);
}

std::string FindSmolLm2() {
  std::error_code ignored;
  std::vector<std::filesystem::path> roots;
  for (const char* name : {"PENSIEVE_TEST_MODELS", "PENSIEVE_CACHE_DIR", "AKIDB_CACHE_DIR"}) {
    if (const char* value = std::getenv(name)) roots.emplace_back(value);
  }
  if (const char* home = std::getenv("HOME")) roots.push_back(std::filesystem::path(home) / ".cache/pensieve/models");
  for (const auto& root : roots) {
    for (std::filesystem::recursive_directory_iterator it(root, ignored), end; it != end; it.increment(ignored)) {
      if (it->path().filename() == "SmolLM2-135M-Instruct.Q4_1.gguf") return it->path().string();
    }
  }
  return "";
}

TEST(RealModels, SmolLm2KnowsTheCapitalOfFrance) {
  const std::string path = FindSmolLm2();
  if (path.empty()) GTEST_SKIP() << "SmolLM2 has not been fetched";
  const auto service = Serve(path, /*exact=*/true);
  ASSERT_NE(service, nullptr);
  ChatRequest request;
  request.model = "claude-sonnet-4-5";
  request.messages = {{{"role", "user"}, {"content", "What is the capital of France?"}}};
  request.sampling.temperature = 0.0f;
  request.new_tokens_max = 32;
  auto generation = service->Chat(request);
  ASSERT_TRUE(generation.has_value()) << generation.status().ToString();
  EXPECT_EQ((*generation)->prompt_tokens(), *service->CountTokens(request));
  const Answer answer = Follow(**generation);
  EXPECT_EQ(answer.text, "The capital of France is Paris.");
  EXPECT_EQ(answer.last.stop_reason, StopReason::kEnd);
}

}  // namespace
}  // namespace pensieve::service
