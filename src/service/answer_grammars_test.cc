#include "service/answer_grammars.h"

#include <gtest/gtest.h>

namespace pensieve::service {
namespace {

chat::AnswerRules Regex(const std::string& pattern) {
  chat::AnswerRules rules;
  rules.form = chat::AnswerForm::kRegex;
  rules.text = pattern;
  return rules;
}

TEST(AnswerGrammars, CompilesEqualRulesOnce) {
  AnswerGrammars grammars;
  const auto first = *grammars.Get(Regex("a"));
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(*grammars.Get(Regex("a")), first);
  EXPECT_NE(*grammars.Get(Regex("b")), first);
  EXPECT_EQ(grammars.compiled(), 2);
  EXPECT_EQ(*grammars.Get(chat::AnswerRules()), nullptr);
  EXPECT_EQ(*grammars.Get(chat::AnswerRules()), nullptr);
  EXPECT_EQ(grammars.compiled(), 3);
}

TEST(AnswerGrammars, KeepsThoseUsedLast) {
  AnswerGrammars grammars(/*count_max=*/2);
  for (const char* pattern : {"a", "b", "a", "c", "a"}) EXPECT_TRUE(grammars.Get(Regex(pattern)).has_value());
  EXPECT_EQ(grammars.compiled(), 3);
  EXPECT_TRUE(grammars.Get(Regex("b")).has_value());
  EXPECT_EQ(grammars.compiled(), 4);
}

TEST(AnswerGrammars, KeepsOneWhateverItsSize) {
  AnswerGrammars grammars(/*count_max=*/10, /*bytes_max=*/1);
  for (const char* pattern : {"a", "a", "b", "a"}) EXPECT_TRUE(grammars.Get(Regex(pattern)).has_value());
  EXPECT_EQ(grammars.compiled(), 3);
}

TEST(AnswerGrammars, PassesErrorsOn) {
  AnswerGrammars grammars;
  EXPECT_EQ(grammars.Get(Regex("(")).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pensieve::service
