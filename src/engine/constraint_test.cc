// Constrained answers: what is drawn, when they end, and who waits for a mask.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <semaphore>

#include "engine/engine_core.h"
#include "engine/engine_fixture.h"

namespace pensieve::engine {
namespace {

// Allows ids that are multiples of `step`; may end behind `len_min` tokens and must behind `len_max`.
class Multiples : public sampling::Constraint {
 public:
  Multiples(int32_t step, int64_t len_min, int64_t len_max) : step_(step), len_min_(len_min), len_max_(len_max) {}

  int32_t vocab_size() const override { return kTestVocab; }
  void FillMask(sampling::TokenSet& mask) override {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
    mask.Clear();
    for (int32_t id = 0; id < kTestVocab && len_ < len_max_; id += step_) mask.Add(id);
  }
  bool Accept(int32_t id) override {
    if (id % step_ != 0 || len_ >= len_max_) return false;
    ++len_;
    return true;
  }
  bool AcceptBytes(std::string_view) override { return false; }
  void Rollback(int64_t num_tokens) override { len_ -= num_tokens; }
  bool accepting() const override { return len_ >= len_min_; }
  bool finished() const override { return len_ >= len_max_; }
  std::unique_ptr<Constraint> Clone() const override { return std::make_unique<Multiples>(step_, len_min_, len_max_); }

  // Masks wait until they are let through.
  void Close() { open_ = false; }
  void Open() {
    {
      const std::lock_guard lock(mutex_);
      open_ = true;
    }
    opened_.notify_all();
  }

 private:
  const int32_t step_;
  const int64_t len_min_;
  const int64_t len_max_;
  int64_t len_ = 0;
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = true;
};

class ConstraintTest : public ::testing::Test {
 protected:
  ConstraintTest() {
    EngineOptions options;
    options.kv_block_len = 4;
    options.kv_dtype = backend::KvDType::kF32;
    options.kv_bytes_max = 64 * 4 * 8;
    options.step_rows_max = 32;
    core_ = *EngineCore::Create(backend_, model_, options, [this] { woken_.release(); });
  }

  std::shared_ptr<Request> Submit(int64_t new_tokens_max, std::shared_ptr<sampling::Constraint> constraint,
                                  std::vector<int32_t> stop_ids = {}) {
    GenerateRequest generate;
    generate.prompt = {1, 2, 3, 4, 5};
    generate.new_tokens_max = new_tokens_max;
    generate.sampling.temperature = 1.5f;
    generate.sampling.seed = 7;
    generate.stop_ids = std::move(stop_ids);
    generate.constraint = std::move(constraint);
    EXPECT_TRUE(core_->Check(generate).ok());
    EXPECT_TRUE(core_->Reserve().ok());
    auto request = std::make_shared<Request>(std::move(generate), 1000, wake_);
    core_->Add(request);
    return request;
  }

  void StepUntilIdle() {
    while (core_->Step()) EXPECT_TRUE(core_->CheckIntegrity().ok());
  }
  // Until all requests are over.
  void RunToTheEnd() {
    while (core_->requests_in() > 0) {
      StepUntilIdle();
      if (core_->requests_in() > 0) woken_.acquire();
    }
  }

  struct Taken {
    std::vector<int32_t> tokens;
    std::optional<Event> end;
  };
  static Taken TakeAll(Request& request) {
    Taken taken;
    while (auto event = request.events.TryNext()) {
      if (event->kind == Event::Kind::kToken) taken.tokens.push_back(event->sample.id);
      if (event->terminal()) taken.end = std::move(event);
    }
    return taken;
  }

  TestBackend backend_;
  TestModel model_{{}, backend_};
  const std::shared_ptr<WakeSignal> wake_ = std::make_shared<WakeSignal>();
  std::counting_semaphore<> woken_{0};
  std::unique_ptr<EngineCore> core_;
};

TEST_F(ConstraintTest, OnlyWhatIsAllowedIsDrawnUntilNothingCanFollow) {
  const auto request = Submit(100, std::make_shared<Multiples>(3, 7, 7), {1});
  RunToTheEnd();
  const Taken taken = TakeAll(*request);
  EXPECT_EQ(taken.tokens.size(), 7u);
  for (const int32_t id : taken.tokens) EXPECT_EQ(id % 3, 0);
  ASSERT_TRUE(taken.end.has_value());
  EXPECT_EQ(taken.end->kind, Event::Kind::kDone);
  EXPECT_EQ(taken.end->finish, FinishReason::kStop);
}

TEST_F(ConstraintTest, StopIdsEndAnAnswerOnlyWhereItMayEnd) {
  // 1 is no multiple of 2: it can only be drawn to stop.
  const auto request = Submit(100, std::make_shared<Multiples>(2, 5, 1000), {1});
  RunToTheEnd();
  const Taken taken = TakeAll(*request);
  EXPECT_GE(taken.tokens.size(), 5u);
  ASSERT_TRUE(taken.end.has_value());
  EXPECT_EQ(taken.end->finish, FinishReason::kStop);
  for (const int32_t id : taken.tokens) EXPECT_EQ(id % 2, 0);
}

TEST_F(ConstraintTest, TheLimitOfTokensHolds) {
  const auto request = Submit(4, std::make_shared<Multiples>(2, 10, 1000));
  RunToTheEnd();
  const Taken taken = TakeAll(*request);
  EXPECT_EQ(taken.tokens.size(), 4u);
  EXPECT_EQ(taken.end->finish, FinishReason::kLength);
}

TEST_F(ConstraintTest, ALateMaskDelaysItsOwnSequenceOnly) {
  const auto late = std::make_shared<Multiples>(2, 5, 5);
  late->Close();
  const auto waiting = Submit(100, late);
  const auto free = Submit(20, nullptr);
  StepUntilIdle();
  const Taken taken = TakeAll(*free);
  EXPECT_EQ(taken.tokens.size(), 20u);
  EXPECT_TRUE(taken.end.has_value());
  EXPECT_TRUE(TakeAll(*waiting).tokens.empty());
  late->Open();
  RunToTheEnd();
  EXPECT_EQ(TakeAll(*waiting).tokens.size(), 5u);
}

TEST_F(ConstraintTest, WhatIsDrawnDoesNotDependOnWhetherTheMaskWasLate) {
  const auto prompt = Submit(100, std::make_shared<Multiples>(2, 8, 8));
  RunToTheEnd();
  const auto late = std::make_shared<Multiples>(2, 8, 8);
  late->Close();
  const auto waiting = Submit(100, late);
  StepUntilIdle();
  late->Open();
  RunToTheEnd();
  EXPECT_EQ(TakeAll(*waiting).tokens, TakeAll(*prompt).tokens);
}

TEST_F(ConstraintTest, AnAnswerThatWaitsForItsMaskCanBeCancelled) {
  const auto late = std::make_shared<Multiples>(2, 5, 5);
  late->Close();
  const auto waiting = Submit(100, late);
  StepUntilIdle();
  waiting->cancelled = true;
  StepUntilIdle();
  EXPECT_EQ(TakeAll(*waiting).end->kind, Event::Kind::kCancelled);
  EXPECT_EQ(core_->requests_in(), 0);
  late->Open();
  woken_.acquire();
  StepUntilIdle();
}

TEST_F(ConstraintTest, NothingAllowedIsAnError) {
  const auto request = Submit(100, std::make_shared<Multiples>(2, 5, 0));
  RunToTheEnd();
  const Taken taken = TakeAll(*request);
  EXPECT_EQ(taken.end->kind, Event::Kind::kError);
  EXPECT_NE(taken.end->error.message().find("vocabulary"), std::string::npos);
}

}  // namespace
}  // namespace pensieve::engine
