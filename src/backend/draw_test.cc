// Drawn tokens on every backend, against the reference's definition.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "backend/test_support.h"

namespace pensieve::backend {
namespace {

using testing::HostMatrix;
using testing::OpTest;

class DrawTest : public OpTest {
 protected:
  static std::vector<int32_t> Draw(Backend& backend, HostMatrix logits, const std::vector<int32_t>& rows,
                                   const std::vector<DrawParams>& params) {
    backend.Draw(logits.view(), rows, params);
    std::vector<int32_t> tokens(rows.size());
    EXPECT_TRUE(backend.ReadDrawn(tokens).ok());
    return tokens;
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, DrawTest, ::testing::ValuesIn(testing::AllVariants()), testing::VariantName);

TEST_P(DrawTest, EveryFilterGivesTheReferencesTokens) {
  std::mt19937 rng(1);
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  for (const int64_t vocab : {1, 7, 255, 256, 1000, 5000}) {
    HostMatrix logits = HostMatrix(40, vocab).FillNormal(rng, 3.0f);
    std::vector<int32_t> rows;
    std::vector<DrawParams> params;
    for (int32_t row = 0; row < 40; ++row) {
      rows.push_back(39 - row);
      params.push_back({.temperature = row % 5 == 0 ? 0.0f : 0.3f * static_cast<float>(row % 7 + 1),
                        .top_k = row % 3 == 0 ? 0 : 1 + row,
                        .top_p = row % 4 == 0 ? 1.0f : 0.2f * static_cast<float>(row % 4) + 0.1f,
                        .min_p = row % 6 == 0 ? 0.05f : 0.0f,
                        .unit = unit(rng),
                        .vocab_limit = row % 8 == 0 ? static_cast<int32_t>(vocab + 1) / 2 : 0});
    }
    EXPECT_EQ(Draw(*backend_, logits, rows, params), Draw(*reference_, logits, rows, params)) << vocab;
  }
}

TEST_P(DrawTest, UnitsWalkThroughTheDistribution) {
  HostMatrix logits(1, 4);
  for (int64_t i = 0; i < 4; ++i) logits.row(0)[i] = std::log(static_cast<float>(i + 1));  // 0.1, 0.2, 0.3, 0.4
  for (const auto& [unit, token] :
       {std::pair{0.0, 0}, {0.099, 0}, {0.101, 1}, {0.299, 1}, {0.301, 2}, {0.601, 3}, {0.999999, 3}}) {
    EXPECT_EQ(Draw(*backend_, logits, {0}, {{.unit = unit}}).front(), token) << unit;
  }
  EXPECT_EQ(Draw(*backend_, logits, {0}, {{.top_k = 2, .unit = 0.0}}).front(), 2);
  EXPECT_EQ(Draw(*backend_, logits, {0}, {{.top_p = 0.3f, .unit = 0.0}}).front(), 3);
  EXPECT_EQ(Draw(*backend_, logits, {0}, {{.min_p = 0.6f, .unit = 0.0}}).front(), 2);
}

TEST_P(DrawTest, NothingIsDrawnFromLogitsThatAreNoNumbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  HostMatrix logits(4, 3);
  const float values[4][3] = {{NAN, NAN, -kInfinity}, {NAN, 1.0f, NAN}, {0.0f, kInfinity, 1.0f}, {2.0f, 2.0f, 9.0f}};
  for (int64_t r = 0; r < 4; ++r) std::copy_n(values[r], 3, logits.row(r));
  const std::vector<int32_t> rows = {0, 1, 2, 3};
  const DrawParams greedy = {.temperature = 0.0f, .vocab_limit = 2};
  EXPECT_EQ(Draw(*backend_, logits, rows, {4, greedy}), (std::vector<int32_t>{kNoToken, kNoToken, kNoToken, 0}));
  EXPECT_EQ(Draw(*backend_, logits, rows, {4, {.unit = 0.5}}), (std::vector<int32_t>{kNoToken, kNoToken, kNoToken, 2}));
  EXPECT_TRUE(Draw(*backend_, logits, {}, {}).empty());
}

}  // namespace
}  // namespace pensieve::backend
