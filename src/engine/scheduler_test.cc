#include "engine/scheduler.h"

#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pensieve::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

SequenceView Decode() { return {.rows_pending = 1, .decode = true}; }
SequenceView Prefill(int64_t rows) { return {.rows_pending = rows}; }

std::vector<int64_t> Plan(const std::vector<SequenceView>& sequences, int64_t rows_max) {
  DecoderScheduler scheduler;
  const auto rows = scheduler.Plan(sequences, rows_max);
  return {rows.begin(), rows.end()};
}

TEST(DecoderScheduler, NothingToDo) { EXPECT_THAT(Plan({}, 8), IsEmpty()); }

TEST(DecoderScheduler, DecodeComesFirst) {
  EXPECT_THAT(Plan({Prefill(100), Decode(), Decode()}, 10), ElementsAre(8, 1, 1));
  EXPECT_THAT(Plan({Decode(), Decode(), Decode()}, 2), ElementsAre(1, 1, 0));
}

TEST(DecoderScheduler, PausedSequencesGetNothing) {
  std::vector<SequenceView> sequences = {Decode(), Prefill(5), Decode()};
  sequences[0].paused = sequences[1].paused = true;
  EXPECT_THAT(Plan(sequences, 10), ElementsAre(0, 0, 1));
}

TEST(DecoderScheduler, ShortPromptPassesALongOne) {
  EXPECT_THAT(Plan({Prefill(1000), Prefill(10)}, 64), ElementsAre(54, 10));
  EXPECT_THAT(Plan({Prefill(1000), Prefill(500), Prefill(20)}, 64), ElementsAre(32, 12, 20));
}

TEST(DecoderScheduler, OldestKeepsHalf) {
  EXPECT_THAT(Plan({Prefill(1000), Prefill(500), Prefill(500)}, 64), ElementsAre(32, 32, 0));
  EXPECT_THAT(Plan({Prefill(1000), Prefill(500)}, 1), ElementsAre(1, 0));
  EXPECT_THAT(Plan({Prefill(10), Prefill(500), Prefill(400)}, 64), ElementsAre(10, 0, 54));
}

TEST(DecoderScheduler, NothingIsLeftOver) {
  EXPECT_THAT(Plan({Prefill(100), Prefill(10)}, 512), ElementsAre(100, 10));
  EXPECT_THAT(Plan({Prefill(100), Prefill(10)}, 100), ElementsAre(90, 10));
}

TEST(DecoderScheduler, RandomPlansKeepTheirPromises) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<SequenceView> sequences;
    const auto rows_max = static_cast<int64_t>(1 + random() % 40);
    int64_t prefill_rows = 0;
    int64_t decode_rows = 0;
    for (size_t i = random() % 8; i > 0; --i) {
      sequences.push_back(random() % 2 == 0 ? Decode() : Prefill(static_cast<int64_t>(1 + random() % 50)));
      sequences.back().paused = random() % 4 == 0;
      if (sequences.back().paused) continue;
      (sequences.back().decode ? decode_rows : prefill_rows) += sequences.back().rows_pending;
    }
    const auto rows = Plan(sequences, rows_max);
    const int64_t sum = std::accumulate(rows.begin(), rows.end(), int64_t{0});
    EXPECT_EQ(sum, std::min(rows_max, decode_rows + prefill_rows));  // never idle, never too much
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_LE(rows[i], sequences[i].paused ? 0 : sequences[i].rows_pending);
      EXPECT_GE(rows[i], 0);
    }
  }
}

// (request, text) pairs.
std::vector<std::pair<size_t, size_t>> PlanEncoder(const std::vector<std::vector<int64_t>>& lens,
                                                   const EncoderLimits& limits) {
  std::vector<std::span<const int64_t>> spans(lens.begin(), lens.end());
  std::vector<std::pair<size_t, size_t>> pairs;
  for (const EncoderGrant& grant : PlanEncoderStep(spans, limits))
    pairs.emplace_back(grant.request_idx, grant.input_idx);
  return pairs;
}

using Pairs = std::vector<std::pair<size_t, size_t>>;

TEST(EncoderStep, RequestsTakeTurns) {
  EXPECT_EQ(PlanEncoder({{4, 4, 4}, {4}}, {.rows_max = 12, .sequences_max = 10}), (Pairs{{0, 0}, {1, 0}, {0, 1}}));
}

TEST(EncoderStep, TextsRunWhole) {
  EXPECT_EQ(PlanEncoder({{10, 10}, {3}}, {.rows_max = 15, .sequences_max = 10}), (Pairs{{0, 0}, {1, 0}}));
  EXPECT_EQ(PlanEncoder({{99}, {3}}, {.rows_max = 15, .sequences_max = 10}), (Pairs{{0, 0}}));  // alone
  EXPECT_EQ(PlanEncoder({{3}, {99}}, {.rows_max = 15, .sequences_max = 10}), (Pairs{{0, 0}}));
}

TEST(EncoderStep, KeepsTheLimitOfSequences) {
  EXPECT_EQ(PlanEncoder({{1, 1}, {1, 1}}, {.rows_max = 15, .sequences_max = 3}), (Pairs{{0, 0}, {1, 0}, {0, 1}}));
  EXPECT_EQ(PlanEncoder({}, {.rows_max = 15, .sequences_max = 3}), Pairs{});
}

}  // namespace
}  // namespace pensieve::engine
