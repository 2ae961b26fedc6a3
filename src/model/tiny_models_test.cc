// Tiny random models in every file format and architecture against the transformers package (tools/golden_tiny.py, and
// tools/golden_experts.py for mixtures of experts).
#include <gtest/gtest.h>

#include "model/tiny_models.h"
#include "model/weight_store.h"

namespace pensieve::model {
namespace {

using formats::ExpectMessage;
using formats::TempDirectory;

const Json& Golden() {
  static const Json kGolden = [] {
    Json golden = ReadGolden("tiny_golden.json");
    const Json experts = ReadGolden("experts_golden.json");
    EXPECT_EQ(golden["tokens"], experts["tokens"]);
    golden["models"].update(experts["models"]);
    golden["variants"].update(experts["variants"]);
    return golden;
  }();
  return kGolden;
}

std::vector<int32_t> Tokens() { return Golden()["tokens"].get<std::vector<int32_t>>(); }

Logits LogitsOf(const std::string& path, Device device) {
  const auto model = LoadTiny(path, device);
  if (model == nullptr) return {};
  return Runner(*model).Prefill(Tokens(), 128);
}

void ExpectNear(const Logits& got, const Json& expected, double tolerance) {
  ASSERT_EQ(got.size(), Tokens().size());
  double worst = 0;
  for (size_t i = 0; i < expected["rows"].size(); ++i) {
    const std::vector<float>& row = got[expected["rows"][i].get<size_t>()];
    const Json& wanted = expected["logits"][i];
    ASSERT_EQ(row.size(), wanted.size());
    for (size_t k = 0; k < row.size(); ++k) worst = std::max(worst, std::fabs(row[k] - wanted[k].get<double>()));
  }
  EXPECT_LE(worst, tolerance);
}

TEST(TinyModels, EveryFormatAndArchitectureGivesTheReferencesLogits) {
  for (const auto& [name, expected] : Golden()["models"].items()) {
    if (!expected.contains("logits")) continue;
    SCOPED_TRACE(name);
    ExpectNear(LogitsOf(TestData(name), Device::kReference), expected, 2e-5);
    ExpectNear(LogitsOf(TestData(name), Device::kCpuExact), expected, 2e-4);
    // Biases that drive gpt-oss's gates to their limit also make larger what quantized inputs cost.
    const double tolerance = name.starts_with("tiny-gpt-oss") ? 1.5 : 0.5;
    ExpectNear(LogitsOf(TestData(name), Device::kCpuDefault), expected, tolerance);
  }
}

TEST(TinyModels, TheSameWeightsGiveTheSameBitsInEveryFormat) {
  const Logits safetensors = LogitsOf(TestData("tiny-llama"), Device::kReference);
  EXPECT_EQ(LogitsOf(TestData("tiny-llama-mlx"), Device::kReference), safetensors);
  EXPECT_EQ(LogitsOf(TestData("tiny-llama-q4_1.gguf"), Device::kReference), safetensors);
  EXPECT_EQ(LogitsOf(TestData("tiny-qwen3.gguf"), Device::kReference),
            LogitsOf(TestData("tiny-qwen3"), Device::kReference));
  EXPECT_EQ(LogitsOf(TestData("tiny-mixtral-experts.gguf"), Device::kCpuDefault),
            LogitsOf(TestData("tiny-mixtral.gguf"), Device::kCpuDefault));
}

// Converters of multimodal models name a module in config.json in one way and its tensors in another.
TEST(TinyModels, QuantizationOfAModuleIsFoundUnderAnySpelling) {
  const std::string path = TestData("tiny-llama-mixed");
  const Logits expected = LogitsOf(path, Device::kReference);
  const auto header = ReadHeader(path);
  ASSERT_TRUE(header.has_value());
  const Json config = *ParseJson(*ReadFile(path + "/config.json", 1 << 20));
  for (const char* spelling : {"model.language_model.", "language_model.model.", "language_model.", ""}) {
    SCOPED_TRACE(spelling);
    Json entries;
    for (const auto& [key, value] : config["quantization"].items()) {
      const bool in_model = key.starts_with("model.");
      entries[in_model ? spelling + key.substr(6) : key == "lm_head" ? "language_model.lm_head" : key] = value;
    }
    const TempDirectory dir;
    CopyWithChanges(path, {{"quantization", entries}}, dir);
    EXPECT_EQ(LogitsOf(dir.path(), Device::kReference), expected);
    const auto changed = ReadHeader(dir.path());
    ASSERT_TRUE(changed.has_value()) << changed.error().message();
    EXPECT_EQ(changed->parameters, header->parameters);
    EXPECT_EQ(changed->types.size(), header->types.size());
  }
}

TEST(TinyModels, EveryKindOfRotationAndMaskGivesTheReferencesLogits) {
  for (const auto& [name, variant] : Golden()["variants"].items()) {
    if (!variant.contains("logits")) continue;
    SCOPED_TRACE(name);
    const TempDirectory dir;
    CopyWithChanges(TestData(variant.value("of", "tiny-llama")), variant["changes"], dir);
    ExpectNear(LogitsOf(dir.path(), Device::kReference), variant, 2e-5);
    ExpectNear(LogitsOf(dir.path(), Device::kCpuExact), variant, 2e-4);
  }
}

// Mean negative log-likelihood of the text, and the greedy token wherever the two best are further apart than 0.02.
void ExpectSummary(const Logits& got, const Json& expected) {
  const std::vector<int32_t> tokens = Tokens();
  ASSERT_EQ(got.size(), tokens.size());
  double nll = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) nll -= LogSoftmax(got[i])[static_cast<size_t>(tokens[i + 1])];
  nll /= static_cast<double>(tokens.size() - 1);
  const double wanted = expected["nll"].get<double>();
  EXPECT_NEAR(nll, wanted, 1e-3 * wanted);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int64_t greedy = std::max_element(got[i].begin(), got[i].end()) - got[i].begin();
    const int64_t wanted_token = expected["greedy"][i].get<int64_t>();
    if (wanted_token >= 0) { EXPECT_EQ(greedy, wanted_token) << "row " << i; }
  }
}

TEST(TinyModels, ExpertsGiveTheLikelihoodOfTransformersAndMlx) {
  int models = 0;
  for (const char* kind : {"models", "variants"}) {
    for (const auto& [name, expected] : Golden()[kind].items()) {
      if (!expected.contains("mlx")) continue;
      SCOPED_TRACE(name);
      ++models;
      const TempDirectory dir;
      std::string path = TestData(name);
      if (expected.contains("of")) {
        CopyWithChanges(TestData(expected["of"].get<std::string>()), expected["changes"], dir);
        path = dir.path();
      }
      const Logits exact = LogitsOf(path, Device::kCpuExact);
      ExpectSummary(exact, expected);
      if (!expected["mlx"].contains("deviates")) ExpectSummary(exact, expected["mlx"]);
    }
  }
  EXPECT_GE(models, 13);
}

TEST(TinyModels, HeadersTellOfExperts) {
  struct Case {
    const char* name;
    int64_t count, active, width, shared;
    const char* quantization;
  };
  for (const Case& test : {Case{"tiny-qwen3-moe", 8, 3, 32, 0, "f32"},
                           {"tiny-qwen3-moe-00002-of-00002.gguf", 8, 3, 32, 0, "Q8_0"},
                           {"tiny-qwen2-moe.gguf", 8, 3, 32, 64, "Q8_0"},
                           {"tiny-mixtral-mlx", 4, 2, 32, 0, "affine 3-bit group 32"},
                           {"tiny-gpt-oss", 4, 2, 32, 0, "mxfp4"},
                           {"tiny-gpt-oss-mlx", 4, 2, 32, 0, "mxfp4"},
                           {"tiny-gpt-oss.gguf", 4, 2, 32, 0, "F16"}}) {
    SCOPED_TRACE(test.name);
    const auto header = ReadHeader(TestData(test.name));
    ASSERT_TRUE(header.has_value()) << header.error().message();
    EXPECT_EQ(header->config.experts.count, test.count);
    EXPECT_EQ(header->config.experts.active, test.active);
    EXPECT_EQ(header->config.experts.intermediate_size, test.width);
    EXPECT_EQ(header->config.experts.shared_intermediate_size, test.shared);
    EXPECT_EQ(header->config.quantization, test.quantization);
  }
  // The same numbers in three forms: parameters do not depend on how they are packed.
  EXPECT_EQ(ReadHeader(TestData("tiny-gpt-oss"))->parameters, ReadHeader(TestData("tiny-gpt-oss.gguf"))->parameters);
  EXPECT_EQ(ReadHeader(TestData("tiny-gpt-oss"))->parameters, ReadHeader(TestData("tiny-gpt-oss-mlx"))->parameters);
}

TEST(TinyModels, ExpertsStayInTheMappedFile) {
  for (const char* name :
       {"tiny-qwen3-moe", "tiny-qwen3-moe-mlx", "tiny-mixtral-mlx", "tiny-gpt-oss", "tiny-gpt-oss-mlx"}) {
    const auto model = LoadTiny(TestData(name), Device::kCpuDefault);
    ASSERT_NE(model, nullptr);
    EXPECT_EQ(model->weights->allocated_bytes(), 0u) << name;
    // A step reads three of eight experts, or two of four.
    EXPECT_LT(model->network->weight_bytes_per_step(), ReadHeader(TestData(name))->weight_bytes * 9 / 10) << name;
  }
}

TEST(TinyModels, EncodersGiveTheReferencesVectors) {
  const auto check = [](const std::string& path, const Json& expected) {
    for (const Device device : {Device::kReference, Device::kCpuExact, Device::kCpuDefault}) {
      const auto model = LoadTiny(path, device);
      ASSERT_NE(model, nullptr);
      EXPECT_TRUE(model->config.is_embedding);
      Runner runner(*model);
      model->config.pooling = backend::Pooling::kMean;
      EXPECT_GE(Cosine(runner.Embed({Tokens()})[0], expected["mean"].get<std::vector<double>>()), 0.999999) << path;
      model->config.pooling = backend::Pooling::kCls;
      EXPECT_GE(Cosine(runner.Embed({Tokens()})[0], expected["cls"].get<std::vector<double>>()), 0.999999) << path;
    }
  };
  check(TestData("tiny-bert"), Golden()["models"]["tiny-bert"]);
  check(TestData("tiny-bert.gguf"), Golden()["models"]["tiny-bert.gguf"]);
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-bert"), Golden()["variants"]["roberta"]["changes"], dir);
  check(dir.path(), Golden()["variants"]["roberta"]);
}

TEST(TinyModels, ChunksAndNeighboursChangeNoBit) {
  for (const Device device : {Device::kReference, Device::kCpuExact, Device::kCpuDefault}) {
    for (const char* name : {"tiny-llama", "tiny-llama-mlx", "tiny-llama-mixed", "tiny-llama-q8_0.gguf", "tiny-qwen3",
                             "tiny-phi3", "tiny-qwen3-moe", "tiny-qwen3-moe-mlx", "tiny-qwen2-moe.gguf", "tiny-gpt-oss",
                             "tiny-gpt-oss-mlx", "tiny-gpt-oss.gguf"}) {
      SCOPED_TRACE(name);
      const auto model = LoadTiny(TestData(name), device);
      ASSERT_NE(model, nullptr);
      Runner runner(*model);
      const std::vector<int32_t> tokens = Tokens();
      const Logits whole = runner.Prefill(tokens, 128);
      for (const size_t chunk : {1, 7, 16}) ExpectSameInCompany(*model, runner.Prefill(tokens, chunk), whole);
      TestSequence a = runner.NewSequence(41), b = runner.NewSequence(41), c = runner.NewSequence(41);
      const std::vector<int32_t> other(tokens.rbegin(), tokens.rbegin() + 13);
      const Logits together = runner.Step({{&b, other}, {&a, tokens}, {&c, {5}}});
      ExpectSameInCompany(*model, Logits(together.begin() + 13, together.end() - 1), whole);
      const Logits alone = runner.Step({{&a, {42}}}, /*all_precise=*/true);
      --a.cached_len;
      const Logits beside = runner.Step({{&b, {7}}, {&c, {9}}, {&a, {42}}}, /*all_precise=*/true);
      ExpectSameInCompany(*model, {beside[2]}, {alone[0]});
    }
  }
}

TEST(TinyModels, TextsInABatchEmbedAsAlone) {
  for (const Device device : {Device::kReference, Device::kCpuDefault}) {
    const auto model = LoadTiny(TestData("tiny-bert"), device);
    ASSERT_NE(model, nullptr);
    Runner runner(*model);
    const std::vector<int32_t> tokens = Tokens();
    std::vector<std::vector<int32_t>> texts;
    for (const long length : {1, 2, 17, 40, 3}) texts.emplace_back(tokens.begin(), tokens.begin() + length);
    Logits alone;
    for (const auto& text : texts) alone.push_back(runner.Embed({text})[0]);
    ExpectSameInCompany(*model, runner.Embed(texts), alone);
  }
}

TEST(TinyModels, LogitsComeForTheWantedRowsOnly) {
  const auto model = LoadTiny(TestData("tiny-llama"), Device::kCpuDefault);
  ASSERT_NE(model, nullptr);
  Runner runner(*model);
  const std::vector<int32_t> tokens = Tokens();
  const Logits whole = runner.Prefill(tokens, 128);
  TestSequence sequence = runner.NewSequence(40);
  std::vector<int32_t> positions(40);
  for (int32_t i = 0; i < 40; ++i) positions[static_cast<size_t>(i)] = i;
  const backend::SequenceRows rows{0, 40, 0, sequence.blocks};
  const std::vector<int32_t> wanted = {3, 39};
  auto cache = model->backend->NewKvCache(
      {.layers = 2, .kv_heads = 2, .head_dim = 16, .block_len = 16, .num_blocks = 64, .dtype = backend::KvDType::kF32});
  ASSERT_TRUE(cache.has_value());
  Batch batch = {.rows = 40,
                 .ids = tokens,
                 .positions = positions,
                 .sequences = {&rows, 1},
                 .precise_rows = 40,
                 .output_rows = wanted};
  const backend::Matrix logits = model->network->Forward(batch, **cache);
  ASSERT_EQ(logits.rows, 2);
  std::vector<float> row(64);
  ASSERT_TRUE(model->backend->CopyToHost(logits.Rows(1, 1), row).ok());
  EXPECT_EQ(row, whole[39]);
  batch.output_rows = {};
  EXPECT_EQ(model->network->Forward(batch, **cache).rows, 0);
}

TEST(TinyModels, DecodersGiveTheirHiddenStates) {
  const auto model = LoadTiny(TestData("tiny-qwen3") + "/", Device::kReference);
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->config.name, "tiny-qwen3");
  const std::vector<float> last = Runner(*model).Hidden(Tokens()).back();
  const Json& expected = Golden()["models"]["tiny-qwen3"]["last_hidden"];
  ASSERT_EQ(last.size(), expected.size());
  for (size_t i = 0; i < last.size(); ++i) EXPECT_NEAR(last[i], expected[i].get<double>(), 1e-5);
}

TEST(TinyModels, HeadersTellWhatTheFilesHold) {
  const auto header = ReadHeader(TestData("tiny-llama-mixed"));
  ASSERT_TRUE(header.has_value()) << header.error().message();
  EXPECT_EQ(header->format, "safetensors (MLX affine 4-bit group 32)");
  EXPECT_EQ(header->parameters, ReadHeader(TestData("tiny-llama"))->parameters);
  EXPECT_EQ(ReadHeader(TestData("tiny-llama"))->files.size(), 2u);
  std::vector<std::string> types;
  for (const auto& type : header->types) types.push_back(type.type);
  for (const char* type : {"mxfp4", "affine 3-bit group 32", "affine 8-bit group 64", "F16"}) {
    EXPECT_TRUE(std::count(types.begin(), types.end(), type)) << type;
  }
  const auto gguf = ReadHeader(TestData("tiny-llama-q8_0.gguf"));
  ASSERT_TRUE(gguf.has_value()) << gguf.error().message();
  EXPECT_EQ(gguf->format, "gguf v3");
  EXPECT_EQ(gguf->config.quantization, "Q8_0");
  EXPECT_EQ(gguf->config.name, "tiny");
  EXPECT_EQ(gguf->text.chat_template, "{{ messages[0].content }}");
  EXPECT_EQ(gguf->text.stop_ids, std::vector<int32_t>{1});
}

TEST(TinyModels, TextSideFollowsTheFiles) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-llama"), Json::object(), dir);
  const auto text = [&] {
    auto header = ReadHeader(dir.path());
    EXPECT_TRUE(header.has_value()) << header.error().message();
    return std::move(header->text);
  };
  EXPECT_NE(text().chat_template.find("message.role"), std::string::npos);
  EXPECT_EQ(text().stop_ids, std::vector<int32_t>{1});
  dir.Write("generation_config.json", R"({"eos_token_id":[1,5],"temperature":0.6,"top_p":0.9,"top_k":20})");
  EXPECT_EQ(text().stop_ids, (std::vector<int32_t>{1, 5}));
  EXPECT_EQ(text().defaults.temperature, 0.6f);
  EXPECT_EQ(text().defaults.top_k, 20);
  dir.Write("generation_config.json", "not json");
  EXPECT_FALSE(text().defaults.temperature.has_value());
  dir.Write("tokenizer_config.json",
            R"({"chat_template":[{"name":"default","template":"D"},{"name":"tool_use","template":"T"},)"
            R"({"name":"x","template":"X"}]})");
  EXPECT_EQ(text().chat_template, "D");
  EXPECT_EQ(text().tool_template, "T");
  dir.Write("chat_template.jinja", "J");
  EXPECT_EQ(text().chat_template, "J");
  LoadOptions options;
  options.chat_template_file = dir.Write("mine.jinja", "M");
  const auto model = Load(dir.path(), options);
  ASSERT_TRUE(model.has_value()) << model.error().message();
  EXPECT_EQ((*model)->text.chat_template, "M");
  EXPECT_EQ((*model)->text.tool_template, "");
}

TEST(TinyModels, SentenceTransformersFilesDecideThePooling) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-bert"), Json::object(), dir);
  EXPECT_EQ(ReadHeader(dir.path())->config.pooling, backend::Pooling::kMean);
  EXPECT_TRUE(ReadHeader(dir.path())->config.normalize);
  dir.Write("modules.json", R"([{"path":"","type":"sentence_transformers.models.Transformer"},)"
                            R"({"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}])");
  dir.Write("1_Pooling/config.json", R"({"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false})");
  dir.Write("sentence_bert_config.json", R"({"max_seq_length":33})");
  const auto header = ReadHeader(dir.path());
  ASSERT_TRUE(header.has_value()) << header.error().message();
  EXPECT_EQ(header->config.pooling, backend::Pooling::kCls);
  EXPECT_FALSE(header->config.normalize);
  EXPECT_EQ(header->config.embed_context_max, 33);
  dir.Write("1_Pooling/config.json", R"({"pooling_mode_weightedmean_tokens":true})");
  ExpectMessage(ReadHeader(dir.path()).error().message(), {"1_Pooling", "pooling_mode", "weightedmean"});
}

// Files as releases from 5.4 on write them.
TEST(TinyModels, NewerSentenceTransformersFilesAreUnderstood) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-bert"), Json::object(), dir);
  const std::string new_path = "sentence_transformers.sentence_transformer.modules.pooling.Pooling";
  dir.Write("modules.json",
            R"([{"idx":0,"path":"","type":"sentence_transformers.base.modules.transformer.Transformer"},)"
            R"({"idx":1,"path":"1_Pooling","type":")" +
                new_path +
                R"("},)"
                R"({"idx":2,"path":"2_Normalize","type":"sentence_transformers.base.modules.normalize.Normalize"}])");
  dir.Write("sentence_bert_config.json", R"({"transformer_task":"feature-extraction"})");
  dir.Write("tokenizer_config.json", R"({"model_max_length":21})");
  const auto pooling = [&](const std::string& config) {
    dir.Write("1_Pooling/config.json", config);
    auto header = ReadHeader(dir.path());
    EXPECT_TRUE(header.has_value()) << header.error().message();
    return header ? header->config : ModelConfig();
  };
  EXPECT_EQ(pooling(R"({"embedding_dimension":32,"pooling_mode":"cls"})").pooling, backend::Pooling::kCls);
  EXPECT_EQ(pooling(R"({"pooling_mode":["lasttoken"]})").pooling, backend::Pooling::kLast);
  EXPECT_EQ(pooling(R"({"pooling_mode":"max","pooling_mode_mean_tokens":true})").pooling, backend::Pooling::kMax);
  EXPECT_EQ(pooling("{}").pooling, backend::Pooling::kMean);
  EXPECT_TRUE(pooling("{}").normalize);
  EXPECT_EQ(pooling("{}").embed_context_max, 21);
  dir.Write("2_Normalize/config.json", R"({"module_input_name":"sentence_embedding"})");
  dir.Write("tokenizer_config.json", R"({"model_max_length":1000000000000000019884624838656})");
  EXPECT_EQ(pooling("{}").embed_context_max, 0) << "1e30 is how no limit is written";
  dir.Write("sentence_bert_config.json", R"({"max_seq_length":null})");
  EXPECT_EQ(pooling("{}").embed_context_max, 0);
}

TEST(TinyModels, RecipesThatAreNotUnderstoodAreRefusedByName) {
  struct Case {
    std::string file, content;
    std::vector<std::string> message;
  };
  const std::string start = R"([{"path":"","type":"sentence_transformers.models.Transformer"},)";
  const std::string pooling = R"({"path":"1_Pooling","type":"sentence_transformers.models.Pooling"})";
  const auto after_pooling = [&](const std::string& more) { return start + pooling + "," + more + "]"; };
  const std::string dense = R"({"path":"2_Dense","type":"sentence_transformers.models.Dense"})";
  const std::string normalize = R"({"path":"","type":"sentence_transformers.models.Normalize"})";
  const std::vector<Case> cases = {
      {"1_Pooling/config.json", R"({"pooling_mode":["cls","mean"]})", {"pooling_mode", "2 modes (cls, mean)"}},
      {"1_Pooling/config.json", R"({"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true})", {"2 modes"}},
      {"1_Pooling/config.json", R"({"pooling_mode":"median"})", {"\"median\"", "cls, mean, max"}},
      {"1_Pooling/config.json", R"({"pooling_mode":[]})", {"empty list"}},
      {"1_Pooling/config.json", R"({"pooling_mode":7})", {"must be a string"}},
      {"1_Pooling/config.json", R"({"word_embedding_dimension":33})", {"is 33", "have 32 numbers"}},
      {"1_Pooling/config.json", R"({"include_prompt":false})", {"include_prompt"}},
      {"modules.json", "{}", {"JSON list"}},
      {"modules.json", R"([{"path":"../x","type":"sentence_transformers.models.Transformer"}])", {"\"[0].path\""}},
      {"modules.json",
       R"([{"path":"0_BERT","type":"sentence_transformers.models.Transformer"}])",
       {"beside modules.json"}},
      {"modules.json", R"([{"path":"","type":"custom_st.Transformer"}])", {"custom_st.Transformer", "Python code"}},
      {"modules.json", R"([{"path":"","type":"sentence_transformers.models.WordEmbeddings"}])", {"first module"}},
      {"modules.json", start + R"({"path":"1","type":"sentence_transformers.models.WordWeights"}])", {"WordWeights"}},
      {"modules.json", start + dense + "]", {"before Pooling"}},
      {"modules.json", after_pooling(normalize + "," + dense), {"after Normalize"}},
      {"2_Dense/config.json", R"({"in_features":32,"out_features":8,"activation_function":"my.Code"})", {"my.Code"}},
      {"2_Dense/config.json", R"({"in_features":32,"out_features":8,"use_residual":true})", {"use_residual"}},
      {"2_Dense/config.json", R"({"in_features":31,"out_features":8})", {"is 31, but 32 numbers come in"}},
      {"2_Dense/config.json",
       R"({"in_features":32,"out_features":8,"activation_function":"torch.nn.modules.linear.Identity",)"
       R"("module_input_name":"token_embeddings"})",
       {"module_input_name"}},
      {"sentence_bert_config.json", R"({"max_seq_length":"long"})", {"max_seq_length"}},
      {"tokenizer_config.json", R"({"model_max_length":"long"})", {"model_max_length"}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.content);
    const TempDirectory dir;
    CopyWithChanges(TestData("tiny-bert"), Json::object(), dir);
    dir.Write("modules.json", test.file.starts_with("2_Dense") ? after_pooling(dense) : start + pooling + "]");
    dir.Write("1_Pooling/config.json", "{}");
    dir.Write(test.file, test.content);
    const auto header = ReadHeader(dir.path());
    ASSERT_FALSE(header.has_value());
    ExpectMessage(header.error().message(), test.message);
    ExpectMessage(header.error().message(), {dir.Path(test.file)});
  }
}

}  // namespace
}  // namespace pensieve::model
