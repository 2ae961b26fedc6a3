#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "cli/help.h"
#include "cli/interrupt.h"
#include "cli/lifecycle.h"
#include "cli/served_models.h"
#include "cli/spelling.h"

namespace pensieve::cli {
namespace {

using ::testing::ElementsAre;

TEST(Spelling, FindsWhatWasMeant) {
  const std::vector<std::string> commands = {"serve", "run", "embed", "inspect", "tokenize", "list", "rm"};
  EXPECT_EQ(NearestWord("srve", commands), "serve");
  EXPECT_EQ(NearestWord("server", commands), "serve");
  EXPECT_EQ(NearestWord("tokenise", commands), "tokenize");
  EXPECT_EQ(NearestWord("rnu", commands), "run");
  EXPECT_EQ(NearestWord("lsit", commands), "list");
  EXPECT_EQ(NearestWord("dance", commands), "");
  EXPECT_EQ(NearestWord("", commands), "");
  EXPECT_EQ(NearestWord(std::string(10'000, 'x'), commands), "");
}

TEST(Help, WrapsAtBlanks) {
  EXPECT_EQ(Wrap("one two three", 8), "one two\nthree");
  EXPECT_EQ(Wrap("one two three", 7), "one two\nthree");
  EXPECT_EQ(Wrap("averylongword a b", 4), "averylongword\na b");
  EXPECT_EQ(Wrap("short\n  indented lines stay as they are\n", 10), "short\n  indented lines stay as they are\n");
  EXPECT_EQ(Wrap("", 10), "");
}

std::vector<std::string> Names(const std::vector<ResolvedModel>& models) {
  std::vector<std::string> names;
  for (const auto& model : models) names.push_back(model.name);
  return names;
}

std::string Same(const std::string& path) { return path; }

TEST(ServedModels, EqualNamesGetTheFoldersThatTellThemApart) {
  const auto models = WithDistinctNames(
      {{"/m/small/model.gguf", "model", {}}, {"/m/large/model.gguf", "model", {}}, {"/m/other.gguf", "other", {}}},
      Same);
  EXPECT_THAT(Names(models), ElementsAre("small/model", "large/model", "other"));
  const auto deep = WithDistinctNames({{"/a/q4/model.gguf", "model", {}}, {"/b/q4/model.gguf", "model", {}}}, Same);
  EXPECT_THAT(Names(deep), ElementsAre("a/q4/model", "b/q4/model"));
}

TEST(ServedModels, OneModelUnderTwoNamesComesOnceAndHasBoth) {
  const auto same_file = [](const std::string&) { return std::string("/real"); };
  const auto models =
      WithDistinctNames({{"/link", "org/repo", {"short"}}, {"/real/model.gguf", "model", {"short"}, true}}, same_file);
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0].name, "org/repo");
  EXPECT_THAT(models[0].aliases, ElementsAre("short", "model"));
  EXPECT_TRUE(models[0].embeds);
}

TEST(ServedModels, KvComesAfterTheWeights) {
  constexpr int64_t kGi = int64_t{1} << 30;
  EXPECT_EQ(KvBytesPerModel(0, 20 * kGi, 12 * kGi, 1), 2 * kGi);
  EXPECT_EQ(KvBytesPerModel(0, 20 * kGi, 12 * kGi, 2), kGi);
  EXPECT_EQ(KvBytesPerModel(3 * kGi, 20 * kGi, 12 * kGi, 3), kGi);  // what was asked for is taken
  EXPECT_EQ(KvBytesPerModel(0, std::nullopt, 12 * kGi, 1), kGi);
  EXPECT_EQ(KvBytesPerModel(0, 12 * kGi, 12 * kGi, 1), kGi / 32);
  EXPECT_GT(KvBytesPerModel(0, 20 * kGi, 12 * kGi, 0), 0);  // encoders alone
}

// ---- signals: each in a process of its own ----

[[noreturn]] void WaitForEver() {
  while (true) ::pause();
}

TEST(LifecycleDeathTest, ASignalEndsALoadingServerAtOnce) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const int signal : {SIGINT, SIGTERM}) {
    EXPECT_EXIT(
        {
          const Lifecycle lifecycle([](bool) { std::fputs("last words", stderr); });
          ::kill(::getpid(), signal);
          WaitForEver();
        },
        testing::ExitedWithCode(128 + signal), "last words");
  }
}

TEST(LifecycleDeathTest, ADownloadMayEndByItself) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        const Lifecycle lifecycle({});
        ::kill(::getpid(), SIGTERM);
        while (!InterruptGuard::interrupted()) std::this_thread::yield();
        std::_Exit(7);
      },
      testing::ExitedWithCode(7), "");
}

TEST(LifecycleDeathTest, AServerThatCannotStopInTimeIsEnded) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        Lifecycle lifecycle([](bool out_of_time) { std::fputs(out_of_time ? "out of time" : "asked again", stderr); });
        lifecycle.Serve(std::chrono::milliseconds(1));
        ::kill(::getpid(), SIGTERM);
        lifecycle.WaitForStop();
        WaitForEver();  // as the join of a thread that tokenizes
      },
      testing::ExitedWithCode(0), "out of time");
  EXPECT_EXIT(
      {
        Lifecycle lifecycle([](bool out_of_time) { std::fputs(out_of_time ? "out of time" : "asked again", stderr); });
        lifecycle.Serve(std::chrono::hours(1));
        ::kill(::getpid(), SIGTERM);
        lifecycle.WaitForStop();
        ::kill(::getpid(), SIGINT);
        WaitForEver();
      },
      testing::ExitedWithCode(130), "asked again");
}

TEST(LifecycleDeathTest, AServerThatStopsInTimeEndsAsItLikes) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        {
          Lifecycle lifecycle([](bool) { std::abort(); });
          lifecycle.Serve(std::chrono::hours(1));
          ::kill(::getpid(), SIGTERM);
          lifecycle.WaitForStop();
        }
        std::_Exit(3);
      },
      testing::ExitedWithCode(3), "");
}

}  // namespace
}  // namespace pensieve::cli
