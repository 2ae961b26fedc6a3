// Quantizing while loading: the right matrices, the right memory, answers close to the floats' own. That the quantizer
// gives mlx's bits is tested beside it.
#include <gtest/gtest.h>

#include <algorithm>

#include "model/quantizing_source.h"
#include "model/test_runner.h"
#include "model/weight_store.h"

namespace pensieve::model {
namespace {

constexpr formats::AffineFormat kEightBits{8, 32};

std::unique_ptr<LoadedModel> LoadTiny(const std::string& name, std::optional<formats::AffineFormat> quantize) {
  LoadOptions options;
  options.rows_max = 64;
  options.device = backend::NewReferenceDevice();
  options.quantize = quantize;
  auto model = Load(TestData(name), options);
  EXPECT_TRUE(model.has_value()) << name;
  return model ? *std::move(model) : nullptr;
}

int64_t BytesOf(const ModelHeader& header, std::string_view type) {
  for (const auto& count : header.types) {
    if (count.type == type) return count.bytes;
  }
  return 0;
}

// Zero falls on a code, which may move the far end of a group by one step; every value is rounded by at most half of one.
TEST(QuantizeAtLoad, EveryValueIsCloseToItsFloat) {
  auto files = formats::SafetensorsSet::OpenDirectory(TestData("tiny-llama"));
  ASSERT_TRUE(files.has_value());
  WeightStore store(*std::move(files));
  const auto floats = NewSafetensorsSource(store, {});
  const auto source = NewQuantizingSource(NewSafetensorsSource(store, {}), store, kEightBits);
  for (const auto& [module, rows, cols] : {std::tuple{"model.embed_tokens", 64, 32}, std::tuple{"lm_head", 64, 32},
                                           std::tuple{"model.layers.1.mlp.down_proj", 32, 64}}) {
    const auto dense = floats->Matrix(module, rows, cols);
    const auto weight = source->Matrix(module, rows, cols);
    ASSERT_TRUE(dense.has_value() && weight.has_value()) << module;
    ASSERT_TRUE(std::holds_alternative<tensor::AffineWeight>(*weight)) << module;
    std::vector<float> expected(static_cast<size_t>(cols)), got(expected);
    for (int64_t r = 0; r < rows; ++r) {
      tensor::DequantizeRow(*dense, r, expected.data());
      tensor::DequantizeRow(*weight, r, got.data());
      const auto [least, most] = std::minmax_element(expected.begin(), expected.end());
      for (size_t k = 0; k < got.size(); ++k) EXPECT_NEAR(got[k], expected[k], (*most - *least) / 255 * 1.5f) << module;
    }
  }
}

TEST(QuantizeAtLoad, KeepsTheAnswersAndOnlyTheQuantizedWeights) {
  const auto tokens = ReadGolden("tiny_golden.json")["tokens"].get<std::vector<int32_t>>();
  // Sharded floats, tied f16, and a GGUF file whose q and k rows are put in another order.
  for (const char* name : {"tiny-llama", "tiny-qwen2", "tiny-llama-biases.gguf"}) {
    SCOPED_TRACE(name);
    const auto floats = LoadTiny(name, std::nullopt);
    const auto quantized = LoadTiny(name, kEightBits);
    ASSERT_TRUE(floats != nullptr && quantized != nullptr);
    EXPECT_TRUE(quantized->config.quantization.starts_with("affine 8-bit group 32"));
    const Logits expected = Runner(*floats).Prefill(tokens, 64);
    const Logits got = Runner(*quantized).Prefill(tokens, 64);
    // The weights of these models are large and random, so that small changes grow; yet most answers stay.
    size_t same = 0;
    for (size_t row = 0; row < got.size(); ++row) {
      const auto top = [](const std::vector<float>& logits) {
        return std::max_element(logits.begin(), logits.end()) - logits.begin();
      };
      if (top(got[row]) == top(expected[row])) ++same;
    }
    EXPECT_GE(same * 10, got.size() * 8);

    const auto before = ReadHeader(TestData(name));
    const auto after = ReadHeader(TestData(name), kEightBits);
    ASSERT_TRUE(before.has_value() && after.has_value());
    EXPECT_EQ(after->parameters, before->parameters);
    EXPECT_LT(after->weight_bytes, before->weight_bytes);
    const int64_t affine_bytes = BytesOf(*after, "affine 8-bit group 32");
    const auto allocated = static_cast<int64_t>(quantized->weights->allocated_bytes());
    EXPECT_GE(allocated, affine_bytes);
    EXPECT_LE(allocated, affine_bytes + 64 * 3 * 32) << "what was copied must be gone";
  }
}

// Their float experts lie turned round in the file.
TEST(QuantizeAtLoad, CountsTheExpertsOfGptOss) {
  const auto before = ReadHeader(TestData("tiny-gpt-oss-floats"));
  const auto after = ReadHeader(TestData("tiny-gpt-oss-floats"), kEightBits);
  const auto quantized = LoadTiny("tiny-gpt-oss-floats", kEightBits);
  ASSERT_TRUE(before.has_value() && after.has_value() && quantized != nullptr);
  EXPECT_EQ(after->parameters, before->parameters);
  const int64_t affine_bytes = BytesOf(*after, "affine 8-bit group 32");
  const auto allocated = static_cast<int64_t>(quantized->weights->allocated_bytes());
  EXPECT_GE(allocated, affine_bytes);
  EXPECT_LE(allocated, affine_bytes + 64 * 3 * 32);
}

TEST(QuantizeAtLoad, LeavesQuantizedModelsAlone) {
  for (const char* name : {"tiny-llama-mlx", "tiny-llama-q4_1.gguf"}) {
    const auto before = ReadHeader(TestData(name));
    const auto after = ReadHeader(TestData(name), formats::AffineFormat{4, 32});
    ASSERT_TRUE(before.has_value() && after.has_value());
    EXPECT_EQ(after->weight_bytes, before->weight_bytes) << name;
    EXPECT_EQ(after->config.quantization, before->config.quantization) << name;
  }
}

TEST(QuantizeAtLoad, ChoosesLargeMatricesThatAreNoRouters) {
  const formats::AffineFormat format{4, 64};
  EXPECT_TRUE(IsQuantizedAtLoad(format, "model.layers.0.mlp.gate_proj", 64, 128));
  EXPECT_TRUE(IsQuantizedAtLoad(format, "blk.0.ffn_gate", 64, 128));
  EXPECT_TRUE(IsQuantizedAtLoad(format, "lm_head", 32, 64));
  EXPECT_FALSE(IsQuantizedAtLoad(format, "lm_head", 31, 64));
  EXPECT_FALSE(IsQuantizedAtLoad(format, "lm_head", 64, 96)) << "no multiple of the group";
  for (const char* router : {"model.layers.0.mlp.gate", "model.layers.0.mlp.router", "blk.0.ffn_gate_inp",
                             "model.layers.1.block_sparse_moe.gate", "model.layers.1.mlp.shared_expert_gate"}) {
    EXPECT_FALSE(IsQuantizedAtLoad(format, router, 128, 128)) << router;
  }
}

TEST(WeightStore, RewindFreesWhatCameSince) {
  auto files = formats::SafetensorsSet::OpenDirectory(TestData("tiny-llama"));
  ASSERT_TRUE(files.has_value());
  WeightStore store(*std::move(files));
  const auto first = store.Allocate(100);
  ASSERT_TRUE(first.has_value());
  const WeightStore::Mark mark = store.mark();
  const auto second = store.Allocate(100);
  ASSERT_TRUE(store.Allocate(size_t{64} << 20).has_value());  // a buffer of its own
  store.Rewind(mark);
  EXPECT_EQ(store.allocated_bytes(), 128u);
  const auto again = store.Allocate(100);
  ASSERT_TRUE(second.has_value() && again.has_value());
  EXPECT_EQ(*again, *second);
  EXPECT_FALSE(store.IsMapped(*first));
  const auto bytes = store.safetensors()->files().front().bytes();
  EXPECT_TRUE(store.IsMapped(bytes.data()));
  EXPECT_TRUE(store.IsMapped(bytes.data() + bytes.size() - 1));
}

}  // namespace
}  // namespace pensieve::model
