// Compares with what the PyPI package `tokenizers` answered (tools/tokenizer_golden.py --write). Next to each
// NAME.golden.jsonl stands NAME.tokenizer.json or NAME.vocabulary.json (a GGUF vocabulary as JSON).
// PENSIEVE_TOKENIZER_GOLDEN may name a further folder with such files of large tokenizers.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/base64.h"
#include "base/mapped_file.h"
#include "base/utf8.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/tokenizer.h"

namespace pensieve::tokenizer {
namespace {

namespace fs = std::filesystem;
constexpr size_t kFileBytesMax = 64 << 20;

std::optional<int64_t> OptionalId(const Json& json, const char* key) {
  return json.contains(key) && !json[key].is_null() ? std::optional<int64_t>(json[key].get<int64_t>()) : std::nullopt;
}

std::optional<bool> OptionalBool(const Json& json, const char* key) {
  return json.contains(key) && !json[key].is_null() ? std::optional<bool>(json[key].get<bool>()) : std::nullopt;
}

GgufVocabulary ReadVocabulary(const Json& json) {
  GgufVocabulary vocabulary;
  vocabulary.model = json.value("model", "");
  vocabulary.pre = json.value("pre", "");
  vocabulary.tokens = json["tokens"].get<std::vector<std::string>>();
  vocabulary.scores = json.value("scores", std::vector<float>());
  vocabulary.token_types = json.value("token_types", std::vector<int32_t>());
  vocabulary.merges = json.value("merges", std::vector<std::string>());
  vocabulary.bos_id = OptionalId(json, "bos_id");
  vocabulary.eos_id = OptionalId(json, "eos_id");
  vocabulary.unk_id = OptionalId(json, "unk_id");
  vocabulary.sep_id = OptionalId(json, "sep_id");
  vocabulary.pad_id = OptionalId(json, "pad_id");
  vocabulary.cls_id = OptionalId(json, "cls_id");
  vocabulary.add_bos = OptionalBool(json, "add_bos");
  vocabulary.add_eos = OptionalBool(json, "add_eos");
  vocabulary.add_space_prefix = OptionalBool(json, "add_space_prefix");
  return vocabulary;
}

Result<std::unique_ptr<Tokenizer>> Load(const std::string& path) {
  PENSIEVE_TRY(const std::string text, ReadFile(path, kFileBytesMax));
  if (!path.ends_with(".vocabulary.json")) return Tokenizer::FromHuggingFace(text, Json(), path);
  PENSIEVE_TRY(const Json json, ParseJson(text, kFileJson));
  return Tokenizer::FromGguf(ReadVocabulary(json), path);
}

// The tokenizer that belongs to a golden file, or "".
std::string ModelOf(const fs::path& golden) {
  const std::string name = golden.filename().string();
  const std::string stem = name.substr(0, name.find(".golden"));
  std::vector<fs::path> candidates = {golden.parent_path() / (stem + ".tokenizer.json"),
                                      golden.parent_path() / (stem + ".vocabulary.json"),
                                      fs::path(PENSIEVE_SOURCE_DIR) / "../shared/tokenizers" / stem / "tokenizer.json"};
  if (const char* models = std::getenv("PENSIEVE_TEST_MODELS")) {
    candidates.push_back(fs::path(models) / stem / "tokenizer.json");
  }
  for (const fs::path& candidate : candidates) {
    if (fs::exists(candidate)) return candidate.string();
  }
  return "";
}

std::string FromBase64(const Json& line, const char* key) {
  auto bytes = DecodeBase64(line[key].get<std::string>());
  return bytes ? *std::move(bytes) : "not base64";
}

std::string DecodeByStream(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  const auto stream = tokenizer.NewStreamDecoder(true);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = stream->Push(id);
    EXPECT_TRUE(IsValidUtf8(piece));
    text.append(piece);
  }
  return text + stream->Flush();
}

// ASCII only.
std::string Print(const Json& value) { return value.dump(-1, ' ', true, Json::error_handler_t::replace); }

// Borders between authors change nothing but who may write which added token. Empty, or what is wrong.
std::string AuthoredProblem(const Tokenizer& tokenizer, const TokenLimits& limits, const std::string& text) {
  const auto encode = [&](const std::vector<TextSpan>& spans) {
    return tokenizer.EncodeAuthored({text, spans, {}}, limits).ids;
  };
  const auto parsed = tokenizer.Encode(text, {.add_special = false});
  if (encode({{text.size(), TextSource::kTemplate}}) != parsed) return "the template's text";
  const auto request = encode({{text.size(), TextSource::kRequest}});
  // Every text may hold something unknown.
  const auto special = [&](int32_t id) {
    const std::string name = tokenizer.IdToToken(id);
    return std::ranges::binary_search(limits.template_ids, id) && name != "[UNK]" && name != "<unk>";
  };
  if (std::ranges::any_of(request, special)) return "a request writes special tokens";
  const auto spells = [&](const char* token) { return text.find(token) != std::string::npos; };
  if (std::ranges::any_of(parsed, special) || spells("[UNK]") || spells("<unk>")) return "";
  std::vector<TextSpan> spans;
  for (size_t at = 0; at < text.size();) {
    at = std::min(at + 1 + at % 5, text.size());
    while (at < text.size() && IsContinuationByte(text[at])) ++at;
    spans.push_back({at, spans.size() % 2 == 0 ? TextSource::kRequest : TextSource::kTemplate});
  }
  return !IsValidUtf8(text) || encode(spans) == parsed ? "" : "text of two authors";
}

// How many of the lines differ; prints the first few.
size_t CountDifferences(const Tokenizer& tokenizer, const std::string& golden, size_t& lines) {
  size_t different = 0;
  const auto limits = tokenizer.Limit("", "", {});
  for (size_t begin = 0; begin < golden.size();) {
    const size_t end = std::min(golden.find('\n', begin), golden.size());
    const auto line = ParseJson(std::string_view(golden).substr(begin, end - begin));
    begin = end + 1;
    if (!line) return ++different;
    ++lines;
    std::string problem;
    const auto expect = [&problem](const char* what, const auto& got, const auto& want) {
      if (problem.empty() && got != want) problem = fmt::format("{}: {}, wanted {}", what, Print(got), Print(want));
    };
    std::vector<int32_t> ids;
    std::string text;
    if (line->contains("text_b64")) {
      text = FromBase64(*line, "text_b64");
      ids = tokenizer.Encode(text);
      expect("ids", ids, (*line)["ids"].get<std::vector<int32_t>>());
      expect("plain ids", tokenizer.Encode(text, {.add_special = false, .parse_special = false}),
             (*line)[line->contains("plain_ids") ? "plain_ids" : "ids"].get<std::vector<int32_t>>());
      if (problem.empty()) problem = AuthoredProblem(tokenizer, *limits, text);
    } else {
      ids = (*line)["random_ids"].get<std::vector<int32_t>>();
    }
    expect("decoded", tokenizer.Decode(ids), FromBase64(*line, "decoded_b64"));
    const char* all_key = line->contains("decoded_all_b64") ? "decoded_all_b64" : "decoded_b64";
    expect("decoded with special tokens", tokenizer.Decode(ids, false), FromBase64(*line, all_key));
    expect("stream", DecodeByStream(tokenizer, ids), FromBase64(*line, "decoded_b64"));
    if (problem.empty()) continue;
    if (++different <= 5) ADD_FAILURE() << Print(text) << "\n" << problem;
  }
  return different;
}

std::vector<fs::path> GoldenFiles() {
  std::vector<fs::path> folders = {fs::path(PENSIEVE_SOURCE_DIR) / "tests/data/tokenizer"};
  if (const char* folder = std::getenv("PENSIEVE_TOKENIZER_GOLDEN")) folders.emplace_back(folder);
  std::vector<fs::path> files;
  for (const fs::path& folder : folders) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().string().ends_with(".golden.jsonl")) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

class GoldenTest : public testing::TestWithParam<fs::path> {};

TEST_P(GoldenTest, EqualsThePackage) {
  const std::string model = ModelOf(GetParam());
  if (model.empty()) GTEST_SKIP() << "the tokenizer of " << GetParam() << " is not here";
  const auto tokenizer = Load(model);
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().ToString();
  const auto golden = ReadFile(GetParam().string(), kFileBytesMax);
  ASSERT_TRUE(golden.has_value()) << golden.error().ToString();
  size_t lines = 0;
  EXPECT_EQ(CountDifferences(**tokenizer, *golden, lines), 0u) << "of " << lines;
  EXPECT_GT(lines, 0u);
  RecordProperty("lines", static_cast<int>(lines));
}

// All hard strings of a golden file, in several orders and with blanks between them, as one long text.
std::vector<std::string> LongTexts(const std::string& golden) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < golden.size();) {
    const size_t end = std::min(golden.find('\n', at), golden.size());
    const auto line = ParseJson(golden.substr(at, end - at));
    if (line.has_value() && line->contains("text_b64")) parts.push_back(FromBase64(*line, "text_b64"));
    at = end + 1;
  }
  std::vector<std::string> texts;
  std::mt19937 random(3);
  for (const char* between : {" ", "x ", "\n", ""}) {
    std::shuffle(parts.begin(), parts.end(), random);
    std::string text;
    for (int round = 0; round < 3; ++round) {
      for (const std::string& part : parts) text += part + between;
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

TEST_P(GoldenTest, TheFirstTokensOfALongTextNeedNotAllOfIt) {
  const std::string model = ModelOf(GetParam());
  if (model.empty()) GTEST_SKIP() << "the tokenizer of " << GetParam() << " is not here";
  const auto tokenizer = Load(model);
  ASSERT_TRUE(tokenizer.has_value());
  const auto golden = ReadFile(GetParam().string(), kFileBytesMax);
  ASSERT_TRUE(golden.has_value());
  for (const std::string& text : LongTexts(*golden)) {
    const std::vector<int32_t> all = (*tokenizer)->Encode(text);
    for (const size_t wanted :
         {size_t{0}, size_t{1}, size_t{7}, size_t{100}, size_t{333}, all.size() - 1, all.size()}) {
      const auto some = (*tokenizer)->EncodeAtMost(text, static_cast<int64_t>(wanted));
      ASSERT_EQ(some.size() > wanted, all.size() > wanted) << wanted;
      const auto same = static_cast<std::ptrdiff_t>(std::min(wanted, some.size()));
      ASSERT_TRUE(std::equal(some.begin(), some.begin() + same, all.begin())) << wanted;
      ASSERT_EQ(some.empty() ? -1 : some.back(), all.empty()                       ? -1
                                                 : (*tokenizer)->special().add_eos ? all.back()
                                                                                   : some.back());
    }
  }
}

// tools/tokenizer_pairs.py: a line with a tokenizer and its post-processor, then lines with pairs.
TEST(Pairs, AreJoinedAndCutAsByThePackage) {
  const std::string folder = std::string(PENSIEVE_SOURCE_DIR) + "/tests/data/tokenizer/";
  const auto golden = ReadFile(folder + "pairs.jsonl", kFileBytesMax);
  ASSERT_TRUE(golden.has_value()) << golden.error().ToString();
  std::unique_ptr<Tokenizer> tokenizer;
  size_t pairs = 0;
  for (size_t begin = 0; begin < golden->size();) {
    const size_t end = std::min(golden->find('\n', begin), golden->size());
    const Json line = *ParseJson(std::string_view(*golden).substr(begin, end - begin));
    begin = end + 1;
    if (line.contains("tokenizer")) {
      const std::string path = folder + line["tokenizer"].get<std::string>() + ".tokenizer.json";
      Json document = *ParseJson(*ReadFile(path, kFileBytesMax));
      document["post_processor"] = line["post_processor"];
      auto loaded = Tokenizer::FromHuggingFace(DumpJson(document), Json(), path);
      ASSERT_TRUE(loaded.has_value()) << loaded.error().ToString();
      tokenizer = *std::move(loaded);
      continue;
    }
    const auto encoded = tokenizer->EncodePair(line["first"].get<std::string>(), line["second"].get<std::string>(),
                                               {.tokens_max = line["limit"].get<int64_t>()});
    ASSERT_TRUE(encoded.has_value()) << encoded.error().ToString();
    EXPECT_EQ(encoded->ids, line["ids"].get<std::vector<int32_t>>()) << DumpJson(line);
    std::vector<int32_t> types(encoded->ids.size(), 0);
    std::fill(types.begin() + encoded->second_from, types.end(), 1);
    EXPECT_EQ(types, line["types"].get<std::vector<int32_t>>()) << DumpJson(line);
    EXPECT_GE(encoded->tokens_seen, static_cast<int64_t>(encoded->ids.size()));
    ++pairs;
  }
  EXPECT_GT(pairs, 200u);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, GoldenTest, testing::ValuesIn(GoldenFiles()), [](const auto& test) {
  std::string name = test.param.filename().string();
  name = name.substr(0, name.find(".golden"));
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name + "_" + std::to_string(test.index);
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenTest);

}  // namespace
}  // namespace pensieve::tokenizer
