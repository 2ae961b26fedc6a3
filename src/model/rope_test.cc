#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace pensieve::model {
namespace {

double Period(const RopeFrequencies& rope, size_t i) { return 1.0 / static_cast<double>(rope.frequencies[i]); }

void ExpectPeriods(const RopeFrequencies& rope, const std::vector<std::pair<size_t, double>>& expected) {
  for (const auto& [i, period] : expected) EXPECT_NEAR(Period(rope, i) / period, 1.0, 1e-6) << i;
}

// The specification's samples of Llama 3.2 1B, Llama 3.1 8B and gpt-oss.
TEST(Rope, Llama3) {
  const RopeConfig small{
      .base = 5e5f, .rotated = 64, .scaling = RopeScaling::kLlama3, .factor = 32, .original_context = 8192};
  ExpectPeriods(*ComputeRope(small, 131072, 131072),
                {{14, 311.386211}, {15, 774.864674}, {16, 2327.980858}, {17, 10300.477492}, {18, 51383.135916}});
  const RopeConfig large{
      .base = 5e5f, .rotated = 128, .scaling = RopeScaling::kLlama3, .factor = 8, .original_context = 8192};
  ExpectPeriods(*ComputeRope(large, 131072, 131072),
                {{28, 311.386211}, {29, 461.558892}, {31, 1167.199709}, {34, 5601.995703}, {35, 10464.397012}});
}

TEST(Rope, Yarn) {
  RopeConfig config{
      .base = 150000.0f, .rotated = 64, .scaling = RopeScaling::kYarn, .factor = 32, .original_context = 4096};
  const auto whole = ComputeRope(config, 131072, 131072);
  ExpectPeriods(*whole, {{9, 31.6248}, {10, 51.41132}, {12, 142.53717}, {16, 1721.32593}, {18, 26103.65443}});
  EXPECT_NEAR(whole->magnitude, 1.3465736, 1e-6);
  config.truncate = false;
  ExpectPeriods(*ComputeRope(config, 131072, 131072),
                {{9, 31.54007}, {10, 51.71968}, {12, 147.16791}, {16, 2190.65767}});
  config.attention_factor = 1.0;
  EXPECT_EQ(ComputeRope(config, 131072, 131072)->magnitude, 1.0f);
}

TEST(Rope, LongropeChoosesByTheContextInUse) {
  RopeConfig config{.rotated = 96, .scaling = RopeScaling::kLongrope, .original_context = 4096};
  config.short_factors.assign(48, 1.1f);
  config.long_factors.assign(48, 1.12f);
  const auto long_context = ComputeRope(config, 131072, 131072);
  EXPECT_NEAR(long_context->frequencies[1], 0.7369680194, 1e-7);
  EXPECT_NEAR(long_context->magnitude, 1.1902380714, 1e-7);
  const auto short_context = ComputeRope(config, 4096, 131072);
  EXPECT_NEAR(short_context->frequencies[1], 0.7503674411, 1e-7);
  EXPECT_EQ(short_context->magnitude, long_context->magnitude);
}

TEST(Rope, DynamicStretchesOnlyBeyondTheModelsContext) {
  const RopeConfig config{.rotated = 64, .scaling = RopeScaling::kDynamic, .factor = 2};
  ExpectPeriods(*ComputeRope(config, 1024, 2048), {{16, 100.0}});
  ExpectPeriods(*ComputeRope(config, 4096, 2048), {{16, std::pow(1e4 * std::pow(3.0, 64.0 / 62.0), 0.5)}});
}

TEST(Rope, DivisorsOfGgufFiles) {
  RopeConfig config{.rotated = 4};
  config.divisors = {1.0f, 8.0f};
  ExpectPeriods(*ComputeRope(config, 10, 10), {{0, 1.0}, {1, 800.0}});
}

TEST(Rope, RefusesNonsense) {
  EXPECT_FALSE(ComputeRope({.rotated = 3}, 1, 1).has_value());
  EXPECT_FALSE(ComputeRope({.rotated = 0}, 1, 1).has_value());
  EXPECT_FALSE(ComputeRope({.base = 0.0f, .rotated = 4}, 1, 1).has_value());
  EXPECT_FALSE(ComputeRope({.rotated = 4, .scaling = RopeScaling::kLinear, .factor = 0}, 1, 1).has_value());
  EXPECT_FALSE(ComputeRope({.rotated = 4, .scaling = RopeScaling::kYarn}, 1, 1).has_value());
  RopeConfig config{.rotated = 4};
  config.divisors = {1.0f};
  EXPECT_FALSE(ComputeRope(config, 1, 1).has_value());
  config.divisors = {1.0f, 0.0f};
  EXPECT_FALSE(ComputeRope(config, 1, 1).has_value());
  const RopeConfig lists{.rotated = 4, .scaling = RopeScaling::kLongrope, .original_context = 8};
  EXPECT_FALSE(ComputeRope(lists, 9, 16).has_value());
}

}  // namespace
}  // namespace pensieve::model
