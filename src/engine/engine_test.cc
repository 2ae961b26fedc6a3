// The engine with its thread, and what a step allocates.
#include "engine/engine.h"

#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "engine/engine_core.h"
#include "engine/engine_fixture.h"

namespace {
thread_local int64_t news_of_this_thread = 0;
thread_local int64_t news_until_failure = -1;  // 0: the next one fails, once; below: none does

void CountNew() {
  ++news_of_this_thread;
  if (news_until_failure >= 0 && news_until_failure-- == 0) throw std::bad_alloc();
}
}  // namespace

// Counted per thread, so that a step can be shown to make none. The array forms call these. Not inlined, or the
// compiler sees through them and warns that free() takes what `new` gave.
#define PENSIEVE_NOINLINE __attribute__((noinline))
PENSIEVE_NOINLINE void* operator new(std::size_t size) {
  CountNew();
  void* memory = std::malloc(size);
  PENSIEVE_CHECK(memory != nullptr);
  return memory;
}
PENSIEVE_NOINLINE void* operator new(std::size_t size, std::align_val_t alignment) {
  CountNew();
  const auto align = static_cast<std::size_t>(alignment);
  void* memory = std::aligned_alloc(align, (size + align - 1) / align * align);
  PENSIEVE_CHECK(memory != nullptr);
  return memory;
}
PENSIEVE_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
PENSIEVE_NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
PENSIEVE_NOINLINE void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
PENSIEVE_NOINLINE void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace pensieve::engine {
namespace {

std::vector<int32_t> Tokens(int64_t count, int32_t first = 1) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((first + i * 7) % kTestVocab));
  return tokens;
}

GenerateRequest Prompt(std::vector<int32_t> tokens, int64_t new_tokens_max) {
  GenerateRequest request;
  request.prompt = std::move(tokens);
  request.new_tokens_max = new_tokens_max;
  request.sampling.temperature = 0.0f;
  return request;
}

EngineOptions Small() {
  EngineOptions options;
  options.kv_block_len = 4;
  options.kv_dtype = backend::KvDType::kF32;
  options.kv_bytes_max = 256 * 4 * 8;  // 256 blocks
  options.step_rows_max = 32;
  options.sequences_max = 8;
  return options;
}

struct Served {
  explicit Served(const EngineOptions& options = Small(), const TestModelOptions& model_options = {})
      : network(model_options, backend) {
    auto created = Engine::Create(backend, network, options);
    EXPECT_TRUE(created.has_value()) << created.status().ToString();
    engine = *std::move(created);
  }
  TestBackend backend;
  TestModel network;
  std::unique_ptr<Engine> engine;
};

// Reads a stream to its end: the tokens, and the terminal event.
std::pair<std::vector<int32_t>, Event> ReadAll(EventStream& stream) {
  std::vector<int32_t> tokens;
  while (auto event = stream.Next()) {
    if (event->kind == Event::Kind::kToken) tokens.push_back(event->sample.id);
    if (event->terminal()) {
      EXPECT_FALSE(stream.Next().has_value());
      return {tokens, *std::move(event)};
    }
  }
  ADD_FAILURE() << "the stream ended without a terminal event";
  return {tokens, Event()};
}

TEST(EngineStep, DecodeAllocatesNothing) {
  TestBackend backend;
  TestModel network({}, backend);
  EngineOptions options = Small();
  options.stream_depth_max = 64;
  const auto core = *EngineCore::Create(backend, network, options);
  const auto wake = std::make_shared<WakeSignal>();
  std::vector<std::shared_ptr<Request>> requests;
  for (int32_t i = 0; i < 6; ++i) {
    GenerateRequest request = Prompt(Tokens(9 + i, i), 60);
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    request.sampling.top_p = i % 3 == 0 ? 0.9f : 1.0f;
    request.sampling.top_k = i == 4 ? 10 : 0;
    request.sampling.repetition_penalty = i < 2 ? 1.1f : 1.0f;
    request.sampling.penalty_window = i == 0 ? -1 : 8;
    request.sampling.frequency_penalty = i == 3 ? 0.5f : 0.0f;
    request.sampling.logprobs = i == 5;
    ASSERT_TRUE(core->Reserve().ok());
    requests.push_back(std::make_shared<Request>(std::move(request), options.stream_depth_max, wake));
    core->Add(requests.back());
  }
  for (int i = 0; i < 10; ++i) core->Step();
  network.rows_of_last_step.reserve(64);
  const int64_t before = news_of_this_thread;
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(core->Step());
  EXPECT_EQ(news_of_this_thread - before, 0);
  EXPECT_EQ(core->Snapshot().running, 6);
}

// One failure of memory in each place where the engine asks for some: every request still ends once, nothing is lost,
// and the next request gets its answer.
TEST(EngineStep, LivesThroughEveryLackOfMemory) {
  bool failed = true;
  for (int64_t place = 0; failed; ++place) {
    ASSERT_LT(place, 5000);
    failed = false;
    for (const bool is_encoder : {false, true}) {
      TestBackend backend;
      TestModel network({.is_encoder = is_encoder, .is_embedding = true}, backend);
      EngineOptions options = Small();
      options.kv_bytes_max = 20 * 4 * 8;  // 20 blocks, so that sequences are preempted
      options.stream_depth_max = 64;
      const auto core = *EngineCore::Create(backend, network, options);
      const auto wake = std::make_shared<WakeSignal>();
      std::vector<std::shared_ptr<Request>> requests;
      EmbedRequest texts;
      for (int32_t i = 0; i < 3; ++i) texts.sequences.push_back(Tokens(5 + i, i));
      requests.push_back(std::make_shared<Request>(texts, wake));
      for (int32_t i = 0; i < 4 && !is_encoder; ++i) {
        // Two of them begin alike.
        requests.push_back(std::make_shared<Request>(Prompt(Tokens(9 + i, i / 2), 20), options.stream_depth_max, wake));
      }
      for (size_t i = 0; i < requests.size(); ++i) ASSERT_TRUE(core->Reserve().ok());
      news_until_failure = place;
      for (const auto& request : requests) core->Add(request);
      while (core->Step()) {}
      failed = failed || news_until_failure < 0;
      news_until_failure = -1;
      ASSERT_EQ(core->CheckIntegrity().ToString(), "OK") << place;
      for (const auto& request : requests) {
        int terminals = 0;
        while (const auto event = request->events.TryNext()) terminals += event->terminal() ? 1 : 0;
        ASSERT_EQ(terminals, 1) << place;
      }
      ASSERT_EQ(core->requests_in(), 0) << place;
      ASSERT_EQ(core->Snapshot().kv_blocks_used, 0) << place;
      if (is_encoder) continue;
      const GenerateRequest later = Prompt(Tokens(9), 3);
      ASSERT_TRUE(core->Reserve().ok());
      const auto request = std::make_shared<Request>(later, options.stream_depth_max, wake);
      core->Add(request);
      while (core->Step()) {}
      std::vector<int32_t> tokens;
      while (const auto event = request->events.TryNext()) {
        if (event->kind == Event::Kind::kToken) tokens.push_back(event->sample.id);
      }
      ASSERT_EQ(tokens, ExpectAnswer(later, core->context_max())) << place;
    }
  }
}

// A consumer's fault stays with the consumer.
TEST(EngineStep, AWakerThatThrowsEndsNothing) {
  Served served;
  const GenerateRequest request = Prompt(Tokens(9), 5);
  auto stream = *served.engine->Generate(request);
  stream->SetWaker([] { throw std::runtime_error("no memory for a wake"); });
  EXPECT_EQ(ReadAll(*stream).first, ExpectAnswer(request, served.engine->context_max()));
  auto next = *served.engine->Generate(request);
  EXPECT_EQ(ReadAll(*next).second.kind, Event::Kind::kDone);
}

TEST(Engine, AnswersFromManyThreads) {
  EngineOptions options = Small();
  options.queue_depth_max = 100;
  Served served(options);
  std::vector<std::thread> clients;
  for (int32_t c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      for (int32_t i = 0; i < 5; ++i) {
        const GenerateRequest request = Prompt(Tokens(3 + c * 7 + i, c), 30);
        auto stream = served.engine->Generate(request);
        ASSERT_TRUE(stream.has_value());
        const auto [tokens, end] = ReadAll(**stream);
        EXPECT_EQ(tokens, ExpectAnswer(request, served.engine->context_max()));
        EXPECT_EQ(end.kind, Event::Kind::kDone);
        EXPECT_LE(end.stats.queue_s, end.stats.first_token_s);
        EXPECT_LE(end.stats.first_token_s, end.stats.total_s);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  const EngineSnapshot snapshot = served.engine->Snapshot();
  EXPECT_EQ(snapshot.requests_done, 40);
  EXPECT_EQ(snapshot.generated_tokens, 40 * 30);
  EXPECT_EQ(snapshot.kv_blocks_used, 0);
  EXPECT_EQ(snapshot.running + snapshot.waiting, 0);
}

TEST(Engine, EmbedsFromManyThreads) {
  Served served(Small(), {.is_encoder = true});
  std::vector<std::thread> clients;
  for (int32_t c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      EmbedRequest request;
      request.normalize = false;
      for (int32_t i = 0; i < 20; ++i) request.sequences.push_back(Tokens(1 + (i * 5 + c) % 40, i));
      auto stream = served.engine->Embed(request);
      ASSERT_TRUE(stream.has_value());
      const auto [tokens, end] = ReadAll(**stream);
      ASSERT_EQ(end.embeddings.size(), 20u);
      for (size_t i = 0; i < 20; ++i) EXPECT_EQ(end.embeddings[i], ExpectMean(request.sequences[i], true));
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST(Engine, WakersReadStreams) {
  Served served;
  std::atomic<int> ended = 0;
  std::vector<std::unique_ptr<EventStream>> streams;
  for (int32_t i = 0; i < 8; ++i) {
    streams.push_back(*served.engine->Generate(Prompt(Tokens(4, i), 40)));
    EventStream* stream = streams.back().get();
    stream->SetWaker([&, stream] {
      while (auto event = stream->TryNext()) {
        if (event->terminal() && ++ended == 8) ended.notify_all();
      }
    });
  }
  for (int seen = ended; seen < 8; seen = ended) ended.wait(seen);
}

TEST(Engine, CancelEndsTheStream) {
  EngineOptions options = Small();
  options.stream_depth_max = 4;  // so that the answer cannot be over before
  Served served(options);
  const auto stream = *served.engine->Generate(Prompt(Tokens(4), 200));
  EXPECT_TRUE(stream->Next().has_value());
  stream->Cancel();
  const auto [tokens, end] = ReadAll(*stream);
  EXPECT_EQ(end.kind, Event::Kind::kCancelled);
  EXPECT_EQ(served.engine->Snapshot().kv_blocks_used, 0);
  EXPECT_EQ(served.engine->Snapshot().requests_cancelled, 1);
}

TEST(Engine, DroppedStreamsFreeTheirBlocks) {
  EngineOptions options = Small();
  options.stream_depth_max = 4;
  Served served(options);
  for (int32_t i = 0; i < 8; ++i) (void)*served.engine->Generate(Prompt(Tokens(20, i), 200));
  EXPECT_TRUE(served.engine->Drain(60'000));
  EXPECT_EQ(served.engine->Snapshot().kv_blocks_used, 0);
  EXPECT_EQ(served.engine->Snapshot().requests_cancelled, 8);
}

TEST(Engine, SlowReaderGetsEverything) {
  EngineOptions options = Small();
  options.stream_depth_max = 1;
  Served served(options);
  const GenerateRequest request = Prompt(Tokens(90), 100);
  const auto stream = *served.engine->Generate(request);
  EXPECT_EQ(ReadAll(*stream).first, ExpectAnswer(request, served.engine->context_max()));
}

TEST(Engine, FullQueueRefuses) {
  EngineOptions options = Small();
  options.sequences_max = 1;
  options.queue_depth_max = 1;
  options.stream_depth_max = 1;
  Served served(options);
  const auto running = *served.engine->Generate(Prompt(Tokens(4), 50));
  const auto waiting = *served.engine->Generate(Prompt(Tokens(4), 50));
  const auto refused = served.engine->Generate(Prompt(Tokens(4), 50));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().reason(), ErrorReason::kQueueFull);
  EXPECT_EQ(ReadAll(*running).second.kind, Event::Kind::kDone);
  EXPECT_EQ(ReadAll(*waiting).second.kind, Event::Kind::kDone);
  EXPECT_EQ(served.engine->Snapshot().requests_refused, 1);
}

TEST(Engine, DrainRefusesNewAndEndsOld) {
  EngineOptions options = Small();
  options.stream_depth_max = 2;
  Served served(options);
  const auto stuck = *served.engine->Generate(Prompt(Tokens(4), 50));  // nobody reads it
  EXPECT_FALSE(served.engine->Drain(1));
  const auto refused = served.engine->Generate(Prompt(Tokens(4), 50));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().reason(), ErrorReason::kShuttingDown);
  EXPECT_EQ(ReadAll(*stuck).second.kind, Event::Kind::kCancelled);
  EXPECT_TRUE(served.engine->Drain(0));
}

TEST(Engine, StreamsOutliveTheEngine) {
  auto served = std::make_unique<Served>();
  const auto stream = *served->engine->Generate(Prompt(Tokens(4), 250));
  served.reset();
  const Event end = ReadAll(*stream).second;
  EXPECT_TRUE(end.kind == Event::Kind::kCancelled || end.kind == Event::Kind::kDone);
  stream->Cancel();
}

TEST(Engine, ArriveCancelAndVanishFromManyThreads) {
  EngineOptions options = Small();
  options.kv_bytes_max = 40 * 4 * 8;
  options.stream_depth_max = 3;
  Served served(options, {.is_embedding = true});
  std::atomic<int> submitted = 0;
  std::vector<std::thread> clients;
  for (uint32_t c = 0; c < 6; ++c) {
    clients.emplace_back([&, c] {
      std::mt19937 random(c);
      for (int i = 0; i < 60; ++i) {
        Result<std::unique_ptr<EventStream>> stream = Unavailable("not yet");
        if (random() % 4 == 0) {
          EmbedRequest request;
          request.sequences = {Tokens(1 + random() % 50), Tokens(1 + random() % 50)};
          stream = served.engine->Embed(std::move(request));
        } else {
          stream = served.engine->Generate(Prompt(Tokens(1 + random() % 80, static_cast<int32_t>(c)), random() % 60));
        }
        if (!stream.has_value()) continue;
        ++submitted;
        const uint32_t fate = random() % 3;
        if (fate == 0) continue;  // vanishes
        if (fate == 1) (*stream)->Cancel();
        ReadAll(**stream);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(served.engine->Drain(60'000));
  const EngineSnapshot snapshot = served.engine->Snapshot();
  EXPECT_EQ(snapshot.requests_done + snapshot.requests_cancelled, submitted);
  EXPECT_EQ(snapshot.requests_failed, 0);
  EXPECT_EQ(snapshot.kv_blocks_used, 0);
}

}  // namespace
}  // namespace pensieve::engine
