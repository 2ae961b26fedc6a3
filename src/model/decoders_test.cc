// Further decoder families, longrope, and the bar for exactness, against mlx-lm and transformers
// (tools/golden_decoders.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/tiny_models.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
using formats::ExpectMessage;
using formats::TempDirectory;

const Json& Golden() {
  static const Json kGolden = ReadGolden("decoders_golden.json");
  return kGolden;
}

std::vector<int32_t> Tokens(size_t count = 40) {
  auto tokens = Golden()["tokens"].get<std::vector<int32_t>>();
  tokens.resize(count);
  return tokens;
}

Logits PrefillTiny(const std::string& path, const LoadOptions& options, size_t tokens = 40) {
  const auto model = LoadTiny(path, options);
  return model == nullptr ? Logits() : Runner(*model).Prefill(Tokens(tokens), 128);
}

TEST(Decoders, GiveTheReferencesLogits) {
  for (const auto& [name, expected] : Golden()["models"].items()) {
    if (!expected.contains("logits")) continue;
    SCOPED_TRACE(name);
    EXPECT_LE(WorstDifference(PrefillTiny(TestData(name), TinyOptions(Device::kReference)), expected), 2e-6);
    EXPECT_LE(WorstDifference(PrefillTiny(TestData(name), TinyOptions(Device::kCpuExact)), expected), 2e-5);
    EXPECT_LE(WorstDifference(PrefillTiny(TestData(name), TinyOptions(Device::kCpuDefault)), expected), 0.05);
  }
}

// The bar: mean negative log-likelihood within 1e-3 of the reference's, and its greedy token in every row where that is
// ahead by more than 0.02 (-1 elsewhere).
void ExpectMeetsTheBar(const Logits& logits, const Json& reference) {
  const std::vector<int32_t> tokens = Tokens(logits.size());
  double nll = 0;
  for (size_t i = 0; i + 1 < logits.size(); ++i) nll -= LogSoftmax(logits[i])[static_cast<size_t>(tokens[i + 1])];
  nll /= static_cast<double>(logits.size() - 1);
  EXPECT_NEAR(nll / reference["nll"].get<double>(), 1.0, 1e-3);
  for (size_t i = 0; i < logits.size(); ++i) {
    const int greedy = reference["greedy"][i].get<int>();
    if (greedy < 0) continue;
    EXPECT_EQ(std::max_element(logits[i].begin(), logits[i].end()) - logits[i].begin(), greedy) << "row " << i;
  }
}

// Both references, but for mlx-lm where the golden file says why it deviates.
void ExpectMeetsTheBars(const Logits& logits, const Json& expected) {
  ExpectMeetsTheBar(logits, expected);
  if (!expected["mlx"].contains("deviates")) ExpectMeetsTheBar(logits, expected["mlx"]);
}

TEST(Decoders, ExactModeMeetsTheBarOfBothReferences) {
  const LoadOptions exact = TinyOptions(Device::kCpuExact);
  for (const auto& [name, expected] : Golden()["models"].items()) {
    SCOPED_TRACE(name);
    if (expected.contains("nll")) ExpectMeetsTheBars(PrefillTiny(TestData(name), exact), expected);
  }
  const Json tiny = ReadGolden("tiny_golden.json");
  for (const auto& [name, expected] : Golden()["agreement"].items()) {
    SCOPED_TRACE(name);
    const size_t colon = name.find(':');
    if (colon == std::string::npos) {
      ExpectMeetsTheBars(PrefillTiny(TestData(name), exact), expected);
      continue;
    }
    const TempDirectory dir;
    CopyWithChanges(TestData(name.substr(0, colon)), tiny["variants"][name.substr(colon + 1)]["changes"], dir);
    ExpectMeetsTheBars(PrefillTiny(dir.path(), exact), expected);
  }
}

TEST(Decoders, ChunksAndNeighboursChangeNoBit) {
  for (const Device device : {Device::kReference, Device::kCpuExact, Device::kCpuDefault}) {
    for (const char* name : {"tiny-gemma3", "tiny-gemma3-mlx", "tiny-gemma2", "tiny-ministral3"}) {
      SCOPED_TRACE(name);
      const auto model = LoadTiny(TestData(name), device);
      ASSERT_NE(model, nullptr);
      Runner runner(*model);
      const std::vector<int32_t> tokens = Tokens();
      const Logits whole = runner.Prefill(tokens, 128);
      for (const size_t chunk : {1, 6, 7, 8, 16}) ExpectSameInCompany(*model, runner.Prefill(tokens, chunk), whole);
      TestSequence a = runner.NewSequence(40), b = runner.NewSequence(40);
      const std::vector<int32_t> other(tokens.rbegin(), tokens.rbegin() + 13);
      const Logits together = runner.Step({{&b, other}, {&a, tokens}});
      ExpectSameInCompany(*model, Logits(together.begin() + 13, together.end()), whole);
    }
  }
}

// The largest difference that being coarse makes to a row's logits.
double CoarseRowsDifference(int layers) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-llama-mlx"), {{"num_hidden_layers", layers}}, dir);
  const auto model = LoadTiny(dir.path(), Device::kCpuDefault);
  if (model == nullptr) return 0;
  Runner runner(*model);
  const Logits precise = runner.Prefill(Tokens(), 128);
  const Logits coarse = runner.PrefillAt(Tokens(), 0);
  double worst = 0;
  for (size_t r = 0; r < precise.size(); ++r) {
    for (size_t i = 0; i < precise[r].size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(precise[r][i]) - static_cast<double>(coarse[r][i])));
    }
  }
  return worst;
}

TEST(Decoders, TheFirstLayersProductsArePreciseForEveryRow) {
  // Of one layer, attention in pairs is all that is left: it makes 0.011. The second is none of the first layers.
  EXPECT_LT(CoarseRowsDifference(1), 0.02);
  EXPECT_GT(CoarseRowsDifference(2), 0.04);
}

TEST(Decoders, WindowsOfGemmaAreSwitchedByTheFile) {
  // The same layers, listed: nothing changes. All of them global: everything behind the window does.
  const TempDirectory listed, global;
  const Logits window = PrefillTiny(TestData("tiny-gemma3"), TinyOptions(Device::kReference));
  CopyWithChanges(TestData("tiny-gemma3"), *ParseJson(R"({"sliding_window_pattern":null,
                                 "layer_types":["sliding_attention","sliding_attention","full_attention"]})"),
                  listed);
  EXPECT_EQ(PrefillTiny(listed.path(), TinyOptions(Device::kReference)), window);
  CopyWithChanges(TestData("tiny-gemma2"), *ParseJson(R"({"layer_types":["full_attention","full_attention"]})"),
                  global);
  const Logits windows = PrefillTiny(TestData("tiny-gemma2"), TinyOptions(Device::kReference));
  const Logits none = PrefillTiny(global.path(), TinyOptions(Device::kReference));
  EXPECT_EQ(Logits(windows.begin(), windows.begin() + 7), Logits(none.begin(), none.begin() + 7));
  EXPECT_NE(windows[7], none[7]);
}

TEST(Decoders, NewerSpellingsOfRopeMeanTheSame) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-gemma3"),
                  *ParseJson(R"({"rope_theta":null,"rope_scaling":null,"rope_local_base_freq":null,"rope_parameters":{
                    "full_attention":{"rope_type":"linear","factor":2.0,"rope_theta":100000.0},
                    "sliding_attention":{"rope_type":"default","rope_theta":1000.0}}})"),
                  dir);
  EXPECT_EQ(PrefillTiny(dir.path(), TinyOptions(Device::kReference)),
            PrefillTiny(TestData("tiny-gemma3"), TinyOptions(Device::kReference)));
}

TEST(Decoders, AMistralWindowCanBeSwitchedOff) {
  const TempDirectory with, without, off;
  CopyWithChanges(TestData("tiny-llama"), *ParseJson(R"({"model_type":"mistral","sliding_window":7})"), with);
  CopyWithChanges(TestData("tiny-llama"),
                  *ParseJson(R"({"model_type":"mistral","sliding_window":7,"use_sliding_window":false})"), off);
  CopyWithChanges(TestData("tiny-llama"), *ParseJson(R"({"model_type":"mistral","sliding_window":null})"), without);
  const LoadOptions options = TinyOptions(Device::kReference);
  EXPECT_EQ(PrefillTiny(off.path(), options), PrefillTiny(without.path(), options));
  EXPECT_NE(PrefillTiny(with.path(), options), PrefillTiny(without.path(), options));
}

TEST(Decoders, VisionIsNeitherReadNorCounted) {
  const auto wrapped = ReadHeader(TestData("tiny-gemma3-mlx"));
  ASSERT_TRUE(wrapped.has_value()) << wrapped.error().message();
  EXPECT_EQ(wrapped->parameters, ReadHeader(TestData("tiny-gemma3"))->parameters);
}

// --- longrope
// --------------------------------------------------------------------------------------------------------

TEST(Longrope, TheListFollowsThePlannedLength) {
  const Json& golden = Golden()["longrope"];
  for (const Device device : {Device::kReference, Device::kCpuExact}) {
    const double tolerance = device == Device::kReference ? 2e-6 : 2e-5;
    const auto model = LoadTiny(TestData("tiny-phi3"), device);
    ASSERT_NE(model, nullptr);
    EXPECT_FALSE(model->network->UsesLongRope(16));
    EXPECT_TRUE(model->network->UsesLongRope(17));
    Runner runner(*model);
    const Logits short_prompt = runner.Prefill(Tokens(16), 128);
    const Logits long_prompt = runner.Prefill(Tokens(), 128);
    EXPECT_LE(WorstDifference(short_prompt, golden["short"]), tolerance);
    EXPECT_LE(WorstDifference(long_prompt, golden["long"]), tolerance);
    ExpectMeetsTheBar(short_prompt, golden["short"]);
    ExpectMeetsTheBars(long_prompt, golden["long"]);
    // A short prompt with room for a long answer is long from its first token on.
    TestSequence planned = runner.NewSequence(17);
    const Logits first = runner.Step({{&planned, Tokens(16)}});
    ExpectSameInCompany(*model, first, Logits(long_prompt.begin(), long_prompt.begin() + 16));
    // Both kinds in one batch are as alone.
    TestSequence a = runner.NewSequence(16), b = runner.NewSequence(40), c = runner.NewSequence(16);
    const Logits together = runner.Step({{&a, Tokens(16)}, {&b, Tokens()}, {&c, Tokens(9)}});
    ExpectSameInCompany(*model, Logits(together.begin(), together.begin() + 16), short_prompt);
    ExpectSameInCompany(*model, Logits(together.begin() + 16, together.begin() + 56), long_prompt);
    ExpectSameInCompany(*model, Logits(together.begin() + 56, together.end()),
                        Logits(short_prompt.begin(), short_prompt.begin() + 9));
  }
}

TEST(Longrope, TheListCanBeForced) {
  const Json& golden = Golden()["longrope"];
  LoadOptions options = TinyOptions(Device::kReference);
  options.longrope = LongropeChoice::kLong;  // mlx-lm's only list
  EXPECT_LE(WorstDifference(PrefillTiny(TestData("tiny-phi3"), options, 16), golden["short_by_long_list"]), 1e-5);
  options.longrope = LongropeChoice::kShort;
  const Logits forced = PrefillTiny(TestData("tiny-phi3"), options);
  EXPECT_LE(WorstDifference(Logits(forced.begin(), forced.begin() + 16), golden["short"]), 2e-6);
}

TEST(Longrope, TheFirstFilesCallItYarnOrSu) {
  const Json config = *ParseJson(*ReadFile(TestData("tiny-phi3") + "/config.json", 1 << 20));
  const Logits expected = PrefillTiny(TestData("tiny-phi3"), TinyOptions(Device::kReference));
  for (const char* type : {"yarn", "su"}) {
    const TempDirectory dir;
    Json scaling = config["rope_scaling"];
    scaling["type"] = type;
    CopyWithChanges(TestData("tiny-phi3"), {{"rope_scaling", scaling}}, dir);
    EXPECT_EQ(PrefillTiny(dir.path(), TinyOptions(Device::kReference)), expected) << type;
  }
}

TEST(Longrope, TheLastPositionsOf128k) {
  const Json& far = Golden()["longrope"]["far"];
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-phi3"), far["changes"], dir);
  for (const Device device : {Device::kReference, Device::kCpuExact}) {
    const auto model = LoadTiny(dir.path(), device);
    ASSERT_NE(model, nullptr);
    EXPECT_EQ(model->config.context_max, 131072);
    const Logits got = Runner(*model).PrefillAt(Tokens(), far["first_position"].get<int32_t>());
    EXPECT_LE(WorstDifference(got, far), 2e-5);
  }
}

// --- embedders
// -------------------------------------------------------------------------------------------------------

TEST(EmbeddingGemma, GivesTheReferencesVectors) {
  for (const char* name : {"tiny-embeddinggemma", "tiny-embeddinggemma-mlx", "tiny-embeddinggemma.gguf"}) {
    SCOPED_TRACE(name);
    const auto expected = Golden()["models"][name]["vector"].get<std::vector<double>>();
    for (const Device device : {Device::kReference, Device::kCpuExact, Device::kCpuDefault}) {
      const auto model = LoadTiny(TestData(name), device);
      ASSERT_NE(model, nullptr);
      EXPECT_FALSE(model->config.can_generate());
      EXPECT_TRUE(model->config.is_embedding && model->config.normalize);
      Runner runner(*model);
      const double near = device == Device::kCpuDefault ? 0.9995 : 0.9999999;
      EXPECT_GE(Cosine(runner.Embed({Tokens()})[0], expected), near);
      std::vector<std::vector<int32_t>> texts;
      Logits alone;
      for (const size_t length : {1, 5, 9, 40, 10}) {
        texts.push_back(Tokens(length));
        alone.push_back(runner.Embed({texts.back()})[0]);
      }
      ExpectSameInCompany(*model, runner.Embed(texts), alone);
    }
  }
}

// The layer of LaBSE has a tanh. So has one whose file names no function.
TEST(EmbeddingGemma, ALayersTanhIsTakenOfEveryOutput) {
  const std::string modules = R"([{"path":"","type":"sentence_transformers.models.Transformer"},
      {"path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
      {"path":"2_Dense","type":"sentence_transformers.models.Dense"},
      {"path":"3_Dense","type":"sentence_transformers.models.Dense"}])";
  const auto embed = [&](Device device, const std::string& activation) {
    const TempDirectory dir;
    CopyWithChanges(TestData("tiny-embeddinggemma"), Json::object(), dir);
    dir.Write("modules.json", modules);
    dir.Write("3_Dense/config.json", R"({"in_features":128,"out_features":32)" + activation + "}");
    const auto model = LoadTiny(dir.path(), device);
    return model == nullptr ? std::vector<float>() : Runner(*model).Embed({Tokens()})[0];
  };
  const std::string key = R"(,"activation_function":"torch.nn.modules.)";
  for (const Device device : {Device::kReference, Device::kCpuExact}) {
    const std::vector<float> plain = embed(device, key + R"(linear.Identity")");
    ASSERT_EQ(plain.size(), 32u);
    for (const std::string& activation : {key + R"(activation.Tanh")", std::string()}) {
      const std::vector<float> got = embed(device, activation);
      ASSERT_EQ(got.size(), plain.size());
      float largest = 0;
      for (size_t d = 0; d < got.size(); ++d) {
        EXPECT_NEAR(got[d], std::tanh(plain[d]), 1e-6) << d;
        largest = std::max(largest, std::abs(plain[d]));
      }
      EXPECT_GT(largest, 0.1f);  // below, a tanh is hardly seen
    }
  }
}

TEST(EmbeddingGemma, ATextMayFillTheContext) {
  LoadOptions options = TinyOptions(Device::kCpuExact);
  options.rows_max = 8;
  const auto model = LoadTiny(TestData("tiny-embeddinggemma"), options);
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->network->rows_max(), model->config.context_max);
}

TEST(QwenEmbedding, IsKnownByItsNameOrByItsTokenizer) {
  const TempDirectory dir;
  const std::string named = dir.Path("Qwen3-Embedding-tiny");
  const std::string hidden = dir.Path("snapshot");
  const std::string reranker = dir.Path("Qwen3-Reranker-tiny");
  for (const std::string& path : {named, hidden, reranker}) {
    fs::copy(TestData("tiny-qwen3"), path, fs::copy_options::recursive);
  }
  const auto by_name = ReadHeader(named);
  ASSERT_TRUE(by_name.has_value()) << by_name.error().message();
  EXPECT_TRUE(by_name->config.is_embedding && by_name->config.normalize);
  EXPECT_EQ(by_name->config.pooling, backend::Pooling::kLast);
  EXPECT_EQ(by_name->config.closing_id, 1);
  EXPECT_FALSE(ReadHeader(hidden)->config.is_embedding);
  // A tokenizer that closes every text leaves nothing to append.
  for (const std::string& path : {hidden, reranker}) {
    Json tokenizer = *ParseJson(*ReadFile(path + "/tokenizer.json", 1 << 20));
    tokenizer["post_processor"] = *ParseJson(
        R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},
                      {"SpecialToken":{"id":"</s>","type_id":0}}],
            "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
            "special_tokens":{"</s>":{"id":"</s>","ids":[1],"tokens":["</s>"]}}})");
    dir.Write(fs::path(path).filename().string() + "/tokenizer.json", DumpJson(tokenizer));
  }
  EXPECT_TRUE(ReadHeader(hidden)->config.is_embedding);
  EXPECT_EQ(ReadHeader(hidden)->config.closing_id, -1);
  EXPECT_FALSE(ReadHeader(reranker)->config.is_embedding);
  LoadOptions wanted = TinyOptions(Device::kReference);
  wanted.embeds = true;
  EXPECT_TRUE(LoadTiny(TestData("tiny-qwen3"), wanted)->config.is_embedding);
  EXPECT_EQ(LoadTiny(TestData("tiny-llama"), wanted)->config.closing_id, -1);
}

// Saved by sentence-transformers, a large Qwen3-Embedding has no output layer, whatever its config.json says.
TEST(QwenEmbedding, NeedsNoOutputLayer) {
  const TempDirectory dir;
  const std::string path = dir.Path("Qwen3-Embedding-untied");
  const std::string tied = dir.Path("Qwen3-Embedding-tied");
  const std::string other = dir.Path("Qwen3-untied");
  for (const std::string& target : {path, tied, other}) {
    fs::copy(TestData("tiny-qwen3"), target, fs::copy_options::recursive);
    if (target == tied) continue;
    Json config = *ParseJson(*ReadFile(target + "/config.json", 1 << 20));
    config["tie_word_embeddings"] = false;
    dir.Write(fs::path(target).filename().string() + "/config.json", DumpJson(config));
  }
  const auto model = LoadTiny(path, Device::kReference), generating = LoadTiny(tied, Device::kReference);
  ASSERT_TRUE(model != nullptr && generating != nullptr);
  EXPECT_FALSE(model->config.can_generate());
  EXPECT_TRUE(generating->config.can_generate());
  EXPECT_EQ(Runner(*model).Hidden(Tokens()), Runner(*generating).Hidden(Tokens()));
  EXPECT_LT(model->network->weight_bytes_per_step(), generating->network->weight_bytes_per_step());
  ExpectMessage(Load(other, TinyOptions(Device::kReference)).error().message(), {"lm_head.weight", "missing"});
}

// --- what is refused
// -------------------------------------------------------------------------------------------------

struct BadConfig {
  std::string model;
  std::string changes;
  StatusCode code;
  std::vector<std::string> message;
};

TEST(Decoders, RefuseConfigurationsByTheNameOfTheField) {
  const StatusCode loss = StatusCode::kDataLoss, unknown = StatusCode::kUnimplemented;
  const std::vector<BadConfig> cases = {
      {"tiny-gemma3", R"({"sliding_window":-1})", loss, {"\"sliding_window\"", "at least 0"}},
      {"tiny-gemma3", R"({"sliding_window_pattern":0})", loss, {"\"sliding_window_pattern\"", "between 1"}},
      {"tiny-gemma3", R"({"query_pre_attn_scalar":0})", loss, {"\"query_pre_attn_scalar\""}},
      {"tiny-gemma3", R"({"hidden_activation":"gelu"})", unknown, {"\"hidden_activation\"", "gelu"}},
      {"tiny-gemma3", R"({"final_logit_softcapping":-3})", loss, {"\"final_logit_softcapping\""}},
      {"tiny-gemma3", R"({"rope_scaling":{"rope_type":"spiral"}})", unknown, {"\"rope_scaling.type\"", "spiral"}},
      {"tiny-gemma3", R"({"model_type":"gemma3n_text"})", unknown, {"\"model_type\"", "gemma3n_text", "gemma3_text"}},
      {"tiny-gemma3", R"({"num_hidden_layers":4})", loss, {"model.layers.3.", "missing"}},
      {"tiny-gemma3", R"({"use_bidirectional_attention":true})", unknown, {"EmbeddingGemma", "dense.0.weight"}},
      {"tiny-gemma2", R"({"attn_logit_softcapping":-1})", loss, {"\"attn_logit_softcapping\""}},
      {"tiny-ministral3", R"({"text_config":{"model_type":"mistral4"}})", unknown, {"\"model_type\"", "mistral4"}},
      {"tiny-ministral3", R"({"text_config":{"model_type":"ministral3"}})", loss, {"\"text_config.hidden_size\""}},
  };
  for (const BadConfig& test : cases) {
    SCOPED_TRACE(test.model + " " + test.changes);
    const TempDirectory dir;
    CopyWithChanges(TestData(test.model), *ParseJson(test.changes), dir);
    const auto model = Load(dir.path(), TinyOptions(Device::kReference));
    ASSERT_FALSE(model.has_value());
    EXPECT_EQ(model.error().code(), test.code) << model.error().message();
    ExpectMessage(model.error().message(), test.message);
  }
}

TEST(EmbeddingGemma, RefusesLayersThatDoNotFit) {
  const auto error = [](const std::string& file, const std::string& text) {
    const TempDirectory dir;
    CopyWithChanges(TestData("tiny-embeddinggemma"), Json::object(), dir);
    dir.Write(file, text);
    const auto model = Load(dir.path(), TinyOptions(Device::kReference));
    EXPECT_FALSE(model.has_value());
    return model ? OkStatus() : model.error();
  };
  const std::string identity = R"("activation_function":"torch.nn.modules.linear.Identity"})";
  ExpectMessage(error("2_Dense/config.json", R"({"in_features":31,"out_features":128,)" + identity).message(),
                {"2_Dense", "\"in_features\"", "32"});
  ExpectMessage(error("3_Dense/config.json", R"({"in_features":128,"out_features":16,)" + identity).message(),
                {"dense.1.weight", "[16, 128]"});
  ExpectMessage(
      error("2_Dense/config.json",
            R"({"in_features":32,"out_features":128,"activation_function":"torch.nn.modules.activation.ReLU"})")
          .message(),
      {"2_Dense", "\"activation_function\"", "ReLU"});
  ExpectMessage(error("2_Dense/config.json", R"({"out_features":128})").message(), {"\"in_features\" is missing"});
  ExpectMessage(error("2_Dense/model.safetensors", "").message(), {"2_Dense"});
}

}  // namespace
}  // namespace pensieve::model
