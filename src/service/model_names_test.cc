#include "service/model_names.h"

#include <gtest/gtest.h>

namespace pensieve::service {
namespace {

TEST(ModelNames, NumberFormatsAndCaseAreNoPartOfAName) {
  const std::pair<const char*, const char*> cases[] = {
      {"SmolLM2-135M-Instruct", "smollm2-135m-instruct"},
      {"Org/Tiny-Instruct-GGUF:Q4_K_M", "org/tiny-instruct"},
      {"tiny.Q8_0.gguf", "tiny"},
      {"tiny-iq2_xxs", "tiny"},
      {"Phi-3-mini-128k-instruct-4bit", "phi-3-mini-128k-instruct"},
      {"Qwen3-Embedding-0.6B-4bit-DWQ", "qwen3-embedding-0.6b"},
      {"smollm2:135m", "smollm2-135m"},
      {"llama3.2:latest", "llama3.2"},
      {"llama3.2:1b-instruct-q4_K_M", "llama3.2-1b-instruct"},
      {"model-bf16-mlx", "model"},
      // What looks like it and is a name.
      {"q4", "q4"},
      {"-q4", "-q4"},
      {"org/-q4", "org/-q4"},
      {"q", "q"},
      {"qwen2.5", "qwen2.5"},
      {"tiny-q9", "tiny-q9"},
      {"tiny-q4x", "tiny-q4x"},
      {"", ""},
      {":latest", ""},
  };
  for (const auto& [name, plain] : cases) EXPECT_EQ(PlainModelName(name), plain) << name;
}

TEST(ModelNames, AnOwnerCountsOnlyAgainstAnother) {
  EXPECT_TRUE(IsSameModelName("tiny", "Org/Tiny-4bit"));
  EXPECT_TRUE(IsSameModelName("org/tiny", "ORG/tiny:q4_0"));
  EXPECT_FALSE(IsSameModelName("other/tiny", "org/tiny"));
  EXPECT_FALSE(IsSameModelName("tiny-2", "tiny"));
}

TEST(ModelNames, AliasesAreExactThenCaseBlindThenPrefixes) {
  const std::vector<ModelAlias> aliases = {
      {"gpt-*", "default"}, {"GPT-4o", "upper"}, {"gpt-4o", "exact"}, {"*", "rest"}};
  EXPECT_EQ(FindAlias(aliases, "gpt-4o"), "exact");
  EXPECT_EQ(FindAlias(aliases, "Gpt-4o"), "upper");
  EXPECT_EQ(FindAlias(aliases, "GPT-5"), "default");
  EXPECT_EQ(FindAlias(aliases, "other"), "rest");
  EXPECT_EQ(FindAlias({}, "other"), "");
}

TEST(ModelNames, AliasesAreWrittenWithAnEqualsSign) {
  const auto alias = ParseModelAlias("gpt-4o=org/tiny=2");
  ASSERT_TRUE(alias.has_value());
  EXPECT_EQ(alias->name, "gpt-4o");
  EXPECT_EQ(alias->model, "org/tiny=2");
  for (const char* bad : {"", "a", "=b", "a="}) EXPECT_FALSE(ParseModelAlias(bad).has_value()) << bad;
}

}  // namespace
}  // namespace pensieve::service
