// Rope keys of GGUF metadata: what they mean, and which values are refused because no reading of them is certain.
#include "model/config_gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "formats/test_files.h"
#include "model/rope.h"

namespace pensieve::model {
namespace {

using formats::ExpectMessage;
using formats::GgufFile;
using formats::GgufWriter;
using formats::TempDirectory;

constexpr float kFactor = 4.0f;
const double kYarnsOwn = 0.1 * std::log(4.0) + 1.0;

struct RopeKeys {
  std::string type;
  std::map<std::string, float> values;  // below "llama.rope.scaling."
};

Result<ModelConfig> Read(const RopeKeys& keys) {
  GgufWriter writer;
  writer.String("general.architecture", "llama");
  writer.U32("llama.embedding_length", 64).U32("llama.block_count", 1).U32("llama.context_length", 256);
  writer.U32("llama.feed_forward_length", 64).U32("llama.attention.head_count", 2);
  writer.F32("llama.rope.scaling.factor", kFactor).U32("llama.rope.scaling.original_context_length", 64);
  writer.String("llama.rope.scaling.type", keys.type);
  for (const auto& [key, value] : keys.values) writer.F32("llama.rope.scaling." + key, value);
  writer.Tensor("token_embd.weight", {64, 4}, 0, std::string(64 * 4 * 4, '\0'));
  const TempDirectory dir;
  PENSIEVE_TRY(const GgufFile file, GgufFile::Open(dir.Write("model.gguf", writer.Bytes())));
  return ReadGgufConfig(file);
}

TEST(GgufConfig, WhatYarnMultipliesBy) {
  struct Case {
    std::map<std::string, float> values;
    double magnitude;
  };
  for (const auto& [values, magnitude] : std::vector<Case>{
           {{}, kYarnsOwn},
           {{{"attn_factor", 0.5f}}, 0.5 * kYarnsOwn},
           {{{"yarn_attn_factor", 1.0f}}, kYarnsOwn},
           {{{"yarn_attn_factor", static_cast<float>(kYarnsOwn)}}, kYarnsOwn},
           {{{"yarn_ext_factor", 1.0f}, {"attn_factor", 1.0f}}, kYarnsOwn},
           {{{"yarn_ext_factor", -1.0f}}, kYarnsOwn},
           {{{"yarn_log_multiplier", 1.0f}}, 1.0},
           {{{"yarn_log_multiplier", 0.5f}}, kYarnsOwn / (0.05 * std::log(4.0) + 1.0)},
           {{{"yarn_log_multiplier", 0.0f}}, kYarnsOwn},
           {{{"yarn_log_multiplier", 1.0f}, {"yarn_attn_factor", 1.0f}}, 1.0},
       }) {
    const auto config = Read({"yarn", values});
    ASSERT_TRUE(config.has_value()) << config.error().message();
    const auto rope = ComputeRope(config->rope, 256, 256);
    ASSERT_TRUE(rope.has_value()) << rope.error().message();
    EXPECT_NEAR(rope->magnitude, magnitude, 1e-6) << (values.empty() ? "" : values.begin()->first);
  }
}

TEST(GgufConfig, YarnsRampFollowsTheFile) {
  const auto plain = Read({"yarn", {}});
  const auto moved = Read({"yarn", {{"yarn_beta_fast", 16.0f}, {"yarn_beta_slow", 2.0f}}});
  ASSERT_TRUE(plain && moved);
  EXPECT_EQ(plain->rope.beta_fast, 32.0);
  EXPECT_EQ(plain->rope.beta_slow, 1.0);
  EXPECT_EQ(moved->rope.beta_fast, 16.0);
  EXPECT_EQ(moved->rope.beta_slow, 2.0);
}

TEST(GgufConfig, RopeKeysWithoutACertainMeaningAreRefused) {
  for (const RopeKeys& keys : std::vector<RopeKeys>{
           {"yarn", {{"yarn_attn_factor", 1.5f}}},
           {"yarn", {{"yarn_ext_factor", 0.0f}}},
           {"yarn", {{"yarn_ext_factor", 0.5f}}},
           {"linear", {{"yarn_ext_factor", 1.0f}}},
           {"linear", {{"attn_factor", 1.5f}}},
           {"none", {{"attn_factor", 0.5f}}},
           {"linear", {{"alpha", 1000.0f}}},
       }) {
    const std::string key = keys.values.begin()->first;
    SCOPED_TRACE(keys.type + " " + key);
    const auto config = Read(keys);
    ASSERT_FALSE(config.has_value());
    EXPECT_EQ(config.error().code(), StatusCode::kUnimplemented);
    ExpectMessage(config.error().message(), {"model.gguf", "llama.rope.scaling." + key, "not supported"});
  }
  EXPECT_TRUE(Read({"linear", {{"attn_factor", 1.0f}, {"yarn_ext_factor", 0.0f}}}).has_value());
}

}  // namespace
}  // namespace pensieve::model
