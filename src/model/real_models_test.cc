// The default models against golden values of independent references (tools/golden_smollm2.py, golden_minilm.py). Runs
// where the models have been fetched: in $PENSIEVE_TEST_MODELS or the user's cache.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "model/test_runner.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;

// Every place where `make` or a user may have put the models.
std::vector<fs::path> ModelRoots() {
  std::vector<fs::path> roots;
  for (const char* name : {"PENSIEVE_TEST_MODELS", "PENSIEVE_CACHE_DIR", "AKIDB_CACHE_DIR"}) {
    if (const char* value = std::getenv(name)) roots.emplace_back(value);
  }
  if (const char* home = std::getenv("HOME")) roots.push_back(fs::path(home) / ".cache/pensieve/models");
  return roots;
}

// The first file of that name anywhere under the roots; empty when there is none.
std::string FindFile(const std::string& name, const std::string& beside) {
  std::error_code ignored;
  for (const fs::path& root : ModelRoots()) {
    for (fs::recursive_directory_iterator it(root, ignored), end; it != end; it.increment(ignored)) {
      if (it->path().filename() != name) continue;
      if (beside.empty() || fs::exists(it->path().parent_path() / beside, ignored)) return it->path().string();
    }
  }
  return "";
}

std::unique_ptr<LoadedModel> LoadOrFail(const std::string& path, backend::InputPrecision mode) {
  LoadOptions options;
  options.compute.activations = mode;
  options.rows_max = 256;
  auto model = Load(path, options);
  EXPECT_TRUE(model.has_value()) << model.error().message();
  return model ? *std::move(model) : nullptr;
}

// KL(reference || ours) of one position, the tokens outside the golden's list taken as one.
double Divergence(const Json& ids, const Json& logprobs, const std::vector<float>& logits) {
  const std::vector<double> ours = LogSoftmax(logits);
  double kl = 0, rest = 1, our_rest = 1;
  for (size_t i = 0; i < ids.size(); ++i) {
    const double reference = logprobs[i].get<double>();
    const double q = ours[ids[i].get<size_t>()];
    kl += std::exp(reference) * (reference - q);
    rest -= std::exp(reference);
    our_rest -= std::exp(q);
  }
  if (rest > 1e-6) kl += rest * std::log(rest / std::max(our_rest, 1e-12));
  return kl;
}

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    path_ = FindFile("SmolLM2-135M-Instruct.Q4_1.gguf", "");
    if (path_.empty()) GTEST_SKIP() << "the model has not been fetched";
    golden_ = ReadGolden("smollm2_golden.json");
  }

  double MeanDivergence(LoadedModel& model, size_t chunk) {
    Runner runner(model);
    const Logits logits = runner.Prefill(golden_["tokens"].get<std::vector<int32_t>>(), chunk);
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i)
      sum += Divergence(golden_["top_ids"][i], golden_["top_logprobs"][i], logits[i]);
    return sum / static_cast<double>(logits.size());
  }

  std::vector<float> AnswerLogits(LoadedModel& model) {
    Runner runner(model);
    return runner.Prefill(golden_["chat_prompt"].get<std::vector<int32_t>>(), 256).back();
  }

  std::string path_;
  Json golden_;
};

TEST_F(SmolLm2, ExactModeIsTheFloatReference) {
  const auto model = LoadOrFail(path_, backend::InputPrecision::kF32);
  ASSERT_NE(model, nullptr);
  const double kl = MeanDivergence(*model, 256);
  RecordProperty("mean_kl", std::to_string(kl));
  std::printf("exact mode: mean KL %.3e\n", kl);
  EXPECT_LE(kl, 1e-4);
  Runner runner(*model);
  EXPECT_EQ(runner.Greedy(golden_["greedy_prompt"].get<std::vector<int32_t>>(), 64),
            golden_["greedy"].get<std::vector<int32_t>>());
  const std::vector<double> answer = LogSoftmax(AnswerLogits(*model));
  for (const auto& [word, expected] : golden_["chat_first"].items()) {
    EXPECT_NEAR(answer[expected[0].get<size_t>()], expected[1].get<double>(), 2e-3) << word;
  }
  EXPECT_EQ(runner.Greedy(golden_["chat_prompt"].get<std::vector<int32_t>>(), 8),
            golden_["chat_greedy"].get<std::vector<int32_t>>());
}

TEST_F(SmolLm2, DefaultModeIsNearOnEveryInstructionSet) {
  for (const char* isa : {"scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"}) {
    const auto device = backend::NewCpuDevice({.isa = isa});
    if (!device.has_value()) continue;  // this machine has none
    SCOPED_TRACE(isa);
    LoadOptions options;
    options.device = *device;
    options.rows_max = 256;
    const auto loaded = Load(path_, options);
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
    LoadedModel& model = **loaded;
    const double kl = MeanDivergence(model, 256);
    std::printf("default mode, %s: mean KL %.3e\n", isa, kl);
    EXPECT_LE(kl, 2e-4);
    // Its first token leads by 0.08 nats in the float reference.
    Runner runner(model);
    EXPECT_EQ(runner.Greedy(golden_["chat_prompt"].get<std::vector<int32_t>>(), 8),
              golden_["chat_greedy"].get<std::vector<int32_t>>());
  }
}

TEST_F(SmolLm2, ChunksAndNeighboursChangeNoBit) {
  const auto model = LoadOrFail(path_, backend::InputPrecision::kInt8);
  ASSERT_NE(model, nullptr);
  const auto tokens = golden_["tokens"].get<std::vector<int32_t>>();
  Runner runner(*model);
  const Logits whole = runner.Prefill(tokens, 256);
  EXPECT_EQ(runner.Prefill(tokens, 33), whole);
  TestSequence a = runner.NewSequence(200), b = runner.NewSequence(80), c = runner.NewSequence(30);
  const std::vector<int32_t> other(tokens.rbegin(), tokens.rbegin() + 56);
  const Logits together = runner.Step({{&b, other}, {&a, tokens}});
  EXPECT_EQ(Logits(together.begin() + 56, together.end()), whole);
  const Logits next_alone = runner.Step({{&a, {42}}}, /*all_precise=*/true);
  --a.cached_len;
  EXPECT_EQ(runner.Step({{&b, {7}}, {&a, {42}}, {&c, {9}}}, /*all_precise=*/true)[1], next_alone[0]);
}

TEST_F(SmolLm2, TextSide) {
  const auto header = ReadHeader(path_);
  ASSERT_TRUE(header.has_value()) << header.error().message();
  EXPECT_EQ(header->config.architecture, "llama");
  EXPECT_EQ(header->config.quantization, "Q4_1");
  EXPECT_EQ(header->config.context_max, 8192);
  EXPECT_TRUE(header->config.tied_embeddings);
  EXPECT_EQ(header->parameters, 134515008);
  EXPECT_NE(header->text.chat_template.find("You are a helpful AI assistant named SmolLM"), std::string::npos);
  EXPECT_TRUE(std::count(header->text.stop_ids.begin(), header->text.stop_ids.end(), 2));
  EXPECT_EQ(header->text.tokenizer->Encode(
                "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
                "<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"),
            golden_["chat_prompt"].get<std::vector<int32_t>>());
}

class MiniLm : public testing::Test {
 protected:
  void SetUp() override {
    const std::string file = FindFile("model.safetensors", "sentence_bert_config.json");
    if (file.empty()) GTEST_SKIP() << "the model has not been fetched";
    path_ = fs::path(file).parent_path().string();
  }
  std::string path_;
};

TEST_F(MiniLm, VectorsAreTheReference) {
  const auto model = LoadOrFail(path_, backend::InputPrecision::kInt8);
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->config.embed_context_max, 256);
  EXPECT_EQ(model->config.pooling, backend::Pooling::kMean);
  EXPECT_TRUE(model->config.normalize);
  const Json golden = ReadGolden("minilm_golden.json");
  Runner runner(*model);
  std::vector<std::vector<int32_t>> batch;
  Logits alone;
  double worst = 1;
  for (const Json& entry : golden["texts"]) {
    const auto ids = model->text.tokenizer->Encode(entry["text"].get<std::string>());
    EXPECT_EQ(ids, entry["ids"].get<std::vector<int32_t>>()) << entry["text"];
    alone.push_back(runner.Embed({ids})[0]);
    worst = std::min(worst, Cosine(alone.back(), entry["vector"].get<std::vector<double>>()));
    batch.push_back(ids);
  }
  std::printf("worst cosine %.7f\n", worst);
  EXPECT_GE(worst, 0.9999);
  EXPECT_EQ(runner.Embed(batch), alone);
  std::reverse(batch.begin(), batch.end());
  std::reverse(alone.begin(), alone.end());
  EXPECT_EQ(runner.Embed(batch), alone);
}

}  // namespace
}  // namespace pensieve::model
