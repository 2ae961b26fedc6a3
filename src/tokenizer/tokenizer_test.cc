#include "tokenizer/tokenizer.h"

#include <random>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace pensieve::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A whole tokenizer.json around a few of its parts.
std::string File(const std::string& model, const std::string& others = "") {
  const char* comma = others.empty() ? "" : ",";
  return fmt::format(R"({{"version":"1.0","added_tokens":[]{}{},"model":{}}})", comma, others, model);
}

const std::string kTinyBpe = R"({"type":"BPE","vocab":{"a":0,"b":1,"c":2,"ab":3,"bc":4,"abc":5,"Ġ":6,"Ġa":7},)"
                             R"("merges":["b c","a b","a bc","Ġ a"]})";

std::unique_ptr<Tokenizer> Load(const std::string& text, const Json& config = Json()) {
  auto tokenizer = Tokenizer::FromHuggingFace(text, config, "test.json");
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().ToString();
  return tokenizer ? *std::move(tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> LoadSample(const std::string& name) {
  const auto text =
      ReadFile(std::string(PENSIEVE_SOURCE_DIR) + "/tests/data/tokenizer/" + name + ".tokenizer.json", 1 << 20);
  EXPECT_TRUE(text.has_value());
  return Load(*text);
}

// SentencePiece rules with one entry: "a" becomes the text at `offset` of "\xC3\xA9", that is "é".
std::string CharsmapFrom(uint32_t offset) {
  std::vector<uint32_t> units(98, 0);
  units[0] = 1u << 10;                         // its children: 1 ^ byte
  units['a' ^ 1u] = 1u << 10 | 1u << 8 | 'a';  // ends a rule, whose value is one slot further on
  units['a'] = offset;
  std::string charsmap;
  const auto append = [&](uint32_t unit) {
    for (int shift = 0; shift < 32; shift += 8) charsmap += static_cast<char>(unit >> shift & 255u);
  };
  append(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) append(unit);
  return charsmap + "\xC3\xA9" + std::string(1, '\0');
}

TEST(Normalizers, AReplacementInsideOfACharacterIsNone) {
  const auto normalized = [](uint32_t offset) {
    auto normalizer = MakePrecompiledNormalizer(CharsmapFrom(offset));
    NormalizedText text{"bab", true, {}};
    (*normalizer)->Apply(text);
    return text.text;
  };
  EXPECT_EQ(normalized(0),
            "b\xC3\xA9"
            "b");
  EXPECT_EQ(normalized(1), "bab");
  EXPECT_EQ(normalized(2), "bb");
  EXPECT_EQ(normalized(1000), "bab");
}

TEST(Bpe, MergesByRank) {
  const auto tokenizer = Load(File(kTinyBpe));
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(5));
  EXPECT_THAT(tokenizer->Encode("Ġab"), ElementsAre(6, 3));
  EXPECT_THAT(tokenizer->Encode("aabc"), ElementsAre(0, 5));
  EXPECT_THAT(tokenizer->Encode("abcab"), ElementsAre(5, 3));
  EXPECT_THAT(tokenizer->Encode("azb"), ElementsAre(3)) << "without an unk token unknown characters vanish";
  EXPECT_THAT(tokenizer->Encode(""), ElementsAre());
  EXPECT_EQ(tokenizer->vocab_size(), 8);
  EXPECT_EQ(tokenizer->TokenToId("bc"), 4);
  EXPECT_EQ(tokenizer->TokenToId("zz"), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(8), "");
  EXPECT_EQ(tokenizer->IdToToken(-1), "");
}

TEST(Bpe, IgnoresMergesForWholeWords) {
  const auto tokenizer = Load(File(
      R"({"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"c":2,"ab":3,"bc":4,"abc":5,"Ġ":6,"Ġa":7,"Ġab":8},)"
      R"("merges":[["b","c"],["a","b"],["a","bc"],["Ġ","a"]]})"));
  EXPECT_THAT(tokenizer->Encode("Ġab"), ElementsAre(8));
  EXPECT_THAT(tokenizer->Encode("Ġabc"), ElementsAre(6, 5));
}

struct BadFile {
  const char* name;
  std::string text;
  StatusCode code;
  const char* message;
};

class BadFileTest : public testing::TestWithParam<BadFile> {};

TEST_P(BadFileTest, IsRefusedByName) {
  const auto tokenizer = Tokenizer::FromHuggingFace(GetParam().text, Json(), "bad.json");
  ASSERT_FALSE(tokenizer.has_value());
  EXPECT_EQ(tokenizer.error().code(), GetParam().code);
  EXPECT_THAT(tokenizer.error().message(), HasSubstr("bad.json"));
  EXPECT_THAT(tokenizer.error().message(), HasSubstr(GetParam().message));
}

std::string Bpe(const std::string& vocab, const std::string& merges = "[]") {
  return File(R"({"type":"BPE","vocab":)" + vocab + R"(,"merges":)" + merges + "}");
}

const StatusCode kLoss = StatusCode::kDataLoss;
const StatusCode kUnknownType = StatusCode::kUnimplemented;
INSTANTIATE_TEST_SUITE_P(
    HuggingFace, BadFileTest,
    testing::Values(
        BadFile{"empty", "", kLoss, "invalid JSON"}, BadFile{"no_object", "[]", kLoss, "no JSON object"},
        BadFile{"scalar", "3", kLoss, "no JSON object"}, BadFile{"no_model", "{}", kLoss, "model is missing"},
        BadFile{"cut", File(kTinyBpe).substr(0, 90), kLoss, "invalid JSON"},
        BadFile{"invalid_utf8", File("{\"type\":\"BPE\",\"vocab\":{\"\xff\":0}}"), kLoss, "invalid JSON"},
        BadFile{"negative_id", Bpe(R"({"a":-1})"), kLoss, "id -1"},
        BadFile{"huge_id", Bpe(R"({"a":10000001})"), kLoss, "outside"},
        BadFile{"endless_id", Bpe(R"({"a":18446744073709551615})"), kLoss, "outside"},
        BadFile{"id_twice", Bpe(R"({"a":1,"b":1})"), kLoss, "id 1 is given twice"},
        BadFile{"token_twice", Bpe(R"({"a":1,"a":2})"), kLoss, "\"a\" is given twice"},
        BadFile{"id_string", Bpe(R"({"a":"1"})"), kLoss, "model.vocab"},
        BadFile{"id_float", Bpe(R"({"a":1.5})"), kLoss, "model.vocab"},
        BadFile{"id_null", Bpe(R"({"a":null})"), kLoss, "model.vocab"},
        BadFile{"vocab_twice", File(R"({"vocab":{"a":0},"vocab":{"a":0}})"), kLoss, "model.vocab"},
        BadFile{"vocab_array", Bpe(R"([["a",1.0]])"), kLoss, "model.vocab is no object"},
        BadFile{"piece_short", File(R"({"type":"Unigram","vocab":[["a"]]})"), kLoss, "piece"},
        BadFile{"piece_long", File(R"({"type":"Unigram","vocab":[["a",1,2]]})"), kLoss, "model.vocab"},
        BadFile{"unigram_unk", File(R"({"type":"Unigram","unk_id":5,"vocab":[["a",1]]})"), kLoss, "unk_id 5"},
        BadFile{"unigram_empty", File(R"({"type":"Unigram","vocab":[]})"), kLoss, "0 pieces"},
        BadFile{"merge_unknown", Bpe(R"({"a":0,"b":1})", R"(["a b"])"), kLoss, "merges[0] names the token \"ab\""},
        BadFile{"merge_left", Bpe(R"({"b":1,"xb":2})", R"(["x b"])"), kLoss, "\"x\""},
        BadFile{"merge_words", Bpe(R"({"a":0})", R"(["a b c"])"), kLoss, "model.merges[0]"},
        BadFile{"merge_single", Bpe(R"({"a":0})", R"(["a"])"), kLoss, "model.merges[0]"},
        BadFile{"merge_triple", Bpe(R"({"a":0})", R"([["a","b","c"]])"), kLoss, "model.merges"},
        BadFile{"merge_half", Bpe(R"({"a":0})", R"([["a"]])"), kLoss, "model.merges"},
        BadFile{"merge_number", Bpe(R"({"a":0})", "[1]"), kLoss, "model.merges"},
        BadFile{"no_merges", File(R"({"type":"BPE","vocab":{"a":0}})"), kLoss, "model.merges"},
        BadFile{"no_unk", File(R"({"type":"WordPiece","unk_token":"[UNK]","vocab":{"a":0}})"), kLoss, "[UNK]"},
        BadFile{"model_type", File(R"({"type":"Magic","vocab":{"a":0}})"), kUnknownType, "model.type \"Magic\""},
        BadFile{"model_list", File("[]"), kLoss, "model"},
        BadFile{"normalizer_type", File(kTinyBpe, R"("normalizer":{"type":"Nmt"})"), kUnknownType, "\"Nmt\""},
        BadFile{"normalizer_none", File(kTinyBpe, R"("normalizer":{})"), kLoss, "normalizer.type"},
        BadFile{"normalizer_text", File(kTinyBpe, R"("normalizer":"NFC")"), kLoss, "normalizer"},
        BadFile{"normalizer_parts", File(kTinyBpe, R"("normalizer":{"type":"Sequence","normalizers":[1]})"), kLoss,
                "normalizer.normalizers[0]"},
        BadFile{"charsmap", File(kTinyBpe, R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"//////8="})"),
                kLoss, "precompiled_charsmap"},
        BadFile{"charsmap_base64", File(kTinyBpe, R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"*"})"),
                kLoss, "base64"},
        BadFile{"split_type", File(kTinyBpe, R"("pre_tokenizer":{"type":"UnicodeScripts"})"), kUnknownType,
                "UnicodeScripts"},
        BadFile{"split_behavior",
                File(kTinyBpe, R"("pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":"Odd"})"),
                kUnknownType, "behavior \"Odd\""},
        BadFile{"split_regex",
                File(kTinyBpe, R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"})"),
                kLoss, "pre_tokenizer.pattern"},
        BadFile{
            "split_class",
            File(kTinyBpe, R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"[a&&b]"},"behavior":"Isolated"})"),
            kUnknownType, "intersection"},
        BadFile{"split_empty",
                File(kTinyBpe, R"("pre_tokenizer":{"type":"Split","pattern":{"String":""},"behavior":"Isolated"})"),
                kLoss, "pattern is empty"},
        BadFile{"metaspace", File(kTinyBpe, R"("pre_tokenizer":{"type":"Metaspace","replacement":"ab"})"), kLoss,
                "single character"},
        BadFile{"processor", File(kTinyBpe, R"("post_processor":{"type":"Odd"})"), kUnknownType, "post_processor.type"},
        BadFile{"template_token",
                File(kTinyBpe, R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},)"
                               R"({"Sequence":{"id":"A"}}],"special_tokens":{}})"),
                kLoss, "special_tokens.x"},
        BadFile{"template_id",
                File(kTinyBpe, R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},)"
                               R"({"Sequence":{"id":"A"}}],"special_tokens":{"x":{"ids":[-4]}}})"),
                kLoss, "ids"},
        BadFile{"cls", File(kTinyBpe, R"("post_processor":{"type":"BertProcessing","cls":["a"],"sep":["a",1]})"), kLoss,
                "post_processor.cls"},
        BadFile{"decoder", File(kTinyBpe, R"("decoder":{"type":"CTC"})"), kUnknownType, "decoder.type \"CTC\""},
        BadFile{"strip", File(kTinyBpe, R"("decoder":{"type":"Strip","content":" ","start":-1,"stop":0})"), kLoss,
                "decoder"},
        BadFile{"suffix", File(kTinyBpe, R"("decoder":{"type":"BPEDecoder","suffix":""})"), kLoss, "suffix"},
        BadFile{"added_list", R"({"added_tokens":{},"model":)" + kTinyBpe + "}", kLoss, "added_tokens"},
        BadFile{"added_id", R"({"added_tokens":[{"id":-5,"content":"x"}],"model":)" + kTinyBpe + "}", kLoss,
                "added_tokens[0].id"},
        BadFile{"added_content", R"({"added_tokens":[{"id":5}],"model":)" + kTinyBpe + "}", kLoss,
                "added_tokens[0].content"},
        BadFile{"added_twice",
                R"({"added_tokens":[{"id":9,"content":"x"},{"id":9,"content":"y"}],"model":)" + kTinyBpe + "}", kLoss,
                "added_tokens[1].id 9 is given twice"},
        BadFile{"deep", R"({"x":)" + std::string(1000, '[') + std::string(1000, ']') + "}", kLoss, "nested"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(BadFile, EveryCutOfARealFileIsRefused) {
  const auto text = ReadFile(std::string(PENSIEVE_SOURCE_DIR) + "/tests/data/tokenizer/llama3.tokenizer.json", 1 << 20);
  ASSERT_TRUE(text.has_value());
  const size_t end = text->find_last_of('}');
  for (size_t size = 0; size < end; size += 97) {
    EXPECT_FALSE(Tokenizer::FromHuggingFace(text->substr(0, size), Json(), "cut").has_value()) << size;
  }
}

TEST(BadFile, ChangedBytesNeverCrash) {
  std::mt19937 random(1);
  for (const char* name : {"llama2", "unigram", "precompiled", "bert_uncased", "clip"}) {
    const auto text =
        ReadFile(std::string(PENSIEVE_SOURCE_DIR) + "/tests/data/tokenizer/" + name + ".tokenizer.json", 1 << 20);
    ASSERT_TRUE(text.has_value());
    for (int round = 0; round < 60; ++round) {
      std::string changed = *text;
      for (int i = 0; i < 3; ++i) changed[random() % changed.size()] = "0\"{}[],:-9xZ"[random() % 12];
      const auto tokenizer = Tokenizer::FromHuggingFace(changed, Json(), name);
      if (tokenizer) (*tokenizer)->Decode((*tokenizer)->Encode("Hello wörld, ﬁ <mask> 12 \xff"));
    }
  }
}

TEST(Config, NamesSpecialTokensAndAddsMissingOnes) {
  const Json config = *ParseJson(R"({"tokenizer_class":"LlamaTokenizer","bos_token":{"content":"<s>"},)"
                                 R"("eos_token":"<|im_end|>","pad_token":null,)"
                                 R"("add_bos_token":true,"add_eos_token":true,)"
                                 R"("added_tokens_decoder":{"20":{"content":"<s>","special":true},)"
                                 R"("21":{"content":"<|im_end|>","special":true}}})");
  const auto tokenizer = Load(File(kTinyBpe), config);
  EXPECT_THAT(tokenizer->Encode("a<|im_end|>b"), ElementsAre(20, 0, 21, 1, 21));
  EXPECT_THAT(tokenizer->Encode("a", {.add_special = false}), ElementsAre(0));
  EXPECT_THAT(tokenizer->Encode("<s>a", {.add_special = false, .parse_special = false}), ElementsAre(0));
  EXPECT_EQ(tokenizer->special().bos->id, 20);
  EXPECT_EQ(tokenizer->special().eos->text, "<|im_end|>");
  EXPECT_FALSE(tokenizer->special().pad);
  EXPECT_TRUE(tokenizer->special().add_bos && tokenizer->special().add_eos);
  EXPECT_THAT(tokenizer->special().eog_ids, ElementsAre(21));
  EXPECT_EQ(tokenizer->vocab_size(), 22);
  EXPECT_TRUE(tokenizer->IsSpecial(20));
  EXPECT_FALSE(tokenizer->IsSpecial(0));
}

TEST(Phi3, TokensSwallowTheLineBreakBehindThem) {
  const auto tokenizer = LoadSample("phi3");
  const std::string marked = "<|user|>\nHi<|end|>\n<|assistant|>\n";
  EXPECT_EQ(tokenizer->Encode(marked), tokenizer->Encode("<|user|>Hi<|end|><|assistant|>"));
}

TEST(AddedTokens, WhitespaceBelongsToTheFirstThatTakesIt) {
  const auto with = [](const char* lstrip) {
    return Load(fmt::format(R"({{"version":"1.0","added_tokens":[)"
                            R"({{"id":8,"content":"<m>","rstrip":true,"special":true,"normalized":false}},)"
                            R"({{"id":9,"content":"  ","lstrip":{},"special":false,"normalized":false}}],"model":{}}})",
                            lstrip, kTinyBpe));
  };
  // "<m>" took both spaces. A token that may reach to the left shrinks to nothing, any other counts all the same.
  EXPECT_THAT(with("true")->Encode("a<m>  b"), ElementsAre(0, 8, 1));
  EXPECT_THAT(with("true")->Encode("a  b"), ElementsAre(0, 9, 1));
  EXPECT_THAT(with("false")->Encode("a<m>  b"), ElementsAre(0, 8, 9, 1));
}

// A text with the authors of its parts, in order.
struct Parts {
  Parts(std::initializer_list<std::pair<std::string, TextSource>> parts) {
    for (const auto& [part, source] : parts) {
      text += part;
      spans.push_back({text.size(), source});
    }
  }
  std::vector<int32_t> Encode(const Tokenizer& tokenizer, const TokenLimits& limits) const {
    return tokenizer.EncodeAuthored({text, spans, {}}, limits).ids;
  }
  std::string text;
  std::vector<TextSpan> spans;
};
constexpr TextSource kTemplate = TextSource::kTemplate, kAnswer = TextSource::kAnswer, kRequest = TextSource::kRequest;

// <s> and <e> are special, <t> and <w> are not.
std::unique_ptr<Tokenizer> LoadMarked(const char* normalized, const std::string& others = "") {
  return Load(fmt::format(
      R"({{"version":"1.0","added_tokens":[)"
      R"({{"id":20,"content":"<s>","special":true,"normalized":{0}}},{{"id":21,"content":"<e>","special":true,"normalized":{0}}},)"
      R"({{"id":22,"content":"<t>","special":false,"normalized":{0}}},{{"id":23,"content":"<w>","special":false,"normalized":{0}}},)"
      R"({{"id":24,"content":"ab<s>","special":true,"normalized":{0}}}]{1},"model":)"
      R"({{"type":"BPE","vocab":{{"a":0,"b":1,"c":2,"ab":3,"<":4,">":5,"s":6,"e":7,"t":8,"w":9}},"merges":["a b"]}}}})",
      normalized, others));
}

TEST(Authors, OnlyTheTemplateWritesSpecialTokens) {
  for (const char* normalized : {"false", "true"}) {
    const auto tokenizer = LoadMarked(normalized);
    const auto limits = tokenizer->Limit("<e>", "{{ '<s>' }}<t>", {});
    const auto encode = [&](const Parts& parts) { return parts.Encode(*tokenizer, *limits); };
    EXPECT_THAT(encode({{"<s>a<e>", kTemplate}}), ElementsAre(20, 0, 21));
    EXPECT_THAT(encode({{"<s>", kTemplate}, {"a<e>b", kRequest}, {"<e>", kTemplate}}),
                ElementsAre(20, 0, 4, 7, 5, 1, 21));
    EXPECT_THAT(encode({{"<s>", kAnswer}}), ElementsAre(4, 6, 5));
    // A token of two authors is the less trusted one's, and neither hides nor lengthens what the template writes.
    EXPECT_THAT(encode({{"<s", kTemplate}, {">", kRequest}}), ElementsAre(4, 6, 5));
    EXPECT_THAT(encode({{"<", kRequest}, {"s>", kTemplate}}), ElementsAre(4, 6, 5));
    EXPECT_THAT(encode({{"ab", kRequest}, {"<s>", kTemplate}}), ElementsAre(3, 20));
    EXPECT_THAT(encode({{"ab<s>", kTemplate}}), ElementsAre(24));
    // Words go over borders.
    EXPECT_THAT(encode({{"a", kRequest}, {"b", kTemplate}}), ElementsAre(3));
    EXPECT_THAT(encode({}), ElementsAre());
  }
}

TEST(Authors, WhatTheTemplateNamesIsForAnswersAndOtherAddedTokensForAll) {
  const auto tokenizer = LoadMarked("false");
  const auto limits = tokenizer->Limit("<e>", "{{ '<s>' }}<t>", {});
  EXPECT_THAT(Parts({{"<t>", kTemplate}, {"<t>", kAnswer}, {"<t>", kRequest}}).Encode(*tokenizer, *limits),
              ElementsAre(22, 22, 4, 8, 5));
  EXPECT_THAT(Parts({{"<w>", kTemplate}, {"<w>", kAnswer}, {"<w>", kRequest}}).Encode(*tokenizer, *limits),
              ElementsAre(23, 23, 23));
  // What stands around turns, or ends them, is for nobody else, special or not.
  const auto framed = tokenizer->Limit("<e>\n<t>", "", std::vector<int32_t>{23});
  EXPECT_THAT(Parts({{"<t><w>", kAnswer}}).Encode(*tokenizer, *framed), ElementsAre(4, 8, 5, 4, 9, 5));
  EXPECT_THAT(framed->template_ids, ElementsAre(20, 21, 22, 23, 24));
}

TEST(Authors, NormalizersKeepTheBorders) {
  const std::string sequence = R"(,"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"},)"
                               R"({"type":"Replace","pattern":{"String":"ww"},"content":""}]})";
  const auto tokenizer = LoadMarked("true", sequence);
  const auto limits = tokenizer->Limit("", "", {});
  EXPECT_THAT(Parts({{"ww<S>", kRequest}, {"ww", kRequest}, {"<S>", kTemplate}}).Encode(*tokenizer, *limits),
              ElementsAre(4, 6, 5, 20));
  // Letters that join over a border: what comes behind them is found all the same.
  EXPECT_THAT(Parts({{"e", kTemplate}, {"\u0301<s>", kRequest}, {"<s>", kTemplate}}).Encode(*tokenizer, *limits),
              ElementsAre(4, 6, 5, 20));
  EXPECT_THAT(Parts({{"<s>\xff", kRequest}, {"<s>", kTemplate}}).Encode(*tokenizer, *limits), ElementsAre(4, 6, 5, 20))
      << "invalid UTF-8";
}

// "<s>" can be merged of plain text here, as in vocabularies that were converted from SentencePiece.
TEST(Authors, TheModelMakesNoSpecialTokenOfPlainText) {
  const auto tokenizer =
      Load(R"({"version":"1.0","added_tokens":[{"id":5,"content":"<s>","special":true,"normalized":false}],)"
           R"("model":{"type":"BPE","vocab":{"<":0,"s":1,">":2,"s>":3,"a":4,"<s>":5},"merges":["s >","< s>"]}})");
  const auto limits = tokenizer->Limit("", "", {});
  EXPECT_THAT(tokenizer->Encode("a<s>", {.parse_special = false}), ElementsAre(4, 5));
  EXPECT_THAT(Parts({{"a<s>", kRequest}, {"<s>", kTemplate}}).Encode(*tokenizer, *limits), ElementsAre(4, 0, 3, 5));
}

TEST(Authors, MarksArePlacedAmongTheTokens) {
  const auto tokenizer = LoadMarked("false");
  const auto limits = tokenizer->Limit("", "", {});
  const std::string text = "<s>cab<e>c";
  const std::vector<TextSpan> spans = {{text.size(), kTemplate}};
  const std::vector<size_t> marks = {0, 3, 4, 5, 6, 9, 10};
  const auto encoded = tokenizer->EncodeAuthored({text, spans, marks}, *limits);
  EXPECT_THAT(encoded.ids, ElementsAre(20, 2, 3, 21, 2));
  EXPECT_THAT(encoded.marks, ElementsAre(0, 1, 2, 2, 3, 4, 5)) << "\"ab\" is one token: nothing ends within it";
  // Very many marks in one text are not placed, for each would cost that text once more.
  const std::string letters(100, 'c');
  std::vector<size_t> all(100);
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  const std::vector<TextSpan> one = {{letters.size(), kTemplate}};
  const auto many = tokenizer->EncodeAuthored({letters, one, all}, *limits);
  EXPECT_EQ(many.marks[10], 10);
  EXPECT_EQ(many.marks[50], -1);
  EXPECT_EQ(many.marks.size(), 100u);
}

TEST(Regex, WordBoundariesAreThoseOfOniguruma) {
  const auto ends = Regex::Compile("1\\b"), goes_on = Regex::Compile("1\\B");
  ASSERT_TRUE(ends && goes_on);
  for (const char* after : {"", "-", " ", "\u00ad", "\u00bf", "👍"}) {
    EXPECT_EQ(ends->FindAll(std::string("1") + after).size(), 1u) << after;
    EXPECT_EQ(goes_on->FindAll(std::string("1") + after).size(), 0u) << after;
  }
  // Letters, marks, enclosing ones too, connectors and the small numbers of Latin-1.
  for (const char* after : {"é", "中", "\u0301", "\u20e3", "_", "\u203f", "²", "½", "२"}) {
    EXPECT_EQ(ends->FindAll(std::string("1") + after).size(), 0u) << after;
    EXPECT_EQ(goes_on->FindAll(std::string("1") + after).size(), 1u) << after;
  }
}

TEST(Gguf, RefusesWhatItCannotRead) {
  const auto fail = [](GgufVocabulary vocabulary) {
    const auto tokenizer = Tokenizer::FromGguf(std::move(vocabulary), "model.gguf");
    return tokenizer ? "loaded" : tokenizer.error().ToString();
  };
  EXPECT_THAT(fail({}), HasSubstr("tokens"));
  EXPECT_THAT(fail({.model = "t5", .tokens = {"a"}}),
              HasSubstr("UNIMPLEMENTED: model.gguf: tokenizer.ggml.model \"t5\""));
  EXPECT_THAT(fail({.model = "llama", .tokens = {"a", "b"}, .scores = {1}}), HasSubstr("2 tokens, but 1 scores"));
  EXPECT_THAT(fail({.model = "llama", .tokens = {"a"}, .token_types = {1, 1}}), HasSubstr("token_type has 2"));
  EXPECT_THAT(fail({.model = "gpt2", .tokens = {"a"}, .merges = {"a"}}), HasSubstr("merges[0]"));
  EXPECT_THAT(fail({.model = "gpt2", .tokens = {"a"}, .merges = {"a b"}}), HasSubstr("\"b\""));
  EXPECT_THAT(fail({.model = "gpt2", .tokens = {"a"}, .bos_id = 7}), HasSubstr("bos_token_id is 7"));
  EXPECT_THAT(fail({.model = "bert", .tokens = {"a"}}), HasSubstr("[UNK]"));
  EXPECT_EQ(fail({.model = "gpt2", .tokens = {"a"}}), "loaded");
}

TEST(Gguf, ScoredMergesTakeTheBestScoreAndSplitUnusedTokensAgain) {
  GgufVocabulary vocabulary{.model = "llama",
                            .tokens = {"<unk>", "▁", "a", "b", "c", "ab", "bc", "abc", "<0x64>"},
                            .scores = {0, -1, -1, -1, -1, -5, -4, -6, 0},
                            .token_types = {2, 1, 1, 1, 1, 1, 5, 1, 6}};
  vocabulary.add_space_prefix = false;
  vocabulary.unk_id = 0;
  const auto tokenizer = Tokenizer::FromGguf(std::move(vocabulary), "x");
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().ToString();
  EXPECT_THAT((*tokenizer)->Encode("abc"), ElementsAre(7)) << "by way of the unused bc";
  EXPECT_THAT((*tokenizer)->Encode("bc ab"), ElementsAre(3, 4, 1, 5));
  EXPECT_THAT((*tokenizer)->Encode("de"), ElementsAre(8, 0)) << "a byte token, and unk where there is none";
  EXPECT_EQ((*tokenizer)->TokenBytes(8), "d");
}

TEST(Gguf, WarnsAboutUnknownPatterns) {
  const auto tokenizer = Tokenizer::FromGguf({.model = "gpt2", .pre = "brand-new", .tokens = {"a"}}, "x");
  ASSERT_TRUE(tokenizer.has_value());
  ASSERT_EQ((*tokenizer)->warnings().size(), 1u);
  EXPECT_THAT((*tokenizer)->warnings()[0], HasSubstr("brand-new"));
}

TEST(Gguf, FamiliesWhoseTokenizerJsonComposesCharactersDoSoHere) {
  for (const std::string pre : {"qwen2", "qwen35", "deepseek-r1-qwen", "command-r", "olmo", "llama-bpe", "gpt-2"}) {
    const auto tokenizer =
        Tokenizer::FromGguf({.model = "gpt2", .pre = pre, .tokens = {"c", "a", "f", "e", "Ã", "©", "Ì", "ģ"}}, "x");
    ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().ToString();
    const bool composes = pre != "llama-bpe" && pre != "gpt-2";
    const std::vector<int32_t> composed = {0, 1, 2, 4, 5}, as_given = {0, 1, 2, 3, 6, 7};
    EXPECT_EQ((*tokenizer)->Encode("cafe\u0301", {.add_special = false}), composes ? composed : as_given) << pre;
  }
}

TEST(Gguf, WordPieceVocabulariesWithCapitalsAreNotLowercased) {
  const auto encode = [](std::vector<std::string> tokens) {
    const auto tokenizer = Tokenizer::FromGguf(
        {.model = "bert", .tokens = std::move(tokens), .token_types = {2, 3, 1, 1, 1}, .unk_id = 0}, "x");
    EXPECT_TRUE(tokenizer.has_value());
    return tokenizer ? (*tokenizer)->Encode("Ab ab", {.add_special = false}) : std::vector<int32_t>();
  };
  EXPECT_THAT(encode({"[UNK]", "[CLS]", "▁ab", "▁c", "d"}), ElementsAre(2, 2));
  EXPECT_THAT(encode({"[UNK]", "[CLS]", "▁ab", "▁Ab", "d"}), ElementsAre(3, 2));
}

TEST(IdsBeyondTheEmbedding, AreLeftOutAndTheirTextIsPlain) {
  const std::string text = R"({"version":"1.0","added_tokens":[)"
                           R"({"id":3,"content":"<a>","special":true,"normalized":false},)"
                           R"({"id":4,"content":"ab","special":true,"normalized":false}],)"
                           R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"<":2,"ab":4},"merges":[]}})";
  const auto all = Tokenizer::FromHuggingFace(text, Json(), "x");
  ASSERT_TRUE(all.has_value()) << all.error().ToString();
  EXPECT_THAT((*all)->Encode("ab<a>"), ElementsAre(4, 3));
  EXPECT_EQ((*all)->vocab_size(), 5);
  const auto without = Tokenizer::FromHuggingFace(text, Json(), "x", {.ids_end = 4});
  ASSERT_TRUE(without.has_value()) << without.error().ToString();
  EXPECT_THAT((*without)->Encode("ab<a>"), ElementsAre(0, 1, 3));
  EXPECT_EQ((*without)->vocab_size(), 4);
  EXPECT_EQ((*without)->TokenToId("ab"), std::nullopt);
  EXPECT_EQ((*without)->Decode(std::vector<int32_t>{4, 0}), "a");
  // An ordinary piece of the vocabulary is another matter: the tokenizer is then that of another model.
  const auto other = Tokenizer::FromHuggingFace(text, Json(), "x", {.ids_end = 2});
  ASSERT_TRUE(other.has_value());
  EXPECT_EQ((*other)->vocab_size(), 3);
}

TEST(IdsBeyondTheEmbedding, CountWhereThePostProcessorPutsThem) {
  const auto tokenizer =
      Load(R"({"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":[]},)"
           R"("post_processor":{"type":"BertProcessing","sep":["s",70],"cls":["c",0]}})");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 71);
}

TEST(IdsBeyondTheEmbedding, OfGgufVocabulariesToo) {
  const auto load = [](int32_t last_type) {
    return Tokenizer::FromGguf({.model = "llama",
                                .tokens = {"<unk>", "a", "b", "ab", "<pad>"},
                                .scores = {0, -1, -1, -1, 0},
                                .token_types = {2, 1, 1, 1, last_type},
                                .unk_id = 0,
                                .pad_id = 4,
                                .add_bos = false,
                                .add_space_prefix = false},
                               "x", {.ids_end = 4});
  };
  const auto without = load(3);
  ASSERT_TRUE(without.has_value()) << without.error().ToString();
  EXPECT_EQ((*without)->vocab_size(), 4);
  EXPECT_FALSE((*without)->special().pad.has_value());
  EXPECT_EQ((*without)->TokenToId("<pad>"), std::nullopt);
  EXPECT_THAT((*without)->Encode("ab<pad>"), ElementsAre(3, 0, 0, 1, 0, 0));
  const auto ordinary = load(1);
  ASSERT_TRUE(ordinary.has_value());
  EXPECT_EQ((*ordinary)->vocab_size(), 5) << "an ordinary token without a row: whoever loads the model refuses it";
}

TEST(Pairs, ThatCannotBeJoinedAreRefused) {
  const auto pair = [](const std::string& template_pair, int64_t tokens_max) {
    const auto tokenizer =
        Load(File(kTinyBpe, R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}],)"
                            R"("pair":)" +
                                template_pair + R"(,"special_tokens":{"b":{"id":"b","ids":[1]}}})"));
    const auto encoded = tokenizer->EncodePair("a", "c", {.tokens_max = tokens_max});
    return encoded ? testing::PrintToString(encoded->ids) : encoded.error().ToString();
  };
  const std::string a = R"({"Sequence":{"id":"A"}})", b = R"({"Sequence":{"id":"B","type_id":1}})";
  const std::string special = R"({"SpecialToken":{"id":"b","type_id":0}})";
  EXPECT_EQ(pair("[" + a + "," + special + "," + b + "]", 0), "{ 0, 1, 2 }");
  EXPECT_EQ(pair("[" + a + "," + special + "," + b + "]", 2), "{ 1, 2 }");
  EXPECT_THAT(pair("[" + a + "," + special + "," + b + "]", 1), HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(pair("[" + b + "," + a + "]", 0), HasSubstr("both texts in order"));
  EXPECT_THAT(pair("[" + a + "]", 0), HasSubstr("both texts in order"));
  EXPECT_THAT(pair("[" + a + "," + b + "," + special + "]", 0), HasSubstr("unusual token types"));
}

TEST(Lowercase, IsPutFirstWhereTheTokenizerDoesNotDoIt) {
  const std::string text =
      R"({"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"A":1},"merges":[]}})";
  const auto plain = Tokenizer::FromHuggingFace(text, Json(), "x");
  const auto lowercasing = Tokenizer::FromHuggingFace(text, Json(), "x", {.lowercase = true});
  ASSERT_TRUE(plain && lowercasing);
  EXPECT_THAT((*plain)->Encode("aA"), ElementsAre(0, 1));
  EXPECT_THAT((*lowercasing)->Encode("aA"), ElementsAre(0, 0));
}

// A quadratic step would take minutes on these; ctest's time limit is the check.
TEST(Cost, LongRunsAreLinear) {
  const size_t size = 1 << 17;
  std::vector<std::string> texts;
  for (const std::string unit :
       {"a", " ", "A", "\n", "0", "é", "中", "\u0301", "\u0345\u0301", "'", "aB", "a ", "\xff", "<|"}) {
    std::string text;
    while (text.size() < size) text += unit;
    texts.push_back(text);
    texts.push_back(text + "!");
  }
  for (const char* name : {"llama2", "llama3", "o200k", "qwen35", "bert_uncased", "unigram", "precompiled", "deepseek",
                           "roberta", "clip", "prefix_bpe"}) {
    const auto tokenizer = LoadSample(name);
    for (const std::string& text : texts) tokenizer->Decode(tokenizer->Encode(text));
  }
}

// Parts end where no token can stand across, so that a long text without a pre-tokenizer has the ids of its words.
TEST(Cost, LongWordsAreTakenInPartsThatChangeNoId) {
  for (const char* name : {"llama2", "gemma", "unigram"}) {
    const auto tokenizer = LoadSample(name);
    const std::string unit = "The quick brown fox jumps over 12 lazy dogs and on";
    const auto first = tokenizer->Encode(unit, {.add_special = false});
    const auto next = tokenizer->Encode(unit + " " + unit, {.add_special = false});
    ASSERT_GT(next.size(), first.size());
    std::string text = unit;
    std::vector<int32_t> ids = first;
    while (text.size() < Model::kWordBytesMax + 5000) {
      text += " " + unit;
      ids.insert(ids.end(), next.begin() + static_cast<std::ptrdiff_t>(first.size()), next.end());
    }
    EXPECT_EQ(tokenizer->Encode(text, {.add_special = false}), ids) << name;
  }
}

// Without such a place the parts are cut anywhere; every byte is still there.
TEST(Cost, AWordOfMegabytesKeepsItsText) {
  for (const char* name : {"llama2", "llama3"}) {
    const auto tokenizer = LoadSample(name);
    for (const char* unit : {"a", "\u4e2d"}) {
      std::string word;
      while (word.size() <= Model::kWordBytesMax) word += unit;
      EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(word)), word) << name;
    }
  }
}

TEST(Cost, AnExponentialPatternEndsAndKeepsTheText) {
  const auto regex = Regex::Compile("(?:a+)+(?:b|c)");
  ASSERT_TRUE(regex.has_value());
  EXPECT_TRUE(regex->FindAll(std::string(200, 'a')).empty());
  const auto recursive = Regex::Compile("(?:a|(?:b(?:c)*)*)*z");
  ASSERT_TRUE(recursive.has_value());
  recursive->FindAll(std::string(100000, 'b'));
}

TEST(Stream, GivesWholeCharactersAtOnce) {
  const auto tokenizer = LoadSample("llama3");
  const std::string text = "a é 中文 👨‍👩‍👧‍👦 ";
  const auto ids = tokenizer->Encode(text, {.add_special = false});
  const auto stream = tokenizer->NewStreamDecoder(true);
  std::string bytes;
  std::string streamed;
  for (const int32_t id : ids) {
    bytes += tokenizer->TokenBytes(id);
    streamed += stream->Push(id);
    EXPECT_TRUE(IsValidUtf8(streamed));
    EXPECT_LT(bytes.size() - streamed.size(), 4u) << "holds back no more than part of a character";
  }
  EXPECT_EQ(bytes, text);
  EXPECT_EQ(streamed + stream->Flush(), text);
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{-1, 1 << 30}), "");
}

TEST(Threads, ShareOneTokenizer) {
  const auto tokenizer = LoadSample("llama3");
  const std::string text = "Hello world, it's 12345 times नमस्ते!";
  const auto expected = tokenizer->Encode(text);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        EXPECT_EQ(tokenizer->Encode(text), expected);
        tokenizer->Encode(std::to_string(round) + " words " + std::to_string(round * 7));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Unicode, NormalForms) {
  EXPECT_EQ(Normalize("e\u0301", NormalForm::kNfc), "é");
  EXPECT_EQ(Normalize("q\u0307\u0323", NormalForm::kNfc), "q\u0323\u0307");
  EXPECT_EQ(Normalize("각", NormalForm::kNfd), "\u1100\u1161\u11a8");
  EXPECT_EQ(Normalize("\u1100\u1161\u11a8", NormalForm::kNfc), "각");
  EXPECT_EQ(Normalize("ﬁ①", NormalForm::kNfkc), "fi1");
  EXPECT_EQ(Lowercase("ÀΣİ"), "àσi\u0307");
}

}  // namespace
}  // namespace pensieve::tokenizer
