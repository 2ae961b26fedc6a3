#include "service/fill_in_middle.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pensieve::service {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A vocabulary of whole words: a = 0, b = 1, then the tokens that are added.
std::unique_ptr<tokenizer::Tokenizer> WithTokens(const std::vector<std::string>& added) {
  Json json = {{"version", "1.0"},
               {"added_tokens", Json::array()},
               {"normalizer", nullptr},
               {"pre_tokenizer", {{"type", "WhitespaceSplit"}}},
               {"post_processor", nullptr},
               {"decoder", nullptr},
               {"model", {{"type", "WordLevel"}, {"vocab", {{"a", 0}, {"b", 1}, {"?", 2}}}, {"unk_token", "?"}}}};
  int32_t id = 3;
  for (const std::string& text : added) {
    json["added_tokens"].push_back({{"id", id++},
                                    {"content", text},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  }
  auto tokenizer = tokenizer::Tokenizer::FromHuggingFace(DumpJson(json), Json(), "test");
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().ToString();
  return *std::move(tokenizer);
}

TEST(FillInMiddle, PrefixSuffixMiddle) {
  const auto tokenizer = WithTokens({"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_sep|>"});
  const auto fill = MakeFillInMiddle(*tokenizer, "a", "b b");
  ASSERT_TRUE(fill.has_value()) << fill.error().ToString();
  EXPECT_THAT(fill->prompt_ids, ElementsAre(3, 0, 5, 1, 1, 4));
  EXPECT_THAT(fill->stop_ids, ElementsAre(6));
}

TEST(FillInMiddle, SuffixFirstAndNoMiddle) {
  const auto tokenizer = WithTokens({"[SUFFIX]", "[PREFIX]"});
  const auto fill = MakeFillInMiddle(*tokenizer, "a", "b");
  ASSERT_TRUE(fill.has_value()) << fill.error().ToString();
  EXPECT_THAT(fill->prompt_ids, ElementsAre(3, 1, 4, 0));
}

TEST(FillInMiddle, TextsCannotSpellTheTokens) {
  const auto tokenizer = WithTokens({"<fim_prefix>", "<fim_suffix>", "<fim_middle>"});
  const auto fill = MakeFillInMiddle(*tokenizer, "<fim_middle>", "b");
  ASSERT_TRUE(fill.has_value()) << fill.error().ToString();
  EXPECT_THAT(fill->prompt_ids, ElementsAre(3, 2, 4, 1, 5));
}

TEST(FillInMiddle, OtherModelsRefuse) {
  const auto fill = MakeFillInMiddle(*WithTokens({"<fim_prefix>"}), "a", "b");
  ASSERT_FALSE(fill.has_value());
  EXPECT_EQ(fill.error().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(fill.error().message(), HasSubstr("suffix: "));
}

}  // namespace
}  // namespace pensieve::service
