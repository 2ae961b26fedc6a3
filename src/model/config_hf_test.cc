// config.json as transformers takes it (tools/golden_configs.py): what it leaves out, and keys that not every
// architecture heeds.
#include "model/config_hf.h"

#include <gtest/gtest.h>

#include "formats/test_files.h"
#include "model/rope.h"
#include "model/test_runner.h"

namespace pensieve::model {
namespace {

using formats::TempDirectory;

void ExpectRotation(const RopeConfig& rope, const ModelConfig& config, const Json& expected) {
  const auto computed = ComputeRope(rope, config.context_max, config.context_max);
  ASSERT_TRUE(computed.has_value()) << computed.error().message();
  EXPECT_NEAR(computed->magnitude, expected["magnitude"].get<double>(), 1e-6);
  ASSERT_EQ(computed->frequencies.size(), expected["frequencies"].size());
  for (size_t i = 0; i < computed->frequencies.size(); ++i) {
    EXPECT_NEAR(computed->frequencies[i] / expected["frequencies"][i].get<double>(), 1.0, 2e-6) << "pair " << i;
  }
}

void ExpectLayers(const ModelConfig& config, const Json& facts, int64_t tokens) {
  for (size_t layer = 0; layer < facts["visible"].size(); ++layer) {
    const bool slides = config.sliding_window > 0 && (config.sliding_layers.empty() || config.sliding_layers[layer]);
    EXPECT_EQ(slides ? std::min(config.sliding_window, tokens) : tokens, facts["visible"][layer].get<int64_t>())
        << "layer " << layer;
    const bool rotates = config.nope_layers.empty() || !config.nope_layers[layer];
    EXPECT_EQ(rotates, facts["rotates"][layer].get<bool>()) << "layer " << layer;
  }
}

TEST(HfConfig, MeansWhatTransformersTakesItFor) {
  const Json golden = ReadGolden("configs.json");
  for (const Json& test : golden["cases"]) {
    SCOPED_TRACE(DumpJson(test["config"]));
    const Json& facts = test["facts"];
    const TempDirectory dir;
    dir.Write("config.json", DumpJson(test["config"]));
    const auto model = ReadHfModel(dir.path());
    ASSERT_TRUE(model.has_value()) << model.error().message();
    const ModelConfig& config = model->config;
    EXPECT_EQ(config.context_max, facts["context_max"].get<int64_t>());
    EXPECT_EQ(config.norm_eps, facts["norm_eps"].get<float>());
    EXPECT_EQ(config.head_dim, facts["head_dim"].get<int64_t>());
    EXPECT_EQ(config.kv_heads, facts["kv_heads"].get<int64_t>());
    if (config.architecture != "qwen2") {  // which has them always
      EXPECT_EQ(config.attention_bias, facts["attention_bias"].get<bool>());
    }
    const Json caps = facts.value("caps", *ParseJson(R"({"attention":0,"logits":0})"));
    EXPECT_EQ(config.attention_softcap, caps["attention"].get<float>());
    EXPECT_EQ(config.logit_softcap, caps["logits"].get<float>());
    const double scale = config.attention_scale > 0.0f ? static_cast<double>(config.attention_scale)
                                                       : 1.0 / std::sqrt(static_cast<double>(config.head_dim));
    EXPECT_NEAR(scale, facts["attention_scale"].get<double>(), 1e-6);
    // Files that say nothing are tied when they hold no head of their own, which transformers never assumes.
    EXPECT_EQ(model->tied.value_or(false), facts["tied"].get<bool>());
    EXPECT_EQ(config.rope.query_growth, facts["query_growth"].get<double>());
    ExpectRotation(config.rope, config, facts["rotation"]);
    EXPECT_EQ(config.sliding_rope.has_value(), facts.contains("sliding_rotation"));
    if (config.sliding_rope) ExpectRotation(*config.sliding_rope, config, facts["sliding_rotation"]);
    ExpectLayers(config, facts, golden["tokens"].get<int64_t>());
    EXPECT_EQ(config.experts.active, facts["experts_active"].get<int64_t>());
    if (facts.contains("mlp_bias")) { EXPECT_EQ(config.mlp_bias, facts["mlp_bias"].get<bool>()); }
    if (facts.contains("norm_topk_prob")) {
      EXPECT_EQ(config.experts.routing == backend::Routing::kSoftmaxOfChosen, facts["norm_topk_prob"].get<bool>());
    }
  }
}

}  // namespace
}  // namespace pensieve::model
