#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <future>

#include "service/service.h"
#include "service/service_fixture.h"

namespace pensieve::service {
namespace {

using testing::ElementsAre;

class EmbedTest : public testing::Test {
 protected:
  static std::unique_ptr<Service> MakeService(const TestModelKind& kind) {
    ServiceOptions options;
    options.memory_gate = false;
    options.engine.kv_block_len = 16;
    options.engine.kv_bytes_max = 1 << 20;
    options.engine.step_rows_max = 64;
    options.engine.queue_depth_max = 4096;
    auto service = Service::Create(options);
    EXPECT_TRUE(service->AddModel("e", {"alias"}, ScriptedLoadedModel(std::make_shared<Script>(), kind)).ok());
    return service;
  }
  static Result<EmbedResult> Embed(Service& service, EmbedRequest request) {
    std::promise<Result<EmbedResult>> promise;
    service.Embed(std::move(request), [&](Result<EmbedResult> result) { promise.set_value(std::move(result)); });
    return promise.get_future().get();
  }
  static EmbedRequest Of(std::vector<std::string> texts) {
    EmbedRequest request;
    request.model = "e";
    request.texts = std::move(texts);
    return request;
  }

  std::unique_ptr<Service> encoder_ = MakeService({.is_encoder = true, .closes = true, .context_max = 8});
  std::unique_ptr<Service> decoder_ = MakeService({.is_embedding = true, .closes = true, .context_max = 8});
};

TEST_F(EmbedTest, PoolsInInputOrder) {
  EmbedRequest request = Of({"ab", "c"});
  request.pooling = PoolingChoice::kMean;
  const auto result = Embed(*encoder_, request);
  ASSERT_TRUE(result.has_value()) << result.status().ToString();
  EXPECT_EQ(result->model_name, "e");
  EXPECT_EQ(result->dimension, 4);
  EXPECT_EQ(result->prompt_tokens, 3 + 2);
  ASSERT_EQ(result->embeddings.size(), 2u);
  EXPECT_THAT(result->embeddings[0], ElementsAre((97 + 98 + 257) / 3.0f, 1, 1, 2));
  EXPECT_THAT(result->embeddings[1], ElementsAre((99 + 257) / 2.0f, 1, 0.5f, 2));
}

// One thread reports the results of all requests.
TEST_F(EmbedTest, ACallbackThatThrowsEndsNothing) {
  for (int i = 0; i < 3; ++i) {
    std::promise<void> called;
    encoder_->Embed(Of({"ab"}), [&](const Result<EmbedResult>&) {
      called.set_value();
      throw std::runtime_error("the consumer's own fault");
    });
    called.get_future().wait();
  }
  encoder_->Embed(Of({}), [](const Result<EmbedResult>&) { throw std::runtime_error("also at once"); });
  EXPECT_TRUE(Embed(*encoder_, Of({"c"})).has_value());
}

TEST_F(EmbedTest, PoolingChoices) {
  const auto first = [&](Service& service, PoolingChoice choice) {
    EmbedRequest request = Of({"ab"});
    request.pooling = choice;
    return Embed(service, request)->embeddings[0][0];
  };
  EXPECT_EQ(first(*encoder_, PoolingChoice::kModelDefault), 97);  // this encoder's recipe is the first token
  EXPECT_EQ(first(*encoder_, PoolingChoice::kMeanForDecoders), 97);
  EXPECT_EQ(first(*decoder_, PoolingChoice::kModelDefault), 257);  // this decoder's is the last
  EXPECT_NEAR(first(*decoder_, PoolingChoice::kMeanForDecoders), (97 + 98 + 257) / 3.0f, 1e-4);
  EXPECT_EQ(first(*encoder_, PoolingChoice::kLast), 257);
  EXPECT_EQ(first(*encoder_, PoolingChoice::kMax), 257);
}

TEST_F(EmbedTest, DimensionsAndNormalization) {
  EmbedRequest request = Of({"ab"});
  request.dimensions = 2;
  request.normalize = true;
  request.pooling = PoolingChoice::kCls;
  const auto result = Embed(*encoder_, request);
  EXPECT_EQ(result->dimension, 2);
  ASSERT_EQ(result->embeddings[0].size(), 2u);
  EXPECT_NEAR(std::hypot(result->embeddings[0][0], result->embeddings[0][1]), 1.0, 1e-6);
  EXPECT_NEAR(result->embeddings[0][0] / result->embeddings[0][1], 97, 1e-3);
  request.normalize = false;
  EXPECT_THAT(Embed(*encoder_, request)->embeddings[0], ElementsAre(97, 1));
  request.dimensions = 5;
  EXPECT_EQ(Embed(*encoder_, request).status().message(), "dimensions: the model has 4 of them");
}

TEST_F(EmbedTest, LongTextsAreCutAndKeepTheirLastSpecialToken) {
  EmbedRequest request = Of({"abcdefghijkl"});
  request.pooling = PoolingChoice::kLast;
  EXPECT_EQ(Embed(*encoder_, request)->embeddings[0][0], 257);
  EXPECT_EQ(Embed(*encoder_, request)->prompt_tokens, 8);
  EXPECT_EQ(Embed(*encoder_, request)->tokens[0].seen, 13);
  EXPECT_EQ(Embed(*encoder_, request)->tokens[0].used, 8);
  EXPECT_EQ(Embed(*decoder_, request)->embeddings[0][0], 257);
  request.tokens_max = 3;
  EXPECT_EQ(Embed(*encoder_, request)->prompt_tokens, 3);
  request.tokens_max = 0;
  // AkiDB's recipe for decoders: just the first tokens.
  request.pooling = PoolingChoice::kMeanForDecoders;
  EXPECT_NEAR(Embed(*decoder_, request)->embeddings[0][0], 97 + 3.5f, 1e-4);
  request.truncate = false;
  const Status refused = Embed(*encoder_, request).status();
  EXPECT_EQ(refused.message(), "prompt is too long: 13 tokens > 8 maximum");
  EXPECT_EQ(refused.reason(), ErrorReason::kPromptTooLong);
  request.texts.insert(request.texts.begin(), "a");
  EXPECT_EQ(Embed(*encoder_, request).status().message(), "input.1: prompt is too long: 13 tokens > 8 maximum");
}

TEST_F(EmbedTest, TextsOfMegabytesAreCutOrRefusedByTheirFirstPart) {
  std::string text = "abcdefghijkl";
  EmbedRequest short_request = Of({text});
  while (text.size() < 3'000'000) text += " and on";
  EmbedRequest long_request = Of({text});
  short_request.tokens_max = long_request.tokens_max = 8;  // as AkiDB's route
  EXPECT_EQ(Embed(*encoder_, long_request)->embeddings, Embed(*encoder_, short_request)->embeddings);
  EXPECT_EQ(Embed(*decoder_, long_request)->embeddings, Embed(*decoder_, short_request)->embeddings);
  EXPECT_EQ(Embed(*encoder_, long_request)->prompt_tokens, 8);
  EXPECT_LT(Embed(*encoder_, long_request)->tokens.at(0).seen, 10'000);
  long_request.truncate = false;
  EXPECT_EQ(Embed(*encoder_, long_request).status().reason(), ErrorReason::kPromptTooLong);
}

TEST_F(EmbedTest, TokenIdsAndEmptyTexts) {
  EmbedRequest request;
  request.token_ids = {{5, 7}, {9}};
  request.pooling = PoolingChoice::kMean;
  EXPECT_EQ(Embed(*encoder_, request)->embeddings[0][0], 6);
  request.token_ids = {{260}};
  EXPECT_EQ(Embed(*encoder_, request).status().code(), StatusCode::kInvalidArgument);
  request.token_ids = {{-1}};
  EXPECT_EQ(Embed(*encoder_, request).status().code(), StatusCode::kInvalidArgument);
  request.token_ids = {{}};
  EXPECT_EQ(Embed(*encoder_, request).status().code(), StatusCode::kInvalidArgument);
  request.token_ids.clear();
  EXPECT_EQ(Embed(*encoder_, request).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Embed(*encoder_, Of({""}))->prompt_tokens, 1);
  EXPECT_FALSE(Embed(*encoder_, Of({""}))->tokens[0].truncated());
}

TEST_F(EmbedTest, NamesResolve) {
  EmbedRequest request = Of({"a"});
  request.model = "alias";
  EXPECT_TRUE(Embed(*encoder_, request).has_value());
  request.model = "qwen3-0.6b-4bit";
  EXPECT_EQ(Embed(*encoder_, request)->model_name, "e");  // there is no other
  EXPECT_EQ(encoder_->FindModel("qwen3-0.6b-4bit", /*embedding=*/true).status().code(), StatusCode::kNotFound);
  request.any_model = true;
  EXPECT_EQ(Embed(*encoder_, request)->model_name, "e");
  ChatRequest chat;
  chat.model = "e";
  chat.messages = {{{"role", "user"}, {"content", "x"}}};
  EXPECT_EQ(encoder_->Chat(chat).status().message(), "model: \"e\" cannot generate text");
}

TEST_F(EmbedTest, ThousandsAtOnceEachAnswerOnce) {
  constexpr int kRequests = 3000;
  std::atomic<int> calls{0};
  std::atomic<int> right{0};
  std::promise<void> all;
  for (int i = 0; i < kRequests; ++i) {
    const auto letter = static_cast<char>('a' + i % 26);
    EmbedRequest request = Of({std::string(1, letter)});
    request.pooling = PoolingChoice::kCls;
    encoder_->Embed(request, [&, letter](const Result<EmbedResult>& result) {
      if (result.has_value() && result->embeddings[0][0] == static_cast<float>(letter)) ++right;
      if (++calls == kRequests) all.set_value();
    });
  }
  all.get_future().wait();
  EXPECT_EQ(right, kRequests);
}

TEST_F(EmbedTest, CancellingMayComeAtAnyTime) {
  std::atomic<int> calls{0};
  std::vector<std::function<void()>> cancels;
  for (int i = 0; i < 200; ++i) {
    cancels.push_back(encoder_->Embed(Of({"abc"}), [&](const Result<EmbedResult>&) { ++calls; }));
    if (i % 2 == 0) cancels.back()();
  }
  while (calls != 200) std::this_thread::yield();
  for (const auto& cancel : cancels) cancel();
  EXPECT_EQ(calls, 200);
}

TEST_F(EmbedTest, DestroyingTheServiceAnswersEverything) {
  std::atomic<int> calls{0};
  for (int i = 0; i < 500; ++i) encoder_->Embed(Of({"abc"}), [&](const Result<EmbedResult>&) { ++calls; });
  encoder_.reset();
  EXPECT_EQ(calls, 500);
}

TEST_F(EmbedTest, EarlyErrorsComeAtOnce) {
  EmbedRequest request = Of({});
  bool called = false;
  encoder_->Embed(request, [&](const Result<EmbedResult>& result) { called = !result.has_value(); });
  EXPECT_TRUE(called);
}

}  // namespace
}  // namespace pensieve::service
