#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include "formats/test_files.h"

namespace pensieve::formats {
namespace {

constexpr std::string_view kSmallest = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

TEST(Safetensors, ReadsTheSmallestExample) {
  const TempDirectory dir;
  ASSERT_EQ(kSmallest.size(), 54u);
  const auto set =
      SafetensorsSet::OpenFile(dir.Write("a.safetensors", SafetensorsBytes(kSmallest, {"\0\0\x80\x3f", 4})));
  ASSERT_TRUE(set.has_value()) << set.error().message();
  const SafeTensor* tensor = set->Find("a");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->dtype, tensor::DType::kF32);
  EXPECT_EQ(tensor->shape, std::vector<int64_t>{1});
  float value;
  std::memcpy(&value, tensor->bytes.data(), 4);
  EXPECT_EQ(value, 1.0f);
  EXPECT_EQ(set->Find("b"), nullptr);
}

TEST(Safetensors, AcceptsPaddingScalarsEmptyTensorsHolesAndMetadata) {
  const TempDirectory dir;
  const std::string header =
      R"({"__metadata__":{"format":"mlx"},"scalar":{"dtype":"BF16","shape":[],"data_offsets":[1,3]},)"
      R"("empty":{"dtype":"U32","shape":[0,7],"data_offsets":[2,2]},)"
      R"("fp8":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[4,6]}}   )";
  const auto set = SafetensorsSet::OpenFile(dir.Write("a.safetensors", SafetensorsBytes(header, "123456")));
  ASSERT_TRUE(set.has_value()) << set.error().message();
  EXPECT_EQ(set->tensors().size(), 3u);
  EXPECT_EQ(set->Find("scalar")->bytes.size(), 2u);
  EXPECT_EQ(set->Find("fp8")->dtype, tensor::DType::kU8);
  EXPECT_EQ(set->Find("fp8")->dtype_name, "F8_E4M3");
}

struct BadFile {
  std::string bytes;
  std::vector<std::string> message;
};

TEST(Safetensors, RefusesWhatDoesNotFit) {
  const auto with = [](std::string_view tensors, std::string_view data = "12345678") {
    return SafetensorsBytes(fmt::format("{{{}}}", tensors), data);
  };
  std::string too_long = SafetensorsBytes(kSmallest, "1234");
  const uint64_t absurd = UINT64_MAX - 3;
  std::memcpy(too_long.data(), &absurd, 8);
  const std::vector<BadFile> files = {
      {"", {"is empty"}},
      {"1234567", {"too few"}},
      {std::string(8, '\0'), {"header length 0"}},
      {too_long, {"header length"}},
      {SafetensorsBytes(kSmallest, "123"), {"tensor \"a\"", "data_offsets", "only 3", "truncated"}},
      {SafetensorsBytes("[1]", ""), {"must be a JSON object"}},
      {SafetensorsBytes("{\"a\":", ""), {"not valid JSON"}},
      {SafetensorsBytes(std::string(50, '[') + std::string(50, ']'), ""), {"nested deeper"}},
      {with(R"("a":1)"), {"tensor \"a\"", "dtype"}},
      {with(R"("a":{"dtype":"F32","shape":[1]})"), {"tensor \"a\"", "data_offsets"}},
      {with(R"("a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]})"), {"tensor \"a\"", "unknown type \"F33\""}},
      {with(R"("a":{"dtype":4,"shape":[1],"data_offsets":[0,4]})"), {"dtype"}},
      {with(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), {"spans 4 bytes", "need 8"}},
      {with(R"("a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), {"shape"}},
      {with(R"("a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})"), {"shape"}},
      {with(R"("a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})"), {"shape", "overflows"}},
      {with(R"("a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]})"), {"shape"}},
      {with(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), {"data_offsets"}},
      {with(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]})"), {"data_offsets", "only 8"}},
      {with(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]})"),
       {"\"a\"", "\"b\"", "overlap"}},
      {with(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
            R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
       {"duplicate key \"a\""}},
  };
  const TempDirectory dir;
  for (const BadFile& bad : files) {
    const auto set = SafetensorsSet::OpenFile(dir.Write("bad.safetensors", bad.bytes));
    ASSERT_FALSE(set.has_value()) << bad.bytes;
    EXPECT_EQ(set.error().code(), StatusCode::kDataLoss);
    ExpectMessage(set.error().message(), bad.message);
    ExpectMessage(set.error().message(), {"bad.safetensors: "});
  }
  EXPECT_EQ(SafetensorsSet::OpenFile(dir.Path("absent")).error().code(), StatusCode::kNotFound);
}

std::string OneTensor(std::string_view name) {
  return SafetensorsBytes(fmt::format(R"({{"{}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}})", name), "x");
}

TEST(Safetensors, OpensDirectoriesByIndexAndByName) {
  const TempDirectory dir;
  EXPECT_EQ(SafetensorsSet::OpenDirectory(dir.path()).error().code(), StatusCode::kNotFound);
  dir.Write("model-00001-of-00002.safetensors", OneTensor("a"));
  dir.Write("model-00002-of-00002.safetensors", OneTensor("b"));
  dir.Write("consolidated.safetensors", OneTensor("a"));
  auto set = SafetensorsSet::OpenDirectory(dir.path());
  ASSERT_TRUE(set.has_value()) << set.error().message();
  EXPECT_EQ(set->files().size(), 2u);
  EXPECT_EQ(set->Find("b")->file, 1u);

  const std::string index = "model.safetensors.index.json";
  dir.Write(index, R"({"weight_map":{"a":"model-00001-of-00002.safetensors"}})");
  EXPECT_EQ(SafetensorsSet::OpenDirectory(dir.path())->files().size(), 1u);
  dir.Write(index, R"({"weight_map":{"a":"gone-1.safetensors","b":"gone-2.safetensors"}})");  // stale: the glob is used
  EXPECT_EQ(SafetensorsSet::OpenDirectory(dir.path())->files().size(), 2u);

  dir.Write(index, R"({"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00003-of-00002.safetensors"}})");
  ExpectMessage(SafetensorsSet::OpenDirectory(dir.path()).error().message(), {"index.json", "model-00003-of-00002"});
  dir.Write(index, R"({"weight_map":{"c":"model-00001-of-00002.safetensors"}})");
  ExpectMessage(SafetensorsSet::OpenDirectory(dir.path()).error().message(), {"tensor \"c\"", "model-00001"});
  dir.Write(index, R"({"weight_map":{"a":"../a.safetensors"}})");
  ExpectMessage(SafetensorsSet::OpenDirectory(dir.path()).error().message(), {"weight_map.a"});
  dir.Write(index, R"({"weight_map":3})");
  ExpectMessage(SafetensorsSet::OpenDirectory(dir.path()).error().message(), {"weight_map"});
  dir.Write(index, "{");
  EXPECT_FALSE(SafetensorsSet::OpenDirectory(dir.path()).has_value());
}

TEST(Safetensors, RefusesANameInTwoShards) {
  const TempDirectory dir;
  dir.Write("model-1.safetensors", OneTensor("a"));
  dir.Write("model-2.safetensors", OneTensor("a"));
  ExpectMessage(SafetensorsSet::OpenDirectory(dir.path()).error().message(), {"tensor \"a\"", "model-1", "model-2"});
}

}  // namespace
}  // namespace pensieve::formats
