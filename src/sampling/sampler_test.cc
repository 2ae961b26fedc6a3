#include "sampling/sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pensieve::sampling {
namespace {

using testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// How often each id is drawn from the same logits.
std::map<int32_t, int> DrawMany(const SamplingParams& params, const std::vector<float>& logits, int draws,
                                std::span<const int32_t> banned = {}) {
  Sampler sampler(params);
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> row = logits;
    ++counts[sampler.Draw(row, banned).id];
  }
  return counts;
}

std::set<int32_t> DrawnSet(const SamplingParams& params, const std::vector<float>& logits) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : DrawMany(params, logits, 4000)) ids.insert(id);
  return ids;
}

int32_t Greedy(const SamplingParams& params, std::vector<float> logits, std::span<const int32_t> prompt = {},
               std::span<const int32_t> banned = {}) {
  SamplingParams greedy = params;
  greedy.temperature = 0.0f;
  Sampler sampler(greedy);
  sampler.ObservePrompt(prompt);
  return sampler.Draw(logits, banned).id;
}

// Pearson's statistic of counts against probabilities.
double ChiSquare(const std::map<int32_t, int>& counts, const std::vector<double>& probabilities, int draws) {
  double sum = 0.0;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    const auto found = counts.find(static_cast<int32_t>(id));
    const double expected = probabilities[id] * draws;
    const double difference = (found == counts.end() ? 0 : found->second) - expected;
    if (expected > 0) sum += difference * difference / expected;
  }
  return sum;
}

std::vector<float> Logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(Random, KnownFirstNumbers) {
  // Computed by the published definitions of splitmix64 and xoshiro256**, in Python integers.
  Random random(0);
  EXPECT_EQ(random.Next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(random.Next(), 0xbf6e1f784956452au);
  Random other(42);
  EXPECT_EQ(other.Next(), 0x15780b2e0c2ec716u);
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(Greedy({}, {1.0f, 3.0f, 3.0f, 2.0f}), 1);
  EXPECT_EQ(Greedy({}, {-5.0f}), 0);
}

TEST(Sampler, DrawsFollowTheSoftmax) {
  const std::vector<double> p = {0.4, 0.3, 0.15, 0.1, 0.04, 0.01};
  for (const uint64_t seed : {1u, 2u, 3u}) {
    const auto counts = DrawMany({.seed = seed}, Logs(p), 50000);
    EXPECT_LT(ChiSquare(counts, p, 50000), 20.5) << seed;  // 5 degrees of freedom, p = 0.001
  }
}

TEST(Sampler, TemperatureFlattensAndSharpens) {
  const std::vector<double> p = {0.6, 0.3, 0.1};
  for (const float temperature : {0.5f, 2.0f}) {
    std::vector<double> expected;
    double total = 0.0;
    for (const double v : p) total += std::pow(v, 1.0 / temperature);
    for (const double v : p) expected.push_back(std::pow(v, 1.0 / temperature) / total);
    const auto counts = DrawMany({.temperature = temperature, .seed = 5}, Logs(p), 50000);
    EXPECT_LT(ChiSquare(counts, expected, 50000), 13.8) << temperature;  // 2 degrees of freedom
  }
}

TEST(Sampler, TinyTemperatureIsGreedy) {
  const auto counts = DrawMany({.temperature = 1e-30f}, {1.0f, 1.001f, -1e30f, 0.5f}, 100);
  EXPECT_EQ(counts.at(1), 100);
}

TEST(Sampler, TopK) {
  const std::vector<float> logits = {0.0f, 2.0f, 1.0f, 2.0f, 1.5f};
  EXPECT_EQ(DrawnSet({.top_k = 1}, logits), (std::set<int32_t>{1}));  // of equals the lower id
  EXPECT_EQ(DrawnSet({.top_k = 3}, logits), (std::set<int32_t>{1, 3, 4}));
  EXPECT_EQ(DrawnSet({.top_k = 5}, logits).size(), 5u);
  EXPECT_EQ(DrawnSet({.top_k = 1000}, logits).size(), 5u);
}

TEST(Sampler, TopPKeepsTheTokenThatReachesIt) {
  const std::vector<float> logits = Logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_EQ(DrawnSet({.top_p = 0.01f}, logits), (std::set<int32_t>{1}));
  EXPECT_EQ(DrawnSet({.top_p = 0.49f}, logits), (std::set<int32_t>{1}));
  EXPECT_EQ(DrawnSet({.top_p = 0.6f}, logits), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(DrawnSet({.top_p = 0.8f}, logits), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(DrawnSet({.top_p = 0.95f}, logits).size(), 4u);
}

TEST(Sampler, TopPOverManyCandidatesKeepsTheRightSet) {
  // Flat enough that the cut lies among many; the kept set is found by plain sorting here.
  std::mt19937 random(3);
  std::vector<float> logits(5000);
  for (float& logit : logits) logit = static_cast<float>(random() % 1000) * 1e-3f;
  std::vector<size_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  double total = 0.0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit) - logits[order[0]]);
  for (const float top_p : {0.001f, 0.03f, 0.3f, 0.9f}) {
    std::set<int32_t> kept;
    double sum = 0.0;
    for (const size_t id : order) {
      kept.insert(static_cast<int32_t>(id));
      sum += std::exp(static_cast<double>(logits[id]) - logits[order[0]]);
      if (sum >= top_p * total) break;
    }
    for (const auto& [id, count] : DrawMany({.top_p = top_p, .seed = 9}, logits, 200))
      EXPECT_TRUE(kept.contains(id)) << top_p;
  }
}

TEST(Sampler, TopPCutsAmongEqualsById) {
  const auto counts = DrawMany({.top_p = 0.25f, .seed = 4}, std::vector<float>(4096, -3.0f), 4000);
  EXPECT_LT(counts.rbegin()->first, 1024);
  EXPECT_GT(counts.size(), 900u);  // 1,024 of them, each drawn with probability 0.98
}

TEST(Sampler, TopPOfLogitsAsFarApartAsFloatsGet) {
  std::vector<float> logits(300, -std::numeric_limits<float>::max());
  logits[7] = std::numeric_limits<float>::max();
  EXPECT_EQ(DrawnSet({.top_p = 0.5f}, logits), (std::set<int32_t>{7}));
  // So hot that all weigh the same: the most probable half.
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i) * 1e-3f;
  EXPECT_GE(*DrawnSet({.temperature = 100.0f, .top_p = 0.5f}, logits).begin(), 149);
}

TEST(Sampler, MinPIsRelativeToTheMostProbable) {
  const std::vector<float> logits = Logs({0.5, 0.3, 0.04, 0.16});
  EXPECT_EQ(DrawnSet({.min_p = 0.05f}, logits).size(), 4u);
  EXPECT_EQ(DrawnSet({.min_p = 0.1f}, logits), (std::set<int32_t>{0, 1, 3}));
  EXPECT_EQ(DrawnSet({.min_p = 0.5f}, logits), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(DrawnSet({.min_p = 0.99f}, logits), (std::set<int32_t>{0}));
}

TEST(Sampler, FiltersComeInTheDocumentedOrder) {
  // top_k first: its two tokens share 0.8, so that 0.7 of what is left needs both; over all tokens 0.5 would not.
  const std::vector<float> logits = Logs({0.5, 0.3, 0.1, 0.1});
  EXPECT_EQ(DrawnSet({.top_k = 2, .top_p = 0.62f}, logits), (std::set<int32_t>{0}));
  EXPECT_EQ(DrawnSet({.top_k = 2, .top_p = 0.7f}, logits), (std::set<int32_t>{0, 1}));
  // Temperature comes before top_p: flattened, 0.6 needs three of four.
  EXPECT_EQ(DrawnSet({.temperature = 100.0f, .top_p = 0.6f}, logits).size(), 3u);
}

TEST(Sampler, FilteredDrawsKeepTheirProportions) {
  const auto counts = DrawMany({.top_k = 3, .top_p = 0.99f, .seed = 8}, Logs({0.1, 0.4, 0.2, 0.3}), 50000);
  EXPECT_LT(ChiSquare(counts, {0.0, 4.0 / 9, 2.0 / 9, 3.0 / 9}, 50000), 13.8);
}

TEST(Sampler, SameSeedSameDraws) {
  std::vector<float> logits(100, 0.0f);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.seed = seed});
    std::vector<int32_t> ids;
    for (int i = 0; i < 20; ++i) {
      std::vector<float> row = logits;
      ids.push_back(sampler.Draw(row).id);
    }
    return ids;
  };
  EXPECT_EQ(draw(7), draw(7));
  EXPECT_NE(draw(7), draw(8));
}

TEST(Sampler, LogitBias) {
  EXPECT_EQ(Greedy({.logit_bias = {{2, 5.0f}}}, {1.0f, 3.0f, 0.0f}), 2);
  EXPECT_EQ(Greedy({.logit_bias = {{1, -100.0f}}}, {1.0f, 3.0f, 0.0f}), 0);
  EXPECT_EQ(Greedy({.logit_bias = {{2, 2.0f}, {2, 2.0f}}}, {1.0f, 3.0f, 0.0f}), 2);  // added up
}

TEST(Sampler, RepetitionPenaltyDividesOrMultiplies) {
  const std::vector<int32_t> prompt = {1, 1, 1};
  EXPECT_EQ(Greedy({.repetition_penalty = 2.0f}, {1.6f, 3.0f}, prompt), 0);  // 1.5, once however often it was seen
  EXPECT_EQ(Greedy({.repetition_penalty = 2.0f}, {1.4f, 3.0f}, prompt), 1);
  EXPECT_EQ(Greedy({.repetition_penalty = 2.0f}, {-1.5f, -1.0f}, prompt), 0);  // -2
  EXPECT_EQ(Greedy({.repetition_penalty = 0.5f}, {3.0f, 2.0f}, prompt), 1);    // below 1: encouraged
}

TEST(Sampler, RepetitionWindow) {
  const std::vector<int32_t> prompt = {1, 0, 0};
  const std::vector<float> logits = {1.0f, 1.2f, 0.9f};
  EXPECT_EQ(Greedy({.repetition_penalty = 1.5f, .penalty_window = 2}, logits, prompt), 1);  // 1 is out of the window
  EXPECT_EQ(Greedy({.repetition_penalty = 1.5f, .penalty_window = 3}, logits, prompt), 2);
  EXPECT_EQ(Greedy({.repetition_penalty = 1.5f, .penalty_window = -1}, logits, prompt), 2);
  EXPECT_EQ(Greedy({.repetition_penalty = 1.5f, .penalty_window = 0}, logits, prompt), 1);
  // Answers count too, in both kinds of window.
  for (const int32_t window : {2, -1}) {
    Sampler sampler({.temperature = 0.0f, .repetition_penalty = 2.0f, .penalty_window = window});
    std::vector<int32_t> ids;
    for (int i = 0; i < 4; ++i) {
      std::vector<float> row = {1.0f, 0.9f, 0.8f};
      ids.push_back(sampler.Draw(row).id);
    }
    EXPECT_THAT(ids, ElementsAre(0, 1, 2, 0)) << window;  // without a window all three are halved from then on
  }
}

TEST(Sampler, PresenceAndFrequencyCountTheAnswerOnly) {
  const std::vector<int32_t> prompt = {0, 0, 0};
  EXPECT_EQ(Greedy({.presence_penalty = 2.0f, .frequency_penalty = 2.0f}, {1.0f, 0.5f}, prompt), 0);

  const auto draw = [&](const SamplingParams& params, std::vector<float> logits, int draws) {
    Sampler sampler(params);
    std::vector<int32_t> ids;
    for (int i = 0; i < draws; ++i) {
      std::vector<float> row = logits;
      ids.push_back(sampler.Draw(row).id);
    }
    return ids;
  };
  EXPECT_THAT(draw({.temperature = 0.0f, .presence_penalty = 1.0f}, {1.0f, 0.5f}, 3), ElementsAre(0, 1, 0));
  // 1.0, then 0.4 < 0.5; then 0.4 > -0.1; then -0.2 < -0.1.
  EXPECT_THAT(draw({.temperature = 0.0f, .frequency_penalty = 0.6f}, {1.0f, 0.5f}, 4), ElementsAre(0, 1, 0, 1));
}

TEST(Sampler, BannedIdsAreNeverDrawn) {
  const std::vector<int32_t> banned = {1, 99, -5};
  EXPECT_EQ(Greedy({}, {1.0f, 3.0f, 0.0f}, {}, banned), 0);
  EXPECT_EQ(Greedy({.logit_bias = {{1, 100.0f}}}, {1.0f, 3.0f, 0.0f}, {}, banned), 0);
  EXPECT_EQ(DrawMany({}, {0.0f, 9.0f, 0.0f}, 1000, banned).count(1), 0u);
}

TEST(Sampler, NumbersThatAreNone) {
  EXPECT_EQ(Greedy({}, {kNan, 1.0f, kNan}), 1);
  EXPECT_EQ(Greedy({}, {0.0f, kInfinity, -kInfinity}), 1);
  EXPECT_EQ(Greedy({}, {kNan, kNan}), kNoToken);
  EXPECT_EQ(Greedy({}, {-kInfinity}), kNoToken);
  EXPECT_EQ(Greedy({}, {}), kNoToken);
  const std::vector<int32_t> all = {0, 1};
  EXPECT_EQ(Greedy({}, {1.0f, 2.0f}, {}, all), kNoToken);
  for (const auto& params : {SamplingParams{}, SamplingParams{.top_k = 2, .top_p = 0.5f, .min_p = 0.1f},
                             SamplingParams{.temperature = 100.0f, .logprobs = true}}) {
    EXPECT_EQ(DrawMany(params, {kNan, 5.0f, -kInfinity}, 50).at(1), 50);
    EXPECT_EQ(DrawMany(params, {kNan, kNan}, 5).at(kNoToken), 5);
    EXPECT_EQ(DrawMany(params, {1.0f, kInfinity, kNan}, 50).at(1), 50);
  }
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  const std::vector<float> logits = Logs({0.1, 0.6, 0.3});
  Sampler sampler({.temperature = 0.0f, .logit_bias = {{1, -50.0f}}, .top_logprobs = 2, .logprobs = true});
  std::vector<float> row = logits;
  const Sample sample = sampler.Draw(row);
  EXPECT_EQ(sample.id, 2);
  EXPECT_NEAR(sample.logprob, std::log(0.3), 1e-6);
  ASSERT_EQ(sample.top.size(), 2u);
  EXPECT_EQ(sample.top[0].id, 1);
  EXPECT_NEAR(sample.top[0].logprob, std::log(0.6), 1e-6);
  EXPECT_EQ(sample.top[1].id, 2);
}

TEST(Sampler, TopLogprobsDescendAndPreferLowIds) {
  Sampler sampler({.top_logprobs = 20});
  std::vector<float> row = {1.0f, 2.0f, kNan, 2.0f, -kInfinity, 0.0f};
  const Sample sample = sampler.Draw(row);
  std::vector<int32_t> ids;
  for (const TokenLogprob& top : sample.top) ids.push_back(top.id);
  EXPECT_THAT(ids, ElementsAre(1, 3, 0, 5));  // what has no probability is not reported
}

TEST(Sampler, LogSumExp) {
  EXPECT_NEAR(LogSumExp(std::vector<float>{0.0f, 0.0f}), std::log(2.0), 1e-12);
  EXPECT_NEAR(LogSumExp(std::vector<float>{1e30f, 0.0f}), 1e30, 1e24);
  EXPECT_NEAR(LogSumExp(std::vector<float>{kNan, 3.0f}), 3.0, 1e-12);
  EXPECT_EQ(LogSumExp(std::vector<float>{}), -std::numeric_limits<double>::infinity());
}

TEST(Sampler, ValidateNamesTheField) {
  const auto error = [](const SamplingParams& params) { return Validate(params, 10).message(); };
  EXPECT_TRUE(Validate({}, 10).ok());
  EXPECT_THAT(error({.temperature = -0.1f}), testing::HasSubstr("temperature"));
  EXPECT_THAT(error({.temperature = kNan}), testing::HasSubstr("temperature"));
  EXPECT_THAT(error({.temperature = kInfinity}), testing::HasSubstr("temperature"));
  EXPECT_THAT(error({.top_k = -1}), testing::HasSubstr("top_k"));
  EXPECT_THAT(error({.top_p = 0.0f}), testing::HasSubstr("top_p"));
  EXPECT_THAT(error({.top_p = 1.1f}), testing::HasSubstr("top_p"));
  EXPECT_THAT(error({.min_p = 1.0f}), testing::HasSubstr("min_p"));
  EXPECT_THAT(error({.repetition_penalty = 0.0f}), testing::HasSubstr("repetition_penalty"));
  EXPECT_THAT(error({.presence_penalty = 2.1f}), testing::HasSubstr("presence_penalty"));
  EXPECT_THAT(error({.frequency_penalty = -2.1f}), testing::HasSubstr("frequency_penalty"));
  EXPECT_THAT(error({.penalty_window = -2}), testing::HasSubstr("penalty_window"));
  EXPECT_THAT(error({.logit_bias = {{10, 0.0f}}}), testing::HasSubstr("logit_bias"));
  EXPECT_THAT(error({.logit_bias = {{0, 101.0f}}}), testing::HasSubstr("logit_bias"));
  EXPECT_THAT(error({.top_logprobs = 21}), testing::HasSubstr("top_logprobs"));
}

}  // namespace
}  // namespace pensieve::sampling
