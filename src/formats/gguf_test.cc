#include "formats/gguf.h"

#include <gtest/gtest.h>

#include "formats/test_files.h"

namespace pensieve::formats {
namespace {

GgufWriter Sample() {
  GgufWriter writer;
  writer.String("general.architecture", "llama").U32("llama.block_count", 2).F32("eps", 0.5f).Bool("flag", true);
  writer.Scalar<uint64_t>("wide", 10, UINT64_MAX).Scalar<int8_t>("small", 1, -3).Scalar<double>("double", 12, 0.25);
  writer.Strings("tokens", {"a", "", "c"});
  writer.Tensor("w", {4, 2}, 0, std::string(32, '\1')).Tensor("q", {32, 3}, 3, std::string(60, '\2'));
  return writer;
}

TEST(Gguf, ReadsMetadataAndTensors) {
  const TempDirectory dir;
  for (const uint32_t version : {2u, 3u}) {
    GgufWriter writer = Sample();
    writer.version = version;
    const auto file = GgufFile::Open(dir.Write("a.gguf", writer.Bytes()));
    ASSERT_TRUE(file.has_value()) << file.error().message();
    EXPECT_EQ(file->version(), version);
    GgufFields fields(*file);
    EXPECT_EQ(fields.String("general.architecture", ""), "llama");
    EXPECT_EQ(fields.RequiredInt("llama.block_count", {1, 10}), 2);
    EXPECT_EQ(fields.OptionalFloat("eps"), 0.5);
    EXPECT_EQ(fields.OptionalFloat("double"), 0.25);
    EXPECT_EQ(fields.OptionalBool("flag"), true);
    EXPECT_EQ(fields.OptionalInt("wide", {}), INT64_MAX);
    EXPECT_EQ(fields.OptionalInt("small", {}), -3);
    EXPECT_EQ(*fields.Strings("tokens"), (std::vector<std::string_view>{"a", "", "c"}));
    EXPECT_EQ(fields.Int("absent", 7, {}), 7);
    EXPECT_TRUE(fields.status().ok());
    const GgufTensor* q = file->FindTensor("q");
    ASSERT_NE(q, nullptr);
    EXPECT_EQ(q->shape, (std::vector<int64_t>{3, 32}));
    EXPECT_STREQ(q->type->name, "Q4_1");
    EXPECT_EQ(q->bytes.size(), 60u);
    EXPECT_EQ(q->bytes[0], std::byte{2});
  }
}

TEST(Gguf, FieldsNameWhatIsWrong) {
  const TempDirectory dir;
  const auto file = GgufFile::Open(dir.Write("a.gguf", Sample().Bytes()));
  ASSERT_TRUE(file.has_value());
  const auto message = [&](auto read) {
    GgufFields fields(*file);
    read(fields);
    EXPECT_FALSE(fields.status().ok());
    return fields.status().message();
  };
  ExpectMessage(message([](GgufFields& f) { f.RequiredInt("nope", {}); }), {"a.gguf", "\"nope\" is missing"});
  ExpectMessage(message([](GgufFields& f) {
                  f.Int("llama.block_count", 1, {5, 9});
                }),
                {"llama.block_count", "between 5 and 9"});
  ExpectMessage(message([](GgufFields& f) { f.Int("tokens", 1, {}); }), {"tokens", "an integer"});
  ExpectMessage(message([](GgufFields& f) { f.String("eps", ""); }), {"eps", "a string"});
  ExpectMessage(message([](GgufFields& f) { f.Strings("eps"); }), {"eps", "array of strings"});
  ExpectMessage(message([](GgufFields& f) { f.OptionalFloat("flag"); }), {"flag", "finite"});
}

TEST(Gguf, RefusesEveryTruncation) {
  const TempDirectory dir;
  const std::string bytes = Sample().Bytes();
  for (size_t length = 0; length < bytes.size(); ++length) {
    const auto file = GgufFile::Open(dir.Write("t.gguf", std::string_view(bytes).substr(0, length)));
    ASSERT_FALSE(file.has_value()) << length;
    EXPECT_EQ(file.error().code(), StatusCode::kDataLoss) << length;
    ExpectMessage(file.error().message(), {"t.gguf: "});
  }
}

TEST(Gguf, RefusesWhatDoesNotFit) {
  struct Bad {
    GgufWriter writer;
    std::vector<std::string> message;
  };
  std::vector<Bad> files;
  const auto add = [&](auto change, std::vector<std::string> message) {
    GgufWriter writer = Sample();
    change(writer);
    files.push_back({std::move(writer), std::move(message)});
  };
  const std::string data(32, '\0');
  std::string huge_array;
  AppendRaw<uint32_t>(huge_array, 4);
  AppendRaw<uint64_t>(huge_array, uint64_t{1} << 60);
  std::string odd_array;
  AppendRaw<uint32_t>(odd_array, 77);
  AppendRaw<uint64_t>(odd_array, 1);
  std::string deep_array;
  for (int i = 0; i < 6; ++i) {
    AppendRaw<uint32_t>(deep_array, 9);
    AppendRaw<uint64_t>(deep_array, 1);
  }
  std::string long_string;
  AppendRaw<uint64_t>(long_string, UINT64_MAX);
  add([](GgufWriter& w) { w.magic = 1; }, {"GGUF"});
  add([](GgufWriter& w) { w.version = 1; }, {"version 1"});
  add([](GgufWriter& w) { w.version = 0x03000000; }, {"big-endian"});
  add([](GgufWriter& w) { w.num_tensors = INT64_MAX; }, {"tensor count", "remaining"});
  add([](GgufWriter& w) { w.num_values = INT64_MAX; }, {"metadata count", "remaining"});
  add([&](GgufWriter& w) { w.Raw("k", 9, huge_array); }, {"array \"k\"", "remaining"});
  add([&](GgufWriter& w) { w.Raw("k", 9, odd_array); }, {"array \"k\"", "type 77"});
  add([&](GgufWriter& w) { w.Raw("k", 9, deep_array); }, {"array \"k\"", "nested"});
  add([&](GgufWriter& w) { w.Raw("k", 8, long_string); }, {"k needs"});
  add([&](GgufWriter& w) { w.Raw("k", 13, ""); }, {"\"k\"", "type 13"});
  add([](GgufWriter& w) { w.U32("llama.block_count", 3); }, {"llama.block_count", "twice"});
  add([](GgufWriter& w) { w.U32("general.alignment", 33); }, {"general.alignment"});
  add([&](GgufWriter& w) { w.Tensor("w", {8}, 0, data); }, {"\"w\"", "twice"});
  add([&](GgufWriter& w) { w.Tensor("x", {8}, 99, data); }, {"\"x\"", "type 99"});
  add([&](GgufWriter& w) { w.Tensor("x", {}, 0, data); }, {"\"x\"", "0 dimensions"});
  add([&](GgufWriter& w) { w.Tensor("x", {1, 1, 1, 1, 1}, 0, data); }, {"\"x\"", "5 dimensions"});
  add([&](GgufWriter& w) { w.Tensor("x", {0, 8}, 0, data); }, {"\"x\"", "shape"});
  add([&](GgufWriter& w) { w.Tensor("x", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, data); }, {"\"x\"", "shape"});
  add([&](GgufWriter& w) { w.Tensor("x", {uint64_t{1} << 62}, 0, data); }, {"\"x\"", "blocks"});
  add([&](GgufWriter& w) { w.Tensor("x", {33}, 2, data); }, {"\"x\"", "33", "Q4_0"});
  add([&](GgufWriter& w) { w.Tensor("x", {8}, 0, data, 0); }, {"\"x\"", "overlap"});
  add([&](GgufWriter& w) { w.Tensor("x", {8}, 0, data, 16); }, {"\"x\"", "alignment"});
  add([&](GgufWriter& w) { w.Tensor("x", {8}, 0, data, 1 << 20); }, {"\"x\"", "truncated"});
  add([&](GgufWriter& w) { w.Tensor("x", {8}, 0, data, INT64_MAX - 31); }, {"\"x\"", "truncated"});
  add([](GgufWriter& w) { w.U32("split.count", 2); }, {"split.count"});
  const TempDirectory dir;
  for (const Bad& bad : files) {
    const auto file = GgufFile::Open(dir.Write("bad.gguf", bad.writer.Bytes()));
    ASSERT_FALSE(file.has_value()) << bad.message.front();
    ExpectMessage(file.error().message(), bad.message);
    ExpectMessage(file.error().message(), {"bad.gguf"});
  }
}

TEST(Gguf, JoinsTheParts) {
  const TempDirectory dir;
  const auto part = [](uint32_t count, uint32_t tensors, std::string_view tensor) {
    GgufWriter writer;
    writer.U32("split.count", count).U32("split.tensors.count", tensors);
    writer.Tensor(tensor, {8}, 0, std::string(32, '\0'));
    return writer.Bytes();
  };
  const std::string first = dir.Write("m-00001-of-00002.gguf", part(2, 2, "a"));
  ExpectMessage(GgufFile::Open(first).error().message(), {"m-00002-of-00002.gguf"});
  const std::string second = dir.Write("m-00002-of-00002.gguf", part(2, 2, "b"));
  for (const std::string& path : {first, second}) {
    const auto file = GgufFile::Open(path);
    ASSERT_TRUE(file.has_value()) << file.error().message();
    EXPECT_EQ(file->tensors().size(), 2u);
    EXPECT_EQ(file->FindTensor("b")->file, 1u);
  }
  dir.Write("m-00002-of-00002.gguf", part(2, 2, "a"));
  ExpectMessage(GgufFile::Open(first).error().message(), {"\"a\"", "twice"});
  dir.Write("m-00001-of-00002.gguf", part(3, 2, "a"));
  ExpectMessage(GgufFile::Open(first).error().message(), {"split.count"});
  dir.Write("m-00001-of-00002.gguf", part(2, 5, "a"));
  dir.Write("m-00002-of-00002.gguf", part(2, 2, "b"));
  ExpectMessage(GgufFile::Open(first).error().message(), {"split.tensors.count"});
}

TEST(Gguf, PartsUnderWrongNamesAreRefused) {
  const TempDirectory dir;
  const auto part = [](uint32_t number, std::string_view tensor) {
    GgufWriter writer;
    writer.U32("split.no", number).U32("split.count", 2).U32("split.tensors.count", 2);
    writer.Tensor(tensor, {8}, 0, std::string(32, '\0'));
    return writer.Bytes();
  };
  const std::string first = dir.Write("m-00001-of-00002.gguf", part(1, "b"));
  dir.Write("m-00002-of-00002.gguf", part(0, "a"));
  ExpectMessage(GgufFile::Open(first).error().message(), {"named as part 1 of 2", "\"split.no\" 1", "names"});
  ExpectMessage(GgufFile::Open(dir.Write("renamed.gguf", part(0, "a"))).error().message(),
                {"one of 2 files", "NAME-00001-of-00002.gguf"});
  // Endings in capitals are the same.
  dir.Write("M-00002-of-00002.GGUF", part(1, "b"));
  const auto capitals = GgufFile::Open(dir.Write("M-00001-of-00002.GGUF", part(0, "a")));
  ASSERT_TRUE(capitals.has_value()) << capitals.error().message();
  EXPECT_EQ(capitals->tensors().size(), 2u);
}

}  // namespace
}  // namespace pensieve::formats
