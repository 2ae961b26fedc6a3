// Broken, hostile and unsuitable models: one sentence that names file and field, and nothing large allocated.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "formats/test_files.h"
#include "model/test_runner.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
using formats::ExpectMessage;
using formats::GgufWriter;
using formats::TempDirectory;

LoadOptions TinyOptions() {
  LoadOptions options;
  options.device = backend::NewReferenceDevice();
  options.rows_max = 8;
  return options;
}

Status LoadError(const std::string& path, const LoadOptions& options = TinyOptions()) {
  const auto model = Load(path, options);
  EXPECT_FALSE(model.has_value()) << path;
  return model ? OkStatus() : model.error();
}

// A copy of a tiny model that a test breaks.
class BrokenModel {
 public:
  explicit BrokenModel(const std::string& name) {
    fs::copy(TestData(name), dir_.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    config = *ParseJson(*ReadFile(dir_.Path("config.json"), 1 << 20));
  }
  Status Error() {
    dir_.Write("config.json", DumpJson(config));
    return LoadError(dir_.path());
  }
  const TempDirectory& dir() const { return dir_; }

  Json config;

 private:
  TempDirectory dir_;
};

TEST(BadInput, PathsThatHoldNoModel) {
  const TempDirectory dir;
  EXPECT_EQ(LoadError(dir.Path("absent")).code(), StatusCode::kNotFound);
  ExpectMessage(LoadError(dir.Path("absent")).message(), {"absent", "no such file"});
  EXPECT_EQ(LoadError(dir.path()).code(), StatusCode::kNotFound);
  ExpectMessage(LoadError(dir.path()).message(), {dir.path(), "config.json"});
  ExpectMessage(LoadError(dir.Write("notes.txt", "hello, this is no model")).message(), {"notes.txt", "GGUF"});
  dir.Write("a.gguf", "x");
  dir.Write("b.gguf", "x");
  ExpectMessage(LoadError(dir.path()).message(), {"2 .gguf files"});
}

TEST(BadInput, DirectoriesWithPartsMissing) {
  {
    BrokenModel broken("tiny-bert");
    fs::remove(broken.dir().Path("model.safetensors"));
    const Status error = broken.Error();
    EXPECT_EQ(error.code(), StatusCode::kNotFound);
    ExpectMessage(error.message(), {broken.dir().path(), "no model*.safetensors"});
  }
  {
    BrokenModel broken("tiny-llama");
    fs::remove(broken.dir().Path("model-00002-of-00002.safetensors"));
    ExpectMessage(broken.Error().message(), {"index.json", "model-00002-of-00002.safetensors"});
  }
  {
    BrokenModel broken("tiny-bert");
    fs::remove(broken.dir().Path("tokenizer.json"));
    EXPECT_EQ(broken.Error().code(), StatusCode::kNotFound);
    ExpectMessage(broken.Error().message(), {"tokenizer.json"});
  }
}

TEST(BadInput, ConfigurationsThatDoNotFit) {
  struct Case {
    std::string key;
    Json value;  // null: removed
    StatusCode code;
    std::vector<std::string> message;
  };
  const StatusCode loss = StatusCode::kDataLoss, unknown = StatusCode::kUnimplemented;
  const std::vector<Case> cases = {
      {"hidden_size", nullptr, loss, {"config.json", "\"hidden_size\" is missing"}},
      {"num_hidden_layers", nullptr, loss, {"\"num_hidden_layers\" is missing"}},
      {"vocab_size", nullptr, loss, {"\"vocab_size\" is missing"}},
      {"max_position_embeddings", 0, loss, {"\"max_position_embeddings\"", "between 1"}},
      {"model_type", nullptr, loss, {"\"model_type\" is missing"}},
      {"model_type", "mamba9", unknown, {"config.json", "\"model_type\"", "mamba9", "llama", "bert"}},
      {"model_type", 7, loss, {"\"model_type\"", "string"}},
      {"model_file", "evil.py", unknown, {"\"model_file\""}},
      {"hidden_size", "32", loss, {"\"hidden_size\"", "integer"}},
      {"hidden_size", -32, loss, {"\"hidden_size\"", "-32"}},
      {"hidden_size", 1 << 30, loss, {"\"hidden_size\""}},
      {"hidden_size", 64, loss, {"tensor", "[64, 32]", "[64, 64]"}},
      {"num_hidden_layers", 3, loss, {"model.layers.2.", "missing"}},
      {"num_hidden_layers", 1000000, loss, {"\"num_hidden_layers\""}},
      {"num_key_value_heads", 3, loss, {"\"num_key_value_heads\"", "does not divide"}},
      {"vocab_size", 63, loss, {"vocab_size", "63"}},
      {"vocab_size", 128, loss, {"embed_tokens", "[128, 32]"}},
      {"head_dim", 15, StatusCode::kInvalidArgument, {"15"}},
      {"hidden_act", "mish", unknown, {"\"hidden_act\"", "mish"}},
      {"rope_theta", "big", loss, {"\"rope_theta\""}},
      {"rope_scaling", *ParseJson(R"({"type":"spiral"})"), unknown, {"\"rope_scaling.type\"", "spiral"}},
      {"rope_scaling",
       *ParseJson(R"({"type":"longrope","long_factor":[1],"original_max_position_embeddings":16})"),
       StatusCode::kInvalidArgument,
       {"long_factor", "1 entries"}},
      {"layer_types", *ParseJson(R"(["full_attention"])"), loss, {"\"layer_types\"", "1 entries for 2"}},
      {"layer_types",
       *ParseJson(R"(["full_attention","linear_attention"])"),
       unknown,
       {"\"layer_types\"", "linear_attention"}},
      {"eos_token_id", 64, loss, {"eos_token_id 64"}},
      {"eos_token_id", -1, loss, {"\"eos_token_id\""}},
      {"attention_bias", true, loss, {"q_proj.bias", "missing"}},
      {"quantization", *ParseJson(R"({"group_size":32})"), loss, {"\"quantization.bits\" is missing"}},
      {"quantization", *ParseJson(R"({"group_size":32,"bits":7})"), loss, {"\"quantization.bits\""}},
      {"quantization", *ParseJson(R"({"group_size":48,"bits":4})"), loss, {"\"quantization.group_size\""}},
      {"quantization",
       *ParseJson(R"({"group_size":32,"bits":4,"mode":"nf5"})"),
       unknown,
       {"\"quantization.mode\"", "nf5"}},
      {"quantization",
       *ParseJson(R"({"group_size":16,"bits":4,"mode":"nvfp4"})"),
       unknown,
       {"\"quantization.mode\" is \"nvfp4\"", "\"mxfp4\" are supported"}},
      {"quantization",
       *ParseJson(R"({"group_size":32,"bits":4,"lm_head":{"group_size":32,"bits":8,"mode":"mxfp8"}})"),
       unknown,
       {"\"quantization.lm_head.mode\" is \"mxfp8\"", "\"mxfp4\" are supported"}},
      {"quantization_config", *ParseJson(R"({"quant_method":"gptq"})"), unknown, {"quant_method", "gptq"}},
  };
  for (const Case& test : cases) {
    BrokenModel broken("tiny-llama");
    if (test.value.is_null()) {
      broken.config.erase(test.key);
    } else {
      broken.config[test.key] = test.value;
    }
    SCOPED_TRACE(test.key + " = " + DumpJson(test.value));
    const Status error = broken.Error();
    EXPECT_EQ(error.code(), test.code) << error.message();
    ExpectMessage(error.message(), test.message);
    ExpectMessage(error.message(), {broken.dir().path()});
  }
}

TEST(BadInput, QuantizedTensorsThatContradictTheConfiguration) {
  for (const auto& [change, message] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {R"({"group_size":32,"bits":8})", {"embed_tokens.weight", "8-bit"}},
           {R"({"group_size":64,"bits":4})", {"embed_tokens", "group size 64"}},
           {R"({"group_size":32,"bits":4,"mode":"mxfp4"})", {"embed_tokens.scales", "U8"}},
           {R"({"group_size":32,"bits":4,"model.norm":{"bits":4},"lm_head":false})",
            {"lm_head.weight", "no \"quantization\""}},
       }) {
    BrokenModel broken("tiny-llama-mlx");
    broken.config["quantization"] = *ParseJson(change);
    SCOPED_TRACE(change);
    const Status error = broken.Error();
    EXPECT_EQ(error.code(), StatusCode::kDataLoss);
    ExpectMessage(error.message(), message);
  }
  BrokenModel broken("tiny-llama-mlx");
  broken.config.erase("quantization");
  ExpectMessage(broken.Error().message(), {"embed_tokens.weight", "no \"quantization\""});
}

TEST(BadInput, ExpertsThatDoNotFit) {
  struct Case {
    const char* model;
    std::string key;
    Json value;
    StatusCode code;
    std::vector<std::string> message;
  };
  const StatusCode loss = StatusCode::kDataLoss, unknown = StatusCode::kUnimplemented;
  const std::vector<Case> cases = {
      {"tiny-qwen3-moe", "num_experts", nullptr, loss, {"\"num_local_experts\" is missing"}},
      {"tiny-qwen3-moe", "num_experts", nullptr, loss, {"experts\" is missing"}},
      {"tiny-qwen3-moe", "num_experts_per_tok", 9, loss, {"\"num_experts_per_tok\" is 9, more than the 8 experts"}},
      {"tiny-qwen3-moe", "num_experts_per_tok", 0, loss, {"\"num_experts_per_tok\""}},
      {"tiny-qwen3-moe", "num_experts", 1 << 20, loss, {"\"num_experts\""}},
      {"tiny-qwen3-moe", "num_experts", 7, loss, {"mlp.gate.weight", "[8, 32]", "[7, 32]"}},
      {"tiny-qwen3-moe", "moe_intermediate_size", nullptr, loss, {"\"moe_intermediate_size\" is missing"}},
      {"tiny-qwen3-moe", "moe_intermediate_size", 64, loss, {"experts.0.gate_proj.weight", "[32, 32]", "[64, 32]"}},
      {"tiny-qwen3-moe", "mlp_only_layers", Json::array(), loss, {"model.layers.1.mlp.gate.weight", "missing"}},
      {"tiny-qwen3-moe", "decoder_sparse_step", 0, loss, {"\"decoder_sparse_step\""}},
      {"tiny-qwen3-moe", "decoder_sparse_step", 2, loss, {"model.layers.0.mlp.gate_proj", "missing"}},
      {"tiny-qwen3-moe", "hidden_act", "mish", unknown, {"\"hidden_act\"", "mish"}},
      {"tiny-qwen3-moe-mlx", "moe_intermediate_size", 64, loss, {"switch_mlp.gate_proj.weight", "[8, 64, 4]"}},
      {"tiny-qwen3-moe-mlx",
       "quantization",
       *ParseJson(R"({"group_size":32,"bits":4})"),
       loss,
       {"mlp.gate.weight", "4-bit"}},
      {"tiny-mixtral", "num_local_experts", 5, loss, {"block_sparse_moe.gate.weight", "[5, 32]"}},
      {"tiny-qwen2-moe", "shared_expert_intermediate_size", 32, loss, {"shared_expert.gate_proj.weight", "[32, 32]"}},
      {"tiny-gpt-oss", "hidden_act", "gelu", unknown, {"\"hidden_act\"", "silu"}},
      {"tiny-gpt-oss", "swiglu_limit", -1, loss, {"\"swiglu_limit\""}},
      {"tiny-gpt-oss", "swiglu_alpha", 1.5, unknown, {"\"swiglu_alpha\"", "1.5"}},
      {"tiny-gpt-oss", "intermediate_size", 64, loss, {"gate_up_proj_blocks", "[4, 64, 1, 16]", "[4, 128, 1, 16]"}},
      {"tiny-gpt-oss", "num_attention_heads", 8, loss, {"q_proj.weight"}},
  };
  for (const Case& test : cases) {
    BrokenModel broken(test.model);
    if (test.value.is_null()) {
      broken.config.erase(test.key);
    } else {
      broken.config[test.key] = test.value;
    }
    SCOPED_TRACE(test.key + " = " + DumpJson(test.value));
    const Status error = broken.Error();
    EXPECT_EQ(error.code(), test.code) << error.message();
    ExpectMessage(error.message(), test.message);
  }
}

// Replaces a tensor's name in the headers of all files by another of the same length.
void RenameTensor(const BrokenModel& broken, const std::string& name, const std::string& other) {
  int found = 0;
  for (const auto& entry : fs::directory_iterator(broken.dir().path())) {
    if (entry.path().extension() != ".safetensors") continue;
    std::string bytes = *ReadFile(entry.path().string(), 1 << 20);
    for (size_t at = 0; (at = bytes.find(name, at)) != std::string::npos; ++found) {
      bytes.replace(at, name.size(), other);
    }
    broken.dir().Write(entry.path().filename().string(), bytes);
  }
  EXPECT_GT(found, 0) << name;
  fs::remove(broken.dir().Path("model.safetensors.index.json"));
}

TEST(BadInput, ExpertTensorsMissing) {
  struct Case {
    const char* model;
    const char* tensor;  // its last letter becomes an x
    const char* missing;
  };
  const std::vector<Case> cases = {
      {"tiny-qwen3-moe", "experts.5.up_proj", "mlp.experts.5.up_proj.weight"},
      {"tiny-qwen3-moe", "0.mlp.gate.weight", "layers.0.mlp.gate.weight"},
      {"tiny-qwen3-moe-mlx", "switch_mlp.down_proj", "switch_mlp.down_proj.weight"},
      {"tiny-qwen3-moe-mlx", "up_proj.biases", "up_proj.biases"},
      {"tiny-qwen2-moe", "mlp.shared_expert_gate", "mlp.shared_expert_gate.weight"},
      {"tiny-gpt-oss", "0.self_attn.sinks", "layers.0.self_attn.sinks.weight"},
      {"tiny-gpt-oss", "experts.down_proj_scales", "experts.down_proj_scales"},
      {"tiny-gpt-oss", "q_proj.bias", "q_proj.bias"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.tensor);
    BrokenModel broken(test.model);
    std::string renamed = test.tensor;
    renamed.back() = 'x';
    RenameTensor(broken, test.tensor, renamed);
    const Status error = broken.Error();
    EXPECT_EQ(error.code(), StatusCode::kDataLoss) << error.message();
    ExpectMessage(error.message(), {test.missing, "missing"});
  }
}

TEST(BadInput, ConfigIsNoJsonOrNoObject) {
  BrokenModel broken("tiny-llama");
  for (const char* text : {"", "{", "[]", "null", "\xff\xfe"}) {
    broken.dir().Write("config.json", text);
    const Status error = LoadError(broken.dir().path());
    EXPECT_EQ(error.code(), StatusCode::kDataLoss) << text;
    ExpectMessage(error.message(), {"config.json: "});
  }
}

TEST(BadInput, TokenizerLargerThanTheEmbedding) {
  BrokenModel broken("tiny-llama");
  std::string tokenizer = *ReadFile(broken.dir().Path("tokenizer.json"), 1 << 20);
  tokenizer.replace(tokenizer.find("\"z\":29"), 6, "\"z\":900");
  broken.dir().Write("tokenizer.json", tokenizer);
  const Status error = broken.Error();
  EXPECT_EQ(error.code(), StatusCode::kDataLoss) << error.message();
  ExpectMessage(error.message(), {"900", "vocab_size is 64"});
}

TEST(BadInput, ModelsLargerThanMemory) {
  LoadOptions options = TinyOptions();
  options.memory_bytes_max = 50'000;
  const Status error = LoadError(TestData("tiny-llama"), options);
  EXPECT_EQ(error.code(), StatusCode::kResourceExhausted);
  ExpectMessage(error.message(), {"tiny-llama", "MB", "0.1 MB are available"});
}

TEST(BadInput, ShardsCutAnywhere) {
  const std::string whole = *ReadFile(TestData("tiny-bert/model.safetensors"), 1 << 20);
  BrokenModel broken("tiny-bert");
  for (size_t length = 0; length < whole.size(); length += whole.size() / 61 + 1) {
    broken.dir().Write("model.safetensors", std::string_view(whole).substr(0, length));
    const Status error = broken.Error();
    EXPECT_EQ(error.code(), StatusCode::kDataLoss) << length;
    ExpectMessage(error.message(), {"model.safetensors: "});
  }
}

// --- GGUF
// -----------------------------------------------------------------------------------------------------------------

GgufWriter TinyGguf(const std::function<void(GgufWriter&)>& metadata) {
  GgufWriter writer;
  writer.String("general.architecture", "llama");
  metadata(writer);
  return writer;
}

TEST(BadInput, GgufMetadataThatDoesNotFit) {
  const auto complete = [](GgufWriter& w) {
    w.U32("llama.embedding_length", 32).U32("llama.block_count", 1).U32("llama.context_length", 64);
    w.U32("llama.feed_forward_length", 64).U32("llama.attention.head_count", 2);
  };
  const std::string embedding(32 * 4 * 4, '\0');
  const TempDirectory dir;
  const auto error = [&](const GgufWriter& writer) { return LoadError(dir.Write("bad.gguf", writer.Bytes())); };

  ExpectMessage(error(GgufWriter()).message(), {"bad.gguf", "general.architecture", "missing"});
  GgufWriter unknown;
  unknown.String("general.architecture", "mamba9");
  EXPECT_EQ(error(unknown).code(), StatusCode::kUnimplemented);
  ExpectMessage(error(unknown).message(), {"bad.gguf", "general.architecture", "mamba9", "llama"});
  ExpectMessage(error(TinyGguf([](GgufWriter&) {})).message(), {"llama.embedding_length", "missing"});
  ExpectMessage(error(TinyGguf(complete)).message(), {"token_embd.weight"});
  ExpectMessage(error(TinyGguf([&](GgufWriter& w) {
                  complete(w);
                  w.U32("llama.attention.head_count_kv", 3).Tensor("token_embd.weight", {32, 4}, 0, embedding);
                })).message(),
                {"head_count_kv", "does not divide"});
  ExpectMessage(error(TinyGguf([&](GgufWriter& w) {
                  complete(w);
                  w.U32("llama.expert_count", 8).Tensor("token_embd.weight", {32, 4}, 0, embedding);
                })).message(),
                {"llama.expert_used_count", "missing"});
  ExpectMessage(error(TinyGguf([&](GgufWriter& w) {
                  complete(w);
                  w.U32("llama.expert_count", 2).U32("llama.expert_used_count", 3);
                  w.Tensor("token_embd.weight", {32, 4}, 0, embedding);
                })).message(),
                {"llama.expert_used_count", "is 3, more than the 2 experts"});
  ExpectMessage(error(TinyGguf([&](GgufWriter& w) {
                  complete(w);
                  w.String("llama.rope.scaling.type", "spiral").Tensor("token_embd.weight", {32, 4}, 0, embedding);
                })).message(),
                {"llama.rope.scaling.type", "spiral"});
  ExpectMessage(error(TinyGguf([&](GgufWriter& w) {
                  complete(w);
                  w.Tensor("token_embd.weight", {32, 4}, 0, embedding);
                })).message(),
                {"tokenizer.ggml.model", "missing"});
}

TEST(BadInput, GgufFilesCutOrChangedAnywhere) {
  const std::string whole = *ReadFile(TestData("tiny-llama-q8_0.gguf"), 1 << 20);
  const TempDirectory dir;
  for (size_t length = 0; length < whole.size() - 32; length += whole.size() / 97 + 1) {
    const Status error = LoadError(dir.Write("cut.gguf", std::string_view(whole).substr(0, length)));
    EXPECT_EQ(error.code(), StatusCode::kDataLoss) << length;
    ExpectMessage(error.message(), {"cut.gguf"});
  }
  // Any byte of the header may be anything: an error or a model, never a crash.
  for (size_t at = 0; at < 4096; at += 11) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    const auto model = Load(dir.Write("changed.gguf", changed), TinyOptions());
    if (!model) ExpectMessage(model.error().message(), {"changed.gguf"});
  }
}

}  // namespace
}  // namespace pensieve::model
