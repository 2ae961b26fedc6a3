#include "engine/engine_core.h"

#include <map>
#include <random>

#include <gtest/gtest.h>

#include "engine/engine_fixture.h"

namespace pensieve::engine {
namespace {

// A core with its device, driven by hand. Every step ends with CheckIntegrity.
class Bench {
 public:
  explicit Bench(EngineOptions options = {}, const TestModelOptions& model_options = {})
      : network(model_options, backend) {
    auto created = EngineCore::Create(backend, network, options);
    EXPECT_TRUE(created.has_value()) << created.status().ToString();
    core = *std::move(created);
    stream_depth = options.stream_depth_max;
  }

  std::shared_ptr<Request> Submit(GenerateRequest request) {
    EXPECT_TRUE(core->Check(request).ok()) << core->Check(request).ToString();
    if (!core->Reserve().ok()) return nullptr;
    auto shared = std::make_shared<Request>(std::move(request), stream_depth, wake);
    core->Add(shared);
    return shared;
  }
  std::shared_ptr<Request> Submit(EmbedRequest request) {
    EXPECT_TRUE(core->Check(request).ok()) << core->Check(request).ToString();
    if (!core->Reserve().ok()) return nullptr;
    auto shared = std::make_shared<Request>(std::move(request), wake);
    core->Add(shared);
    return shared;
  }

  bool Step() {
    const bool worked = core->Step();
    const Status status = core->CheckIntegrity();
    EXPECT_TRUE(status.ok()) << status.ToString();
    return worked;
  }
  void StepUntilIdle() {
    for (int i = 0; i < 100000 && Step(); ++i) {}
  }

  TestBackend backend;
  TestModel network;
  std::unique_ptr<EngineCore> core;
  std::shared_ptr<WakeSignal> wake = std::make_shared<WakeSignal>();
  int64_t stream_depth = 0;
};

// Takes what a stream holds.
struct Taken {
  std::vector<int32_t> tokens;
  std::vector<Event> ends;

  void From(Request& request) {
    while (auto event = request.events.TryNext()) {
      if (event->kind == Event::Kind::kToken) tokens.push_back(event->sample.id);
      if (event->terminal()) ends.push_back(std::move(*event));
    }
  }
};

Taken TakeAll(Request& request) {
  Taken taken;
  taken.From(request);
  return taken;
}

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
  options.kv_bytes_max = 64 * 4 * 8;  // 64 blocks
  options.step_rows_max = 32;
  options.sequences_max = 8;
  options.queue_depth_max = 1000;
  return options;
}

TEST(EngineCore, AnswersAsTheUnpagedModelDoes) {
  Bench bench(Small());
  for (const int64_t prompt_len : {1, 3, 4, 5, 31, 32, 33, 100}) {
    const GenerateRequest request = Prompt(Tokens(prompt_len), 20);
    const auto running = bench.Submit(request);
    bench.StepUntilIdle();
    const Taken taken = TakeAll(*running);
    EXPECT_EQ(taken.tokens, ExpectAnswer(request, bench.core->context_max()));
    ASSERT_EQ(taken.ends.size(), 1u);
    EXPECT_EQ(taken.ends[0].kind, Event::Kind::kDone);
    EXPECT_EQ(taken.ends[0].finish, FinishReason::kLength);
    EXPECT_EQ(taken.ends[0].stats.prompt_tokens, prompt_len);
    EXPECT_EQ(taken.ends[0].stats.new_tokens, 20);
  }
  EXPECT_EQ(bench.core->Snapshot().kv_blocks_used, 0);
}

TEST(EngineCore, AnswersBesideOthersAreTheSame) {
  Bench bench(Small());
  std::vector<GenerateRequest> requests;
  std::vector<std::shared_ptr<Request>> running;
  for (int32_t i = 0; i < 12; ++i) {
    requests.push_back(Prompt(Tokens(1 + i * 3, i), 10 + i));
    requests.back().sampling.temperature = i % 2 == 0 ? 0.0f : 1.5f;
    requests.back().sampling.seed = static_cast<uint64_t>(i);
    requests.back().sampling.repetition_penalty = i % 3 == 0 ? 1.3f : 1.0f;
    running.push_back(bench.Submit(requests.back()));
  }
  bench.StepUntilIdle();
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(TakeAll(*running[i]).tokens, ExpectAnswer(requests[i], bench.core->context_max())) << i;
}

TEST(EngineCore, StopIdsEndWithoutBeingDelivered) {
  Bench bench(Small());
  GenerateRequest request = Prompt(Tokens(5), 50);
  const std::vector<int32_t> free_answer = ExpectAnswer(request, bench.core->context_max());
  request.stop_ids = {free_answer[3]};
  const auto stopped = bench.Submit(request);
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*stopped);
  EXPECT_EQ(taken.tokens, ExpectAnswer(request, bench.core->context_max()));
  EXPECT_LE(taken.tokens.size(), 3u);
  EXPECT_EQ(taken.ends.at(0).finish, FinishReason::kStop);
  EXPECT_EQ(taken.ends.at(0).stats.new_tokens, static_cast<int64_t>(taken.tokens.size()));

  request.ignore_stop_ids = true;
  const auto ignoring = bench.Submit(request);
  bench.StepUntilIdle();
  const Taken all = TakeAll(*ignoring);
  EXPECT_EQ(all.tokens.size(), 50u);
  EXPECT_EQ(std::count(all.tokens.begin(), all.tokens.end(), request.stop_ids[0]), 0);
}

TEST(EngineCore, VocabLimitIsNeverReached) {
  Bench bench(Small());
  GenerateRequest request = Prompt(Tokens(5), 100);
  request.vocab_limit = 7;
  const auto running = bench.Submit(request);
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*running);
  EXPECT_EQ(taken.tokens.size(), 100u);
  EXPECT_LT(*std::max_element(taken.tokens.begin(), taken.tokens.end()), 7);
}

TEST(EngineCore, FullContextEndsTheAnswer) {
  Bench bench(Small(), {.context_max = 50});
  const GenerateRequest request = Prompt(Tokens(45), 1000);
  const auto running = bench.Submit(request);
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*running);
  EXPECT_EQ(taken.tokens.size(), 5u);
  EXPECT_EQ(taken.tokens, ExpectAnswer(request, 50));
  EXPECT_EQ(taken.ends.at(0).finish, FinishReason::kContextFull);
}

TEST(EngineCore, ZeroNewTokensOnlyPrefills) {
  Bench bench(Small());
  const auto running = bench.Submit(Prompt(Tokens(70), 0));
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*running);
  EXPECT_TRUE(taken.tokens.empty());
  EXPECT_EQ(taken.ends.at(0).finish, FinishReason::kLength);
  EXPECT_EQ(bench.core->Snapshot().prompt_tokens, 70);
}

TEST(EngineCore, RefusesWhatCanNeverRun) {
  Bench bench(Small(), {.context_max = 50});
  EXPECT_EQ(bench.core->Check(Prompt({}, 1)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(bench.core->Check(Prompt({-1}, 1)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(bench.core->Check(Prompt({kTestVocab}, 1)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(bench.core->Check(Prompt({1}, -1)).code(), StatusCode::kInvalidArgument);
  const Status too_long = bench.core->Check(Prompt(Tokens(50), 1));
  EXPECT_EQ(too_long.reason(), ErrorReason::kPromptTooLong);
  EXPECT_EQ(too_long.message(), "prompt is too long: 50 tokens > 49 maximum");
  EXPECT_TRUE(bench.core->Check(Prompt(Tokens(49), 1)).ok());
  EmbedRequest embed;
  embed.sequences = {{1}};
  EXPECT_EQ(bench.core->Check(embed).code(), StatusCode::kInvalidArgument);
}

TEST(EngineCore, BadOptionsAreNamed) {
  TestBackend backend;
  TestModel network({}, backend);
  const auto message = [&](const EngineOptions& options) {
    return EngineCore::Create(backend, network, options).status().message();
  };
  EngineOptions options;
  options.kv_bytes_max = 10;
  EXPECT_NE(message(options).find("kv_bytes_max is 10"), std::string::npos);
  options = {};
  options.sequences_max = 0;
  EXPECT_NE(message(options).find("sequences_max"), std::string::npos);
  options = {};
  options.step_rows_max = 0;
  EXPECT_NE(message(options).find("step_rows_max"), std::string::npos);
  options = {};
  options.stream_depth_max = 0;
  EXPECT_NE(message(options).find("stream_depth_max"), std::string::npos);
}

TEST(EngineCore, QueueFullRefusesWithARetryHint) {
  EngineOptions options = Small();
  options.sequences_max = 2;
  options.queue_depth_max = 1;
  Bench bench(options);
  for (int i = 0; i < 3; ++i) EXPECT_NE(bench.Submit(Prompt(Tokens(3), 2)), nullptr);
  const Status status = bench.core->Reserve();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.reason(), ErrorReason::kQueueFull);
  EXPECT_GT(status.retry_after_ms(), 0);
  EXPECT_EQ(bench.core->Snapshot().requests_refused, 1);
  bench.StepUntilIdle();
  EXPECT_TRUE(bench.core->Reserve().ok());
}

TEST(EngineCore, SharedPrefixIsNotComputedAgain) {
  Bench bench(Small());
  const GenerateRequest request = Prompt(Tokens(21), 3);
  bench.Submit(request);
  bench.StepUntilIdle();
  EXPECT_EQ(bench.core->Snapshot().prompt_tokens, 21);
  EXPECT_EQ(bench.core->Snapshot().kv_blocks_cached, 5);

  const auto again = bench.Submit(request);
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*again);
  EXPECT_EQ(taken.tokens, ExpectAnswer(request, bench.core->context_max()));
  EXPECT_EQ(taken.ends.at(0).stats.cached_prompt_tokens, 20);
  EXPECT_EQ(bench.core->Snapshot().prompt_tokens, 22);
  EXPECT_EQ(bench.core->Snapshot().cached_prompt_tokens, 20);
}

TEST(EngineCore, OnePromptTokenIsAlwaysComputed) {
  Bench bench(Small());
  const GenerateRequest request = Prompt(Tokens(20), 3);  // a whole number of blocks
  bench.Submit(request);
  bench.StepUntilIdle();
  const auto again = bench.Submit(request);
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*again);
  EXPECT_EQ(taken.ends.at(0).stats.cached_prompt_tokens, 16);
  EXPECT_EQ(taken.tokens, ExpectAnswer(request, bench.core->context_max()));
}

// The next turn: all of `turn`, what was said to it, and `more`.
GenerateRequest NextTurn(const GenerateRequest& turn, const std::vector<int32_t>& answer,
                         const std::vector<int32_t>& more) {
  GenerateRequest next = turn;
  const auto prompt_len = static_cast<int64_t>(turn.prompt.size());
  next.prompt.insert(next.prompt.end(), answer.begin(), answer.end());
  next.precise_ranges.push_back({prompt_len, prompt_len + static_cast<int64_t>(answer.size())});
  next.prompt.insert(next.prompt.end(), more.begin(), more.end());
  return next;
}

TEST(EngineCore, AnAnswerIsNotComputedAgainInTheNextTurn) {
  Bench bench(Small());
  GenerateRequest turn = Prompt(Tokens(81), 22);
  int64_t cached = 0;
  for (int i = 0; i < 4; ++i) {
    const auto running = bench.Submit(turn);
    bench.StepUntilIdle();
    const Taken taken = TakeAll(*running);
    EXPECT_EQ(taken.tokens, ExpectAnswer(turn, bench.core->context_max()));
    EXPECT_EQ(taken.ends.at(0).stats.cached_prompt_tokens, cached);
    // All full blocks but those with the last token of the answer, which was drawn and never computed.
    cached = static_cast<int64_t>(turn.prompt.size() + taken.tokens.size() - 1) / 4 * 4;
    turn = NextTurn(turn, taken.tokens, Tokens(9, i));
  }
}

TEST(EngineCore, APreparedAnswerIsComputedAsAGeneratedOne) {
  const GenerateRequest turn = Prompt(Tokens(81), 22);
  const GenerateRequest next = NextTurn(turn, ExpectAnswer(turn, 256), Tokens(9, 3));
  for (const int64_t rows : {3, 7, 64}) {
    EngineOptions options = Small();
    options.step_rows_max = rows;
    Bench bench(options);
    const auto fresh = bench.Submit(next);
    const GenerateRequest beside = Prompt(Tokens(70, 5), 10);
    const auto other = bench.Submit(beside);
    bench.StepUntilIdle();
    EXPECT_EQ(TakeAll(*fresh).tokens, ExpectAnswer(next, bench.core->context_max()));
    EXPECT_EQ(TakeAll(*other).tokens, ExpectAnswer(beside, bench.core->context_max()));
  }
}

TEST(EngineCore, OtherPrecisionIsAnotherPrefix) {
  Bench bench(Small());
  const GenerateRequest turn = Prompt(Tokens(81), 22);
  const auto running = bench.Submit(turn);
  bench.StepUntilIdle();
  GenerateRequest unmarked = NextTurn(turn, TakeAll(*running).tokens, Tokens(9, 3));
  unmarked.precise_ranges.clear();
  GenerateRequest shifted = unmarked;
  shifted.precise_ranges = {{70, 75}, {76, 90}};
  const auto expect_cached = [&](const GenerateRequest& request, int64_t cached) {
    const auto again = bench.Submit(request);
    bench.StepUntilIdle();
    const Taken taken = TakeAll(*again);
    EXPECT_EQ(taken.ends.at(0).stats.cached_prompt_tokens, cached);
    EXPECT_EQ(taken.tokens, ExpectAnswer(request, bench.core->context_max()));
  };
  expect_cached(unmarked, 80);  // the prompt, but not the answer
  expect_cached(shifted, 68);
  expect_cached(unmarked, 108);
  // Among the first positions every row is precise: marks there change nothing.
  GenerateRequest marked = Prompt(Tokens(81), 22);
  marked.precise_ranges = {{3, 40}};
  expect_cached(marked, 80);
}

TEST(EngineCore, RangesOfPreciseTokensAreChecked) {
  Bench bench(Small());
  const auto check = [&](std::vector<TokenRange> ranges) {
    GenerateRequest request = Prompt(Tokens(20), 1);
    request.precise_ranges = std::move(ranges);
    return bench.core->Check(request).code();
  };
  EXPECT_EQ(check({{0, 5}, {5, 20}}), StatusCode::kOk);
  EXPECT_EQ(check({{-1, 5}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(check({{4, 4}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(check({{4, 21}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(check({{4, 8}, {7, 9}}), StatusCode::kInvalidArgument);
}

TEST(EngineCore, PartitionsDoNotShare) {
  Bench bench(Small());
  GenerateRequest request = Prompt(Tokens(21), 1);
  bench.Submit(request);
  bench.StepUntilIdle();
  request.cache_partition = 7;
  const auto other = bench.Submit(request);
  bench.StepUntilIdle();
  EXPECT_EQ(TakeAll(*other).ends.at(0).stats.cached_prompt_tokens, 0);
}

TEST(EngineCore, KeysOfTheTwoRotationsNeverMeet) {
  Bench bench(Small(), {.short_context_max = 40});
  const GenerateRequest short_request = Prompt(Tokens(21), 19);  // 40 tokens in all: still short
  GenerateRequest long_request = short_request;
  long_request.new_tokens_max = 20;
  const auto run = [&](const GenerateRequest& request) {
    const auto running = bench.Submit(request);
    bench.StepUntilIdle();
    return TakeAll(*running);
  };
  const auto expect = [&](const GenerateRequest& request, bool long_rope, int64_t cached) {
    const Taken taken = run(request);
    EXPECT_EQ(taken.tokens, ExpectAnswer(request, bench.core->context_max(), long_rope));
    EXPECT_EQ(taken.ends.at(0).stats.cached_prompt_tokens, cached);
  };
  expect(short_request, false, 0);
  expect(long_request, true, 0);
  expect(short_request, false, 20);
  expect(long_request, true, 20);
  // At the same time, too: neither waits for the other's blocks nor takes them.
  bench.core->CancelAll();
  const GenerateRequest a = Prompt(Tokens(30, 5), 10);
  GenerateRequest b = a;
  b.new_tokens_max = 30;
  const auto both = {bench.Submit(a), bench.Submit(b)};
  bench.StepUntilIdle();
  EXPECT_EQ(TakeAll(**both.begin()).tokens, ExpectAnswer(a, bench.core->context_max(), false));
  EXPECT_EQ(TakeAll(**(both.begin() + 1)).tokens, ExpectAnswer(b, bench.core->context_max(), true));
}

TEST(EngineCore, PreemptedAnswersKeepTheirRotation) {
  EngineOptions options = Small();
  options.kv_bytes_max = 20 * 4 * 8;  // 20 blocks: 80 tokens
  Bench bench(options, {.short_context_max = 40});
  std::vector<GenerateRequest> requests;
  std::vector<std::shared_ptr<Request>> running;
  for (int32_t i = 0; i < 6; ++i) {
    requests.push_back(Prompt(Tokens(6), i % 2 == 0 ? 34 : 60));  // 40 tokens in all, or 66
    running.push_back(bench.Submit(requests.back()));
  }
  bench.StepUntilIdle();
  EXPECT_GT(bench.core->Snapshot().preemptions, 0);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(TakeAll(*running[i]).tokens, ExpectAnswer(requests[i], bench.core->context_max(), i % 2 == 1)) << i;
  }
}

TEST(EngineCore, TwinsComputeTheirPromptOnce) {
  Bench bench(Small());
  const GenerateRequest request = Prompt(Tokens(40), 30);
  const auto a = bench.Submit(request);
  const auto b = bench.Submit(request);
  for (int i = 0; i < 6; ++i) bench.Step();
  // 10 prompt blocks (the last of them once each, for the logits of its last row), and the beginnings of two answers.
  EXPECT_LE(bench.core->Snapshot().kv_blocks_used, 10 + 2 * 2);
  EXPECT_EQ(bench.core->Snapshot().prompt_tokens, 44);
  EXPECT_EQ(bench.core->Snapshot().cached_prompt_tokens, 36);
  bench.StepUntilIdle();
  const std::vector<int32_t> expected = ExpectAnswer(request, bench.core->context_max());
  EXPECT_EQ(TakeAll(*a).tokens, expected);
  EXPECT_EQ(TakeAll(*b).tokens, expected);
}

TEST(EngineCore, PreemptedAnswersGoOnAsIfNothingHadHappened) {
  EngineOptions options = Small();
  options.kv_bytes_max = 20 * 4 * 8;  // 20 blocks: 80 tokens
  Bench bench(options);
  std::vector<GenerateRequest> requests;
  std::vector<std::shared_ptr<Request>> running;
  for (int32_t i = 0; i < 5; ++i) {
    requests.push_back(Prompt(Tokens(5 + i, 10 * i), 50));
    requests.back().sampling.temperature = 1.0f;
    requests.back().sampling.seed = static_cast<uint64_t>(i);
    running.push_back(bench.Submit(requests.back()));
  }
  bench.StepUntilIdle();
  EXPECT_GT(bench.core->Snapshot().preemptions, 0);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Taken taken = TakeAll(*running[i]);
    EXPECT_EQ(taken.tokens, ExpectAnswer(requests[i], bench.core->context_max())) << i;
    EXPECT_EQ(taken.ends.size(), 1u);
  }
}

TEST(EngineCore, CancelFreesBlocksAtTheNextStep) {
  Bench bench(Small());
  const auto running = bench.Submit(Prompt(Tokens(30), 100));
  for (int i = 0; i < 4; ++i) bench.Step();
  EXPECT_GT(bench.core->Snapshot().kv_blocks_used, 0);
  const int64_t steps = bench.network.steps;
  running->cancelled.store(true);
  EXPECT_FALSE(bench.Step());
  EXPECT_EQ(bench.network.steps, steps);
  EXPECT_EQ(bench.core->Snapshot().kv_blocks_used, 0);
  EXPECT_EQ(bench.core->Snapshot().requests_cancelled, 1);
  const Taken taken = TakeAll(*running);
  ASSERT_EQ(taken.ends.size(), 1u);
  EXPECT_EQ(taken.ends[0].kind, Event::Kind::kCancelled);
}

TEST(EngineCore, CancelReachesWaitingRequests) {
  EngineOptions options = Small();
  options.sequences_max = 1;
  Bench bench(options);
  bench.Submit(Prompt(Tokens(5), 100));
  const auto waiting = bench.Submit(Prompt(Tokens(5), 100));
  bench.Step();
  EXPECT_EQ(bench.core->Snapshot().waiting, 1);
  waiting->cancelled.store(true);
  bench.Step();
  EXPECT_EQ(TakeAll(*waiting).ends.at(0).kind, Event::Kind::kCancelled);
  EXPECT_EQ(bench.core->Snapshot().waiting, 0);
}

TEST(EngineCore, SlowConsumerPausesOnlyItself) {
  EngineOptions options = Small();
  options.stream_depth_max = 3;
  Bench bench(options);
  const GenerateRequest request = Prompt(Tokens(5), 40);
  const GenerateRequest other = Prompt(Tokens(9, 3), 40);
  const auto slow = bench.Submit(request);
  const auto quick = bench.Submit(other);
  Taken of_quick;
  while (bench.Step()) of_quick.From(*quick);
  of_quick.From(*quick);
  EXPECT_EQ(of_quick.tokens, ExpectAnswer(other, bench.core->context_max()));
  EXPECT_TRUE(slow->events.full());

  Taken of_slow;
  of_slow.From(*slow);
  EXPECT_EQ(of_slow.tokens.size(), 3u);
  while (bench.Step()) of_slow.From(*slow);
  of_slow.From(*slow);
  EXPECT_EQ(of_slow.tokens, ExpectAnswer(request, bench.core->context_max()));
  EXPECT_EQ(of_slow.ends.size(), 1u);
}

TEST(EngineCore, LongPromptDoesNotStarveAShortOne) {
  EngineOptions options = Small();
  options.kv_bytes_max = 1 << 20;
  Bench bench(options);
  bench.Submit(Prompt(Tokens(200), 1));
  bench.Step();
  const auto quick = bench.Submit(Prompt(Tokens(10, 2), 1));
  bench.Step();
  EXPECT_EQ(TakeAll(*quick).ends.size(), 1u);
}

TEST(EngineCore, ProgressIsDroppedWhileTheConsumerIsBehind) {
  Bench bench(Small());
  const auto running = bench.Submit(Prompt(Tokens(200), 1));
  bench.Step();
  bench.Step();
  bench.Step();
  auto event = running->events.TryNext();
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->kind, Event::Kind::kPrefillProgress);
  EXPECT_EQ(event->prefilled_tokens, 32);
  EXPECT_FALSE(running->events.TryNext().has_value());
  bench.Step();
  EXPECT_EQ(running->events.TryNext()->prefilled_tokens, 128);
}

TEST(EngineCore, FailedStepEndsItsRequestsAndNothingElse) {
  Bench bench(Small());
  const auto a = bench.Submit(Prompt(Tokens(5), 10));
  const auto b = bench.Submit(Prompt(Tokens(50), 10));
  bench.Step();
  bench.network.steps_to_throw = 0;
  EXPECT_TRUE(bench.Step());
  for (const auto& request : {a, b}) {
    const Taken taken = TakeAll(*request);
    ASSERT_EQ(taken.ends.size(), 1u);
    EXPECT_EQ(taken.ends[0].kind, Event::Kind::kError);
    EXPECT_EQ(taken.ends[0].error.code(), StatusCode::kInternal);
    EXPECT_NE(taken.ends[0].error.message().find("the device is gone"), std::string::npos);
  }
  EXPECT_EQ(bench.core->Snapshot().kv_blocks_used, 0);
  const GenerateRequest request = Prompt(Tokens(50), 10);
  const auto later = bench.Submit(request);
  bench.StepUntilIdle();
  EXPECT_EQ(TakeAll(*later).tokens, ExpectAnswer(request, bench.core->context_max()));
}

TEST(EngineCore, LostDeviceEndsAllRequestsAndRefusesNewOnes) {
  EngineOptions options = Small();
  options.sequences_max = 1;
  Bench bench(options);
  const auto running = bench.Submit(Prompt(Tokens(5), 10));
  const auto waiting = bench.Submit(Prompt(Tokens(6), 10));
  bench.Step();
  bench.backend.waits_to_fail = 0;
  bench.backend.fails_for_good = true;
  bench.Step();
  for (const auto& request : {running, waiting}) {
    const Taken taken = TakeAll(*request);
    ASSERT_EQ(taken.ends.size(), 1u);
    EXPECT_EQ(taken.ends[0].kind, Event::Kind::kError);
    EXPECT_EQ(taken.ends[0].error.code(), StatusCode::kUnavailable);
    EXPECT_NE(taken.ends[0].error.message().find("fell off the bus"), std::string::npos);
  }
  EXPECT_EQ(bench.core->Snapshot().kv_blocks_used, 0);
  EXPECT_EQ(bench.core->Reserve().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(bench.core->Snapshot().device_lost);
  EXPECT_FALSE(bench.Step());
}

TEST(EngineCore, WeightsThatAreGoneEndTheRequestsThatReadThem) {
  Status weights;
  int quick_checks = 0;
  EngineOptions options = Small();
  options.check_weights = [&](bool quick) {
    quick_checks += quick ? 1 : 0;
    return weights;
  };
  Bench bench(options);
  const auto running = bench.Submit(Prompt(Tokens(5), 10));
  bench.Step();
  EXPECT_EQ(quick_checks, 1);
  EXPECT_FALSE(TakeAll(*running).tokens.empty());
  weights = DataLoss("model.gguf: the file was truncated");
  bench.Step();
  const Taken taken = TakeAll(*running);
  EXPECT_TRUE(taken.tokens.empty());
  ASSERT_EQ(taken.ends.size(), 1u);
  EXPECT_EQ(taken.ends[0].error.code(), StatusCode::kDataLoss);
  EXPECT_EQ(bench.core->Snapshot().kv_blocks_used, 0);
  EXPECT_EQ(bench.core->Check(Prompt(Tokens(5), 10)).code(), StatusCode::kDataLoss);
}

TEST(EngineCore, LogitsWithoutANumberAreAnError) {
  Bench bench(Small());
  bench.network.give_nan = true;
  const auto running = bench.Submit(Prompt(Tokens(5), 10));
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*running);
  EXPECT_EQ(taken.ends.at(0).kind, Event::Kind::kError);
  EXPECT_EQ(bench.core->Snapshot().requests_failed, 1);
}

// A NaN among logits is no token's probability: the answer would be drawn from what is left, as if nothing had happened.
TEST(EngineCore, OneLogitWithoutANumberIsAnError) {
  Bench bench(Small());
  bench.network.nan_column = 17;
  const auto running = bench.Submit(Prompt(Tokens(5), 10));
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*running);
  EXPECT_EQ(taken.ends.at(0).error.code(), StatusCode::kInternal);
  EXPECT_NE(taken.ends.at(0).error.message().find("NaN"), std::string::npos);
  // Columns without a text are never drawn.
  GenerateRequest limited = Prompt(Tokens(5), 1);
  limited.vocab_limit = 17;
  const auto precise = bench.Submit(limited);
  bench.StepUntilIdle();
  EXPECT_EQ(TakeAll(*precise).ends.at(0).kind, Event::Kind::kDone);
}

TEST(EngineCore, AVectorWithoutNumbersFailsItsRequestAndNoOther) {
  for (const bool is_encoder : {true, false}) {
    Bench bench(Small(), {.is_encoder = is_encoder, .is_embedding = true});
    bench.network.nan_token = 99;
    EmbedRequest broken;
    broken.sequences = {Tokens(3), {4, 99, 5}, {99}, Tokens(9)};
    EmbedRequest whole;
    whole.sequences = {Tokens(3), Tokens(4)};
    const auto a = bench.Submit(broken);
    const auto b = bench.Submit(whole);
    bench.StepUntilIdle();
    const Taken failed = TakeAll(*a);
    ASSERT_EQ(failed.ends.size(), 1u);
    EXPECT_EQ(failed.ends[0].error.code(), StatusCode::kInternal);
    EXPECT_NE(failed.ends[0].error.message().find("NaN"), std::string::npos);
    EXPECT_EQ(TakeAll(*b).ends.at(0).kind, Event::Kind::kDone);
    EXPECT_EQ(bench.core->Snapshot().kv_blocks_used, 0);
  }
}

TEST(EngineCore, EncoderEmbedsWholeTexts) {
  EngineOptions options = Small();
  options.step_rows_max = 16;
  Bench bench(options, {.rows_max = 40, .is_encoder = true});
  EXPECT_EQ(bench.core->context_max(), 40);
  EmbedRequest request;
  for (const int64_t len : {1, 5, 16, 17, 40, 2, 9})
    request.sequences.push_back(Tokens(len, static_cast<int32_t>(len)));
  request.normalize = false;
  const auto running = bench.Submit(request);
  bench.StepUntilIdle();
  const Taken taken = TakeAll(*running);
  ASSERT_EQ(taken.ends.size(), 1u);
  ASSERT_EQ(taken.ends[0].embeddings.size(), request.sequences.size());
  for (size_t i = 0; i < request.sequences.size(); ++i)
    EXPECT_EQ(taken.ends[0].embeddings[i], ExpectMean(request.sequences[i], true)) << i;
  EXPECT_EQ(bench.core->Snapshot().embedded_tokens, 90);
  EXPECT_EQ(bench.core->Check(Prompt({1}, 1)).code(), StatusCode::kInvalidArgument);
}

TEST(EngineCore, EncoderRequestsTakeTurns) {
  EngineOptions options = Small();
  options.step_rows_max = 16;
  Bench bench(options, {.rows_max = 16, .is_encoder = true});
  EmbedRequest many;
  for (int i = 0; i < 100; ++i) many.sequences.push_back(Tokens(8, i));
  EmbedRequest one;
  one.sequences = {Tokens(16)};
  const auto big = bench.Submit(many);
  const auto small = bench.Submit(one);
  bench.Step();
  bench.Step();
  EXPECT_EQ(TakeAll(*small).ends.size(), 1u);
  bench.StepUntilIdle();
  EXPECT_EQ(TakeAll(*big).ends.size(), 1u);
}

TEST(EngineCore, DecoderEmbeddingsDoNotDependOnChunks) {
  for (const auto pooling :
       {backend::Pooling::kMean, backend::Pooling::kCls, backend::Pooling::kLast, backend::Pooling::kMax}) {
    std::vector<std::vector<std::vector<float>>> results;
    for (const int64_t rows : {3, 7, 64}) {
      EngineOptions options = Small();
      options.step_rows_max = rows;
      Bench bench(options, {.is_embedding = true});
      EmbedRequest request;
      for (const int64_t len : {1, 13, 50, 64}) request.sequences.push_back(Tokens(len));
      request.pooling = pooling;
      request.normalize = pooling != backend::Pooling::kMean;
      const auto running = bench.Submit(request);
      const GenerateRequest beside = Prompt(Tokens(30, 5), 10);
      const auto generating = bench.Submit(beside);
      bench.StepUntilIdle();
      EXPECT_EQ(TakeAll(*generating).tokens, ExpectAnswer(beside, bench.core->context_max()));
      results.push_back(TakeAll(*running).ends.at(0).embeddings);
      EXPECT_EQ(bench.core->Snapshot().kv_blocks_used, 0);
      if (pooling == backend::Pooling::kMean) { EXPECT_EQ(results.back()[2], ExpectMean(request.sequences[2], false)); }
    }
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
  }
}

// Random arrivals, cancellations, slow consumers, failing steps, a device that fails at a random operation (in every
// fourth run for good) and a pool that is too small: every request ends exactly once, answers are right up to where
// they ended, and no block is lost.
class RandomSchedule : public testing::TestWithParam<uint32_t> {};

TEST_P(RandomSchedule, EveryRequestEndsOnce) {
  std::mt19937 random(GetParam());
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  EngineOptions options = Small();
  options.kv_bytes_max = (12 + pick(40)) * 4 * 8;
  options.step_rows_max = 1 + pick(40);
  options.sequences_max = 1 + pick(10);
  options.queue_depth_max = 10;
  options.stream_depth_max = 1 + pick(6);
  Bench bench(options, {.is_embedding = true});
  const int64_t context_max = bench.core->context_max();

  struct Client {
    std::shared_ptr<Request> request;
    GenerateRequest asked;
    Taken taken;
    int reads_of_8;  // how often it looks at its stream
  };
  std::map<int, Client> clients;
  int submitted = 0;
  int ended = 0;
  const auto take = [&](Client& client) {
    client.taken.From(*client.request);
    if (client.taken.ends.empty()) return false;
    EXPECT_EQ(client.taken.ends.size(), 1u);
    const Event& end = client.taken.ends[0];
    if (!client.request->is_embed) {
      std::vector<int32_t> expected = ExpectAnswer(client.asked, context_max);
      if (end.kind != Event::Kind::kDone) expected.resize(std::min(expected.size(), client.taken.tokens.size()));
      EXPECT_EQ(client.taken.tokens, expected);
    } else if (end.kind == Event::Kind::kDone) {
      EXPECT_EQ(end.embeddings.size(), client.request->num_inputs());
    }
    ++ended;
    return true;
  };
  const auto arrive = [&] {
    Client client{.request = nullptr, .asked = {}, .taken = {}, .reads_of_8 = 1 + pick(8)};
    const auto len = [&] { return 1 + pick(static_cast<int>(std::min<int64_t>(context_max - 1, 90))); };
    if (pick(5) == 0) {
      EmbedRequest embed;
      for (int i = 0; i <= pick(4); ++i) embed.sequences.push_back(Tokens(len(), pick(3)));
      client.request = bench.Submit(embed);
    } else {
      client.asked = Prompt(Tokens(len(), pick(3)), pick(60));
      client.asked.sampling.temperature = static_cast<float>(pick(3));
      // Some are drawn on the device, some on the host.
      if (pick(3) == 0) client.asked.sampling.presence_penalty = 1.0f;
      client.asked.sampling.seed = random();
      client.asked.stop_ids = {pick(kTestVocab)};
      client.request = bench.Submit(client.asked);
    }
    if (client.request != nullptr) clients.emplace(submitted++, std::move(client));
  };

  for (int step = 0; step < 1250; ++step) {
    if (pick(4) == 0) arrive();
    if (pick(300) == 0) bench.network.steps_to_throw = 0;
    if (pick(200) == 0) bench.backend.waits_to_fail = pick(6);
    if (step == 1000) bench.backend.fails_for_good = GetParam() % 4 == 3;
    for (auto it = clients.begin(); it != clients.end();) {
      if (pick(100) == 0) it->second.request->cancelled.store(true);
      const bool over = pick(8) < it->second.reads_of_8 && take(it->second);
      it = over ? clients.erase(it) : std::next(it);
    }
    bench.Step();
    if (HasFailure()) return;
  }
  for (int i = 0; i < 10000 && !clients.empty(); ++i) {
    bench.Step();
    for (auto it = clients.begin(); it != clients.end();) it = take(it->second) ? clients.erase(it) : std::next(it);
  }
  EXPECT_TRUE(clients.empty());
  EXPECT_EQ(ended, submitted);
  const EngineSnapshot snapshot = bench.core->Snapshot();
  EXPECT_EQ(snapshot.requests_done + snapshot.requests_failed + snapshot.requests_cancelled, submitted);
  EXPECT_EQ(snapshot.kv_blocks_used, 0);
  EXPECT_EQ(snapshot.running, 0);
  EXPECT_EQ(snapshot.waiting, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomSchedule, testing::Range(0u, 16u));

}  // namespace
}  // namespace pensieve::engine
