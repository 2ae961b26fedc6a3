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
  options.cpu.threads = 2;
  options.reference_backend = true;
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

double LargestDifference(const Logits& a, const Logits& b) {
  double largest = 0;
  for (size_t row = 0; row < a.size(); ++row) {
    for (size_t k = 0; k < a[row].size(); ++k) largest = std::max<double>(largest, std::fabs(a[row][k] - b[row][k]));
  }
  return largest;
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
    EXPECT_LE(LargestDifference(Runner(*quantized).Prefill(tokens, 64), expected), 0.1);

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
