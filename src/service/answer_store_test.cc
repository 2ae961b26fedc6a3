#include "service/answer_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <thread>

namespace pensieve::service {
namespace {

using testing::ElementsAre;

// One token a letter, ids from 100 on.
std::vector<DrawnToken> Letters(const std::string& text) {
  std::vector<DrawnToken> tokens;
  for (uint32_t i = 0; i < text.size(); ++i) tokens.push_back({100 + static_cast<int32_t>(i), i + 1});
  return tokens;
}

PromptPrefix Before(const std::string& text, size_t length, TextSource source = TextSource::kTemplate) {
  const std::vector<TextSpan> spans = {{text.size(), source}};
  return PrefixHasher(text, spans).At(length);
}

std::vector<int32_t> Ids(const std::optional<AnswerStore::Found>& found) {
  std::vector<int32_t> ids;
  if (!found) return ids;
  for (const DrawnToken& token : found->tokens) ids.push_back(token.id);
  return ids;
}

TEST(AnswerStore, AnAnswerIsFoundBehindItsPromptOnly) {
  AnswerStore store;
  const std::string prompt = "Q:yes.";
  store.Put(1, Before(prompt, 2), Letters("yes"), "yes");
  const auto find = [&](uint64_t partition, const std::string& text, size_t end) {
    const std::vector<PromptPrefix> candidates = {Before(text, 1), Before(text, 2)};
    return store.Find(partition, candidates, text, end);
  };
  const auto found = find(1, prompt, 5);
  EXPECT_THAT(Ids(found), ElementsAre(100, 101, 102));
  EXPECT_EQ(found->begin, 2u);
  EXPECT_THAT(Ids(find(2, prompt, 5)), ElementsAre()) << "another partition";
  EXPECT_THAT(Ids(find(1, "q:yes.", 5)), ElementsAre()) << "another prompt";
  EXPECT_THAT(Ids(find(1, "Q:yet.", 5)), ElementsAre()) << "another answer";
  EXPECT_THAT(Ids(find(1, "Q:yes.", 6)), ElementsAre()) << "more than the answer";
  EXPECT_THAT(Ids(find(1, "Q:yes.", 4)), ElementsAre(100, 101)) << "cut by the client, or by a stop sequence";
  const std::vector<PromptPrefix> by_other = {Before(prompt, 2, TextSource::kRequest)};
  EXPECT_THAT(Ids(store.Find(1, by_other, prompt, 5)), ElementsAre()) << "the same bytes by another author";
}

TEST(AnswerStore, ACutWithinATokenFindsNothing) {
  AnswerStore store;
  store.Put(0, Before("Q", 1), {{7, 2}, {8, 3}}, "yes");
  const std::vector<PromptPrefix> behind = {Before("Q", 1)};
  EXPECT_THAT(Ids(store.Find(0, behind, "Qyes", 2)), ElementsAre());
  EXPECT_THAT(Ids(store.Find(0, behind, "Qyes", 3)), ElementsAre(7));
}

TEST(AnswerStore, SeveralAnswersOfOnePromptAreKeptApart) {
  AnswerStore store;
  const std::vector<PromptPrefix> behind = {Before("Q", 1)};
  store.Put(0, behind[0], {{1, 1}}, "a");
  store.Put(0, behind[0], {{2, 1}}, "b");
  store.Put(0, behind[0], {{3, 1}}, "a");
  EXPECT_EQ(store.entries(), 2u);
  EXPECT_THAT(Ids(store.Find(0, behind, "Qa", 2)), ElementsAre(3));
  EXPECT_THAT(Ids(store.Find(0, behind, "Qb", 2)), ElementsAre(2));
}

TEST(AnswerStore, TheLeastRecentlyUsedGoesFirst) {
  AnswerStore store({.entries_max = 3, .bytes_max = 1 << 20});
  const auto key = [](int i) { return Before(fmt::format("prompt {}", i), 8); };
  const auto find = [&](int i) {
    const std::vector<PromptPrefix> behind = {key(i)};
    return !Ids(store.Find(0, behind, fmt::format("prompt {}a", i), 9)).empty();
  };
  for (int i = 0; i < 3; ++i) store.Put(0, key(i), {{i, 1}}, "a");
  EXPECT_TRUE(find(0));
  store.Put(0, key(3), {{3, 1}}, "a");
  EXPECT_TRUE(find(0));
  EXPECT_FALSE(find(1));
  EXPECT_EQ(store.entries(), 3u);
}

TEST(AnswerStore, BytesAreBounded) {
  AnswerStore store({.entries_max = 1000, .bytes_max = 4096});
  for (int i = 0; i < 100; ++i) {
    store.Put(0, Before(fmt::format("{:04}", i), 4), Letters(std::string(50, 'x')), std::string(50, 'x'));
    EXPECT_LE(store.bytes(), 4096u);
  }
  EXPECT_GT(store.entries(), 2u);
  store.Put(0, Before("huge", 4), Letters(std::string(5000, 'x')), std::string(5000, 'x'));
  EXPECT_LE(store.bytes(), 4096u);
  EXPECT_GT(store.entries(), 2u) << "what is too large drives nothing out";
}

TEST(AnswerStore, ServesManyThreads) {
  AnswerStore store({.entries_max = 16, .bytes_max = 1 << 20});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store, t] {
      for (int i = 0; i < 500; ++i) {
        const std::string prompt = fmt::format("{}{:03}", t, i % 40);
        const std::vector<PromptPrefix> behind = {Before(prompt, 4)};
        store.Put(0, behind[0], {{i, 1}}, "a");
        const auto found = store.Find(0, behind, prompt + "a", 5);
        EXPECT_TRUE(!found || found->tokens.back().id == i);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(store.entries(), 16u);
}

}  // namespace
}  // namespace pensieve::service
