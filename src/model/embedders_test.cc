// Embedders saved by the newest sentence-transformers (tools/golden_embedders.py): from texts to vectors, with the real
// post-processing of their tokenizers, and what their files say about how to use them.
#include <gtest/gtest.h>

#include "formats/test_files.h"
#include "model/embedding_recipe.h"
#include "model/test_runner.h"
#include "model/tiny_models.h"

namespace pensieve::model {
namespace {

using formats::ExpectMessage;
using formats::TempDirectory;

// The ids of a text, cut to the limit in front of a last special token.
std::vector<int32_t> Cut(const LoadedModel& model, const std::string& text) {
  std::vector<int32_t> ids = model.text.tokenizer->Encode(text);
  const auto limit = static_cast<size_t>(model.config.embed_context_max);
  if (ids.size() <= limit) return ids;
  const int32_t last = ids.back();
  ids.resize(limit);
  if (model.text.tokenizer->IsSpecial(last)) ids.back() = last;
  return ids;
}

std::vector<float> Vector(LoadedModel& model, const std::vector<int32_t>& ids) {
  Runner runner(model);
  if (model.config.is_encoder) return runner.Embed({ids})[0];
  std::vector<float> row = runner.Hidden(ids).back();
  double squares = 0;
  for (const float x : row) squares += static_cast<double>(x) * x;
  for (float& x : row) x = static_cast<float>(x / std::sqrt(squares));
  return row;
}

TEST(Embedders, GiveTheVectorsOfSentenceTransformers) {
  const Json golden = ReadGolden("embedders_golden.json")["models"];
  for (const char* name : {"tiny-st-bert", "tiny-qwen3-embedding", "tiny-nomic-bert", "tiny-modernbert"}) {
    const auto model = LoadTiny(TestData(name), Device::kReference);
    ASSERT_NE(model, nullptr);
    const Json& expected = golden[name];
    EXPECT_EQ(model->config.embed_context_max, expected["limit"]) << name;
    EXPECT_EQ(model->config.recipe_source, "modules.json");
    EXPECT_TRUE(model->warnings.empty());
    EXPECT_EQ(model->config.closing_id, -1) << "the tokenizer closes texts itself";
    for (size_t i = 0; i < expected["texts"].size(); ++i) {
      const auto vector = Vector(*model, Cut(*model, expected["texts"][i].get<std::string>()));
      ASSERT_EQ(vector.size(), expected["vectors"][i].size());
      for (size_t d = 0; d < vector.size(); ++d) {
        EXPECT_NEAR(vector[d], expected["vectors"][i][d].get<double>(), 1e-4) << name << " text " << i << " dim " << d;
      }
    }
  }
}

// Nomic's published files have the names of the makers' own code.
TEST(Embedders, NomicIsReadUnderItsMakersNames) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-nomic-bert"),
                  {{"hidden_size", nullptr},
                   {"n_embd", 32},
                   {"intermediate_size", nullptr},
                   {"n_inner", 64},
                   {"num_hidden_layers", nullptr},
                   {"n_layer", 3},
                   {"num_attention_heads", nullptr},
                   {"n_head", 4},
                   {"max_position_embeddings", nullptr},
                   {"n_positions", 48},
                   {"rope_parameters", nullptr},
                   {"rotary_emb_base", 1000},
                   {"rotary_emb_fraction", 1.0},
                   {"layer_norm_eps", nullptr},
                   {"layer_norm_epsilon", 1e-12},
                   {"activation_function", "swiglu"},
                   {"hidden_act", nullptr}},
                  dir);
  const auto original = LoadTiny(TestData("tiny-nomic-bert"), Device::kReference);
  const auto renamed = LoadTiny(dir.path(), Device::kReference);
  ASSERT_TRUE(original && renamed);
  const auto ids = Cut(*original, "a river");
  EXPECT_EQ(Vector(*renamed, ids), Vector(*original, ids));
}

TEST(Embedders, RotaryEncodersOfOtherKindsAreRefused) {
  const auto refused = [](const char* model, const Json& changes, const std::vector<std::string>& message) {
    const TempDirectory dir;
    CopyWithChanges(TestData(model), changes, dir);
    const auto header = ReadHeader(dir.path());
    ASSERT_FALSE(header.has_value()) << DumpJson(changes);
    ExpectMessage(header.error().message(), message);
  };
  refused("tiny-nomic-bert", {{"num_experts", 8}}, {"nomic_bert", "experts"});
  refused("tiny-nomic-bert", {{"activation_function", "gelu"}}, {"activation_function", "swiglu"});
  refused("tiny-nomic-bert", {{"rotary_scaling_factor", 2}}, {"scaled rotation"});
  refused("tiny-modernbert", {{"hidden_activation", "relu"}}, {"hidden_activation", "gelu"});
  refused("tiny-modernbert", {{"layer_types", {"full_attention"}}}, {"layer_types", "1 entries for 4 layers"});
  refused("tiny-modernbert", {{"rope_parameters", {{"full_attention", {{"rope_type", "yarn"}}}}}}, {"scaled rotation"});
}

// A window of 8 is 4 tokens to either side: longer texts show it, on the fast kernels too.
TEST(Embedders, RotaryEncodersAnswerTheSameOnTheProcessor) {
  for (const char* name : {"tiny-nomic-bert", "tiny-modernbert"}) {
    const auto reference = LoadTiny(TestData(name), Device::kReference);
    const auto fast = LoadTiny(TestData(name), Device::kCpuExact);
    ASSERT_TRUE(reference && fast);
    const auto ids = Cut(*reference, "what is the capital of france and of every other country");
    const auto expected = Vector(*reference, ids), got = Vector(*fast, ids);
    for (size_t d = 0; d < got.size(); ++d) EXPECT_NEAR(got[d], expected[d], 1e-4) << name << " dim " << d;
  }
}

TEST(Embedders, PromptsAreThoseOfTheFiles) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-st-bert"), Json::object(), dir);
  dir.Write("config_sentence_transformers.json",
            R"({"prompts":{"query":"Q: ","document":"","none":null},"default_prompt_name":"query"})");
  const auto header = ReadHeader(dir.path());
  ASSERT_TRUE(header.has_value()) << header.error().message();
  EXPECT_EQ(header->config.prompts, (std::map<std::string, std::string>{{"document", ""}, {"query", "Q: "}}));
  EXPECT_EQ(header->config.default_prompt, "query");
  dir.Write("config_sentence_transformers.json", R"({"prompts":{},"default_prompt_name":"query"})");
  ExpectMessage(ReadHeader(dir.path()).error().message(), {"default_prompt_name", "\"query\""});
  dir.Write("config_sentence_transformers.json", R"({"prompts":{"query":7}})");
  ExpectMessage(ReadHeader(dir.path()).error().message(), {"prompts.query", "string"});
}

TEST(Embedders, WithoutARecipeFollowTheirFamilyOrAreWarnedOf) {
  const auto rule = [](const std::string& name) {
    ModelConfig config;
    config.name = name;
    config.is_embedding = true;
    std::vector<std::string> warnings;
    ApplyFamilyRule(config, warnings);
    EXPECT_FALSE(config.recipe_source.empty());
    return std::pair(config.pooling, warnings.size());
  };
  EXPECT_EQ(rule("BAAI_bge-small-en-v1.5"), std::pair(backend::Pooling::kCls, size_t{0}));
  EXPECT_EQ(rule("e5-base-v2"), std::pair(backend::Pooling::kMean, size_t{0}));
  EXPECT_EQ(rule("my-encoder"), std::pair(backend::Pooling::kMean, size_t{1}));
}

TEST(Embedders, CrossEncodersAreNotTakenForThem) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-bert"), {{"architectures", {"BertForSequenceClassification"}}}, dir);
  const auto header = ReadHeader(dir.path());
  ASSERT_FALSE(header.has_value());
  ExpectMessage(header.error().message(), {"config.json", "BertForSequenceClassification", "reranker"});
}

TEST(Embedders, OtherWeightsHaveAnotherFingerprint) {
  const auto fingerprint = [](const std::string& path) { return ReadHeader(path)->fingerprint; };
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-st-bert"), Json::object(), dir);
  const std::string original = fingerprint(TestData("tiny-st-bert"));
  EXPECT_EQ(original.size(), 16u);
  EXPECT_EQ(fingerprint(dir.path()), original);
  std::string weights = *ReadFile(dir.Path("model.safetensors"), 1 << 20);
  weights.back() = static_cast<char>(weights.back() ^ 1);
  dir.Write("model.safetensors", weights);
  EXPECT_NE(fingerprint(dir.path()), original);
  EXPECT_NE(fingerprint(TestData("tiny-qwen3.gguf")), original);
}

}  // namespace
}  // namespace pensieve::model
