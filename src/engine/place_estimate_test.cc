#include "engine/place_estimate.h"

#include <gtest/gtest.h>

#include <vector>

namespace pensieve::engine {
namespace {

TEST(PlaceEstimate, HalfASecondWhileNothingIsKnown) {
  PlaceEstimate estimate;
  EXPECT_EQ(estimate.NextWaitMs(), 500);
  estimate.Publish(std::vector<int64_t>{5});
  EXPECT_EQ(estimate.NextWaitMs(), 500);
}

TEST(PlaceEstimate, RefusedClientsComeOneAfterAnother) {
  PlaceEstimate estimate;
  estimate.AddStep(0.05);
  estimate.Publish(std::vector<int64_t>{100, 40});  // 2 s until the shorter is over; 70 steps on average, for two
  EXPECT_EQ(estimate.NextWaitMs(), 2000);
  EXPECT_EQ(estimate.NextWaitMs(), 2000 + 1750);
  EXPECT_EQ(estimate.NextWaitMs(), 2000 + 3500);
  estimate.OnEnd();
  EXPECT_EQ(estimate.NextWaitMs(), 2000);
}

TEST(PlaceEstimate, IsBounded) {
  PlaceEstimate estimate;
  estimate.AddStep(0.001);
  estimate.Publish(std::vector<int64_t>{1});
  EXPECT_EQ(estimate.NextWaitMs(), 100);
  estimate.Publish(std::vector<int64_t>{INT64_MAX, INT64_MAX});
  for (int i = 0; i < 5; ++i) EXPECT_EQ(estimate.NextWaitMs(), 600'000);
}

TEST(PlaceEstimate, FollowsTheMeasuredSpeed) {
  PlaceEstimate estimate;
  estimate.AddStep(0.01);
  for (int i = 0; i < 200; ++i) estimate.AddStep(0.1);
  estimate.Publish(std::vector<int64_t>{50});
  EXPECT_NEAR(static_cast<double>(estimate.NextWaitMs()), 5000, 2);
}

}  // namespace
}  // namespace pensieve::engine
