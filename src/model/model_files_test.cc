// What people really have: files beside a model, files that are something else, and models as other programs lay them.
#include "model/model_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "formats/safetensors.h"
#include "formats/test_files.h"
#include "model/test_runner.h"
#include "model/tiny_models.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
using formats::ExpectMessage;
using formats::GgufWriter;
using formats::TempDirectory;

constexpr const char* kPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";

std::string Projector() {
  GgufWriter writer;
  writer.String("general.architecture", "clip").Tensor("v.patch", {8}, 0, std::string(32, '\0'));
  return writer.Bytes();
}

std::string GgufOfType(const std::string& type) {
  GgufWriter writer;
  writer.String("general.architecture", "llama").String("general.type", type);
  writer.Tensor("x", {8}, 0, std::string(32, '\0'));
  return writer.Bytes();
}

void CopyModel(const std::string& name, const TempDirectory& to) {
  CopyWithChanges(TestData(name), Json::object(), to);
}

Status LoadError(const std::string& path) {
  const auto model = Load(path, TinyOptions(Device::kReference));
  EXPECT_FALSE(model.has_value()) << path;
  return model ? OkStatus() : model.error();
}

void ExpectLoads(const std::string& path, const std::string& architecture) {
  const auto model = Load(path, TinyOptions(Device::kReference));
  ASSERT_TRUE(model.has_value()) << path << ": " << model.error().message();
  EXPECT_EQ((*model)->config.architecture, architecture);
  EXPECT_TRUE(ReadTokenizer(path).has_value());
}

TEST(ModelFiles, GgufModelsAreFoundBesideWhatIsNoModel) {
  const TempDirectory dir;
  fs::copy(TestData("tiny-qwen3.gguf"), dir.Path("tiny.gguf"));
  ExpectLoads(dir.path(), "qwen3");
  dir.Write("mmproj-f16.gguf", Projector());
  dir.Write("imatrix.gguf", GgufOfType("imatrix"));
  dir.Write("style.gguf", GgufOfType("adapter"));
  dir.Write("config.json", R"({"model_type":"something_new"})");
  dir.Write("README.md", "hello");
  ExpectLoads(dir.path(), "qwen3");
  fs::copy(TestData("tiny-qwen3.gguf"), dir.Path("other.gguf"));
  ExpectMessage(LoadError(dir.path()).message(), {"2 .gguf files", "name one of them (other.gguf, tiny.gguf)"});
}

TEST(ModelFiles, EndingsInCapitalsAndLinksCount) {
  const TempDirectory dir;
  fs::copy(TestData("tiny-qwen3.gguf"), dir.Path("TINY.GGUF"));
  ExpectLoads(dir.path(), "qwen3");
  fs::create_symlink("TINY.GGUF", dir.Path("link"));
  ExpectLoads(dir.Path("link"), "qwen3");
  fs::create_symlink("gone", dir.Path("dangling.gguf"));
  ExpectMessage(LoadError(dir.Path("dangling.gguf")).message(), {"dangling.gguf: is a link to gone", "download"});
}

TEST(ModelFiles, AFileOfAModelsDirectoryMeansTheModel) {
  const TempDirectory dir;
  CopyModel("tiny-qwen2", dir);
  for (const char* name : {"config.json", "model.safetensors"}) ExpectLoads(dir.Path(name), "qwen2");
  // Weights under another name are used when they are named, alone.
  fs::rename(dir.Path("model.safetensors"), dir.Path("mine.safetensors"));
  ExpectLoads(dir.Path("mine.safetensors"), "qwen2");
  ExpectMessage(LoadError(dir.path()).message(), {"no model*.safetensors", "mine.safetensors", "name that file"});
  fs::rename(dir.Path("mine.safetensors"), dir.Path("weights.00.safetensors"));
  ExpectLoads(dir.path(), "qwen2");
}

TEST(ModelFiles, ARepositoryOfHuggingFacesCacheMeansItsMainSnapshot) {
  const TempDirectory dir;
  for (const char* commit : {"snapshots/aaaa", "snapshots/bbbb"}) fs::create_directories(dir.Path(commit));
  fs::create_directories(dir.Path("blobs"));
  for (const auto& entry : fs::directory_iterator(TestData("tiny-qwen2"))) {
    const std::string name = entry.path().filename().string();
    fs::copy(entry.path(), dir.Path("blobs/" + name));
    fs::create_symlink("../../blobs/" + name, dir.Path("snapshots/bbbb/" + name));
  }
  ExpectMessage(LoadError(dir.path()).message(), {"Hugging Face's cache", "2 snapshots"});
  dir.Write("refs/main", "bbbb");
  ExpectLoads(dir.path(), "qwen2");
  dir.Write("refs/main", "../../elsewhere");
  fs::remove_all(dir.Path("snapshots/aaaa"));
  ExpectLoads(dir.path(), "qwen2");
}

struct OtherFiles {
  std::vector<std::pair<std::string, std::string>> files;  // name, content
  std::string path;                                        // given as the model; "": the directory
  std::vector<std::string> message;
};

TEST(ModelFiles, WhatIsNoModelIsNamedForWhatItIs) {
  const std::string config = *ReadFile(TestData("tiny-bert/config.json"), 1 << 20);
  const std::string adapter = R"({"base_model_name_or_path":"org/base","peft_type":"LORA"})";
  const std::vector<OtherFiles> cases = {
      {{{"adapter_config.json", adapter}, {"adapter_model.safetensors", "x"}},
       "",
       {"is a LoRA adapter of \"org/base\"", "merge"}},
      {{{"adapter_config.json", adapter}, {"adapter_model.safetensors", "x"}, {"config.json", config}},
       "",
       {"is a LoRA adapter of \"org/base\""}},
      {{{"adapter_config.json", adapter}, {"adapter_model.safetensors", "x"}},
       "adapter_model.safetensors",
       {"is a LoRA adapter"}},
      {{{"adapter_config.json", R"({"model":"org/mlx"})"}, {"adapters.safetensors", "x"}}, "", {"of \"org/mlx\""}},
      {{{"config.json", config}, {"pytorch_model.bin", "x"}}, "", {"PyTorch weights (pytorch_model.bin)", "convert"}},
      {{{"config.json", config}, {"pytorch_model-00001-of-00002.bin", "x"}}, "", {"PyTorch weights"}},
      {{{"pytorch_model.bin", "x"}}, "", {"PyTorch weights"}},
      {{{"pytorch_model.bin", "PK\x03\x04zip"}}, "pytorch_model.bin", {"zip archive, as PyTorch writes"}},
      {{{"config.json", config}, {"tf_model.h5", "x"}}, "", {"TensorFlow weights"}},
      {{{"config.json", config}, {"flax_model.msgpack", "x"}}, "", {"Flax weights"}},
      {{{"config.json", config}, {"onnx.txt", ""}, {"model.onnx", "x"}}, "", {"an ONNX model (model.onnx)"}},
      {{{"params.json", "{}"}, {"consolidated.safetensors", "x"}, {"tekken.json", "{}"}},
       "",
       {"Mistral's own format (consolidated.safetensors)", "config.json"}},
      {{{"params.json", "{}"}, {"consolidated.safetensors", "x"}},
       "consolidated.safetensors",
       {"Mistral's own format"}},
      {{{"config.json", config}}, "", {"no model*.safetensors", "download"}},
      {{{"model.safetensors", "x"}}, "", {"weights but no config.json"}},
      {{{"model.safetensors", "x"}}, "model.safetensors", {"has no config.json beside it"}},
      {{{"tokenizer.model", "x"}}, "", {"holds only a tokenizer"}},
      {{{"model_index.json", "{}"}}, "", {"diffusers pipeline"}},
      {{{"m-00002-of-00002.gguf", "x"}}, "", {"the first part of the model is not there", "m-00002-of-00002.gguf"}},
      {{{"mmproj.gguf", Projector()}}, "", {"mmproj.gguf: is the image part", "language model"}},
      {{{"mmproj.gguf", Projector()}}, "mmproj.gguf", {"is the image part"}},
      {{{"a.gguf", GgufOfType("adapter")}}, "a.gguf", {"LoRA adapter"}},
      {{{"a.gguf", GgufOfType("imatrix")}}, "a.gguf", {"importance matrix"}},
      {{{"a.gguf", kPointer}}, "a.gguf", {"git-lfs pointer"}},
      {{{"a.gguf", ""}}, "a.gguf", {"a.gguf: is empty"}},
      {{{"a.gguf/x", ""}}, "", {"a.gguf: is a directory, but a file is needed"}},
      {{{"config.json", config}, {"model.safetensors", kPointer}}, "", {"model.safetensors: is a git-lfs pointer"}},
      {{{"config.json", kPointer}, {"model.safetensors", "x"}}, "", {"config.json: is a git-lfs pointer"}},
      {{{"config.json", config}, {"model.safetensors/x", "x"}}, "", {"model.safetensors: is a directory"}},
  };
  for (const OtherFiles& test : cases) {
    SCOPED_TRACE(testing::PrintToString(test.message));
    const TempDirectory dir;
    for (const auto& [name, content] : test.files) dir.Write(name, content);
    const Status error = LoadError(test.path.empty() ? dir.path() : dir.Path(test.path));
    ExpectMessage(error.message(), test.message);
    ExpectMessage(error.message(), {dir.path()});
  }
}

TEST(ModelFiles, TokenizersThatCannotBeReadAreNamed) {
  const TempDirectory dir;
  CopyModel("tiny-bert", dir);
  dir.Write("tokenizer.json", kPointer);
  ExpectMessage(LoadError(dir.path()).message(), {"tokenizer.json: is a git-lfs pointer"});
  dir.Write("tokenizer.json", "");
  ExpectMessage(ReadTokenizer(dir.Path("tokenizer.json")).error().message(), {"tokenizer.json: is empty"});
  fs::remove(dir.Path("tokenizer.json"));
  dir.Write("tokenizer.model", "x");
  dir.Write("vocab.txt", "x");
  const Status error = LoadError(dir.path());
  EXPECT_EQ(error.code(), StatusCode::kNotFound);
  ExpectMessage(error.message(), {"no tokenizer.json, only tokenizer.model, vocab.txt", "save_pretrained"});
  ExpectMessage(ReadTokenizer(dir.path()).error().message(), {"no tokenizer.json, only tokenizer.model, vocab.txt"});
}

// A second file that holds the tensor `from` of model.safetensors again under the name `to`.
void WriteCopyOfTensor(const TempDirectory& dir, const std::string& from, const std::string& to) {
  const auto files = formats::SafetensorsSet::OpenFile(dir.Path("model.safetensors"));
  const formats::SafeTensor* tensor = files->Find(from);
  ASSERT_NE(tensor, nullptr);
  const Json header = {
      {to, {{"dtype", tensor->dtype_name}, {"shape", tensor->shape}, {"data_offsets", {0, tensor->bytes.size()}}}}};
  dir.Write("model-copy.safetensors",
            formats::SafetensorsBytes(DumpJson(header),
                                      {reinterpret_cast<const char*>(tensor->bytes.data()), tensor->bytes.size()}));
}

TEST(ModelFiles, WeightsOfOtherQuantizersAreNamed) {
  for (const char* method : {"gptq", "awq", "fp8", "compressed-tensors"}) {
    const TempDirectory dir;
    CopyWithChanges(TestData("tiny-qwen2"), {{"quantization_config", {{"quant_method", method}}}}, dir);
    ExpectMessage(LoadError(dir.path()).message(), {"quant_method", method, "take a GGUF file"});
  }
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-qwen2"), {{"quantization_config", {{"load_in_4bit", true}}}}, dir);
  ExpectMessage(LoadError(dir.path()).message(), {"bitsandbytes"});
  CopyModel("tiny-qwen2", dir);
  WriteCopyOfTensor(dir, "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.qweight");
  std::string weights = *ReadFile(dir.Path("model.safetensors"), 1 << 20);
  const std::string name = "layers.0.mlp.up_proj.weight";
  weights.replace(weights.find(name), name.size(), "layers.0.mlp.up_proj.weighx");
  dir.Write("model.safetensors", weights);
  ExpectMessage(LoadError(dir.path()).message(), {"up_proj.qweight", "GPTQ", "take a GGUF file"});
}

TEST(ModelFiles, AnOutputLayerThatDiffersFromATiedEmbeddingIsUsed) {
  const TempDirectory dir;
  CopyWithChanges(TestData("tiny-llama"), {{"tie_word_embeddings", true}}, dir);
  const auto untied = LoadTiny(TestData("tiny-llama"), Device::kReference);
  const auto loaded = LoadTiny(dir.path(), Device::kReference);
  ASSERT_TRUE(untied && loaded);
  EXPECT_TRUE(untied->warnings.empty());
  ASSERT_EQ(loaded->warnings.size(), 1u);
  ExpectMessage(loaded->warnings[0], {dir.path(), "tie_word_embeddings", "lm_head"});
  EXPECT_EQ(ReadHeader(dir.path())->warnings, loaded->warnings);
  Runner expected(*untied), got(*loaded);
  const std::vector<int32_t> tokens = {3, 14, 15, 9, 2, 6};
  EXPECT_EQ(got.Prefill(tokens, 6), expected.Prefill(tokens, 6));
}

TEST(ModelFiles, ACopyOfTheEmbeddingIsNoOutputLayerOfItsOwn) {
  const TempDirectory dir;
  CopyModel("tiny-qwen2", dir);
  WriteCopyOfTensor(dir, "model.embed_tokens.weight", "lm_head.weight");
  const auto loaded = LoadTiny(dir.path(), Device::kReference);
  ASSERT_NE(loaded, nullptr);
  EXPECT_TRUE(loaded->config.tied_embeddings);
  EXPECT_TRUE(loaded->warnings.empty());
}

TEST(ModelFiles, TokensWithoutARowInTheEmbeddingArePlainText) {
  const TempDirectory dir;
  CopyModel("tiny-gemma3", dir);
  Json tokenizer = *ParseJson(*ReadFile(dir.Path("tokenizer.json"), 1 << 20));
  tokenizer["added_tokens"].push_back(
      {{"id", 64}, {"content", "<image_soft_token>"}, {"special", true}, {"normalized", false}});
  tokenizer["model"]["vocab"]["<image_soft_token>"] = 64;
  dir.Write("tokenizer.json", DumpJson(tokenizer));
  const auto loaded = LoadTiny(dir.path(), Device::kReference);
  ASSERT_NE(loaded, nullptr);
  const auto plain = LoadTiny(TestData("tiny-gemma3"), Device::kReference);
  const std::string text = "an <image_soft_token> here";
  EXPECT_EQ(loaded->text.tokenizer->Encode(text), plain->text.tokenizer->Encode(text));
  EXPECT_EQ((*ReadTokenizer(dir.path()))->Encode(text), plain->text.tokenizer->Encode(text));
  EXPECT_EQ((*ReadTokenizer(dir.Path("tokenizer.json")))->Encode(text), plain->text.tokenizer->Encode(text));
  // A piece of the vocabulary that is no added token is the sign of another model's tokenizer.
  tokenizer["model"]["vocab"]["zzz"] = 65;
  dir.Write("tokenizer.json", DumpJson(tokenizer));
  ExpectMessage(LoadError(dir.path()).message(), {"ids up to 65", "vocab_size is 64", "another model"});
}

TEST(ModelFiles, WarningsOfTheTokenizerReachTheModel) {
  const TempDirectory dir;
  CopyModel("tiny-qwen2", dir);
  dir.Write("tokenizer_config.json", R"({"added_tokens_decoder":{"0":{"content":"<other>"}}})");
  const auto loaded = LoadTiny(dir.path(), Device::kReference);
  ASSERT_NE(loaded, nullptr);
  ASSERT_EQ(loaded->warnings.size(), 1u);
  ExpectMessage(loaded->warnings[0], {dir.path(), "tokenizer_config.json gives id 0 to \"<other>\""});
  EXPECT_EQ(ReadHeader(dir.path())->warnings, loaded->warnings);
}

}  // namespace
}  // namespace pensieve::model
