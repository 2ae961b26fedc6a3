#include "tokenizer/hf_components.h"

#include <array>

#include "base/base64.h"
#include "base/utf8.h"
#include "fmt/format.h"

namespace pensieve::tokenizer {
namespace {

Status UnknownType(const JsonFields& fields, const std::string& type) {
  return Unimplemented(fmt::format("{} \"{}\" is not supported", fields.PlaceOf("type"), type));
}

// The parts of a sequence, each built by `build`.
template <typename Built, typename Build>
Result<std::vector<Built>> BuildAll(const JsonFields& fields, const std::string& key, Build build) {
  PENSIEVE_TRY(const Json* parts, fields.Array(key));
  std::vector<Built> built;
  for (size_t i = 0; i < parts->size(); ++i) {
    PENSIEVE_TRY(const JsonFields part, JsonFields::Of((*parts)[i], fmt::format("{}[{}]", fields.PlaceOf(key), i)));
    PENSIEVE_TRY(Built one, build(part));
    built.push_back(std::move(one));
  }
  return built;
}

// {"String": s} or {"Regex": s}.
struct Pattern {
  std::string text;
  bool is_literal = false;
};

Result<Pattern> ReadPattern(const JsonFields& fields) {
  PENSIEVE_TRY(const JsonFields pattern, fields.Object("pattern"));
  const bool is_literal = pattern.Find("String") != nullptr;
  PENSIEVE_TRY(std::string text, pattern.String(is_literal ? "String" : "Regex"));
  if (text.empty()) return DataLoss(fmt::format("{} is empty", pattern.place()));
  return Pattern{std::move(text), is_literal};
}

Result<Regex> CompilePattern(const JsonFields& fields, const Pattern& pattern) {
  auto regex = pattern.is_literal ? Regex::Literal(pattern.text) : Regex::Compile(pattern.text);
  if (regex) return regex;
  const bool unsupported = regex.error().code() == StatusCode::kUnimplemented;
  const std::string message = fmt::format("{}: {}", fields.PlaceOf("pattern"), regex.error().message());
  return unsupported ? Unimplemented(message) : DataLoss(message);
}

// A string of exactly one character.
Result<char32_t> ReadCharacter(const JsonFields& fields, std::string_view key, std::string fallback) {
  PENSIEVE_TRY(const std::string text, fields.StringOr(key, std::move(fallback)));
  if (text.empty() || Utf8Length(text.front()) != text.size()) return fields.Malformed(key, "a single character");
  size_t at = 0;
  return NextCodePoint(text, at);
}

std::string Utf8Of(char32_t c) {
  std::string text;
  AppendUtf8(c, text);
  return text;
}

Result<NormalizerPtr> BuildBertNormalizer(const JsonFields& fields) {
  BertNormalizerOptions options;
  PENSIEVE_TRY(options.clean_text, fields.BoolOr("clean_text", true));
  PENSIEVE_TRY(options.handle_chinese_chars, fields.BoolOr("handle_chinese_chars", true));
  PENSIEVE_TRY(options.lowercase, fields.BoolOr("lowercase", true));
  PENSIEVE_TRY(options.strip_accents, fields.BoolOr("strip_accents", options.lowercase));
  return MakeBertNormalizer(options);
}

Result<SplitBehavior> ReadBehavior(const JsonFields& fields, const std::string& fallback) {
  static constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors = {{
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  }};
  PENSIEVE_TRY(const std::string name, fields.StringOr("behavior", fallback));
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  return Unimplemented(fmt::format("{} \"{}\" is not supported", fields.PlaceOf("behavior"), name));
}

Result<PreTokenizerPtr> BuildSplit(const JsonFields& fields) {
  PENSIEVE_TRY(const Pattern pattern, ReadPattern(fields));
  PENSIEVE_TRY(Regex regex, CompilePattern(fields, pattern));
  if (fields.Find("behavior") == nullptr) return fields.Malformed("behavior", "a string");
  PENSIEVE_TRY(const SplitBehavior behavior, ReadBehavior(fields, ""));
  PENSIEVE_TRY(const bool invert, fields.BoolOr("invert", false));
  return MakeSplitPreTokenizer(std::move(regex), behavior, invert);
}

// Older files have add_prefix_space instead of prepend_scheme.
Result<PrependScheme> ReadPrependScheme(const JsonFields& fields) {
  PENSIEVE_TRY(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
  PENSIEVE_TRY(const std::string scheme, fields.StringOr("prepend_scheme", add_prefix_space ? "always" : "never"));
  if (scheme == "always") return PrependScheme::kAlways;
  if (scheme == "first") return PrependScheme::kFirst;
  if (scheme == "never") return PrependScheme::kNever;
  return Unimplemented(fmt::format("{} \"{}\" is not supported", fields.PlaceOf("prepend_scheme"), scheme));
}

Result<PreTokenizerPtr> BuildMetaspace(const JsonFields& fields) {
  MetaspaceOptions options;
  PENSIEVE_TRY(const char32_t replacement, ReadCharacter(fields, "replacement", options.replacement));
  options.replacement = Utf8Of(replacement);
  PENSIEVE_TRY(options.prepend_scheme, ReadPrependScheme(fields));
  PENSIEVE_TRY(options.split, fields.BoolOr("split", true));
  return MakeMetaspacePreTokenizer(std::move(options));
}

Result<PreTokenizerPtr> BuildByteLevel(const JsonFields& fields) {
  PENSIEVE_TRY(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
  PENSIEVE_TRY(const bool use_regex, fields.BoolOr("use_regex", true));
  return MakeByteLevelPreTokenizer(add_prefix_space, use_regex);
}

PreTokenizerPtr BuildBertPreTokenizer() {
  std::vector<PreTokenizerPtr> parts;
  parts.push_back(MakeCharacterPreTokenizer(IsWhitespace, SplitBehavior::kRemoved));
  parts.push_back(MakeCharacterPreTokenizer(IsPunctuation, SplitBehavior::kIsolated));
  return MakePreTokenizerSequence(std::move(parts));
}

Result<int32_t> CheckedId(const Json& value, const std::string& place) {
  if (!value.is_number_integer() || value < 0 || value > kTokenIdMax) {
    return DataLoss(fmt::format("{} is no token id (0..{})", place, kTokenIdMax));
  }
  return value.get<int32_t>();
}

// ["token", id].
Result<int32_t> ReadTokenPair(const JsonFields& fields, const std::string& key) {
  PENSIEVE_TRY(const Json* pair, fields.Array(key));
  if (pair->size() != 2 || !(*pair)[0].is_string()) return fields.Malformed(key, "[token, id]");
  return CheckedId((*pair)[1], fields.PlaceOf(key));
}

// BERT: [CLS] a [SEP] b [SEP], of types 0 and 1. RoBERTa: <s> a </s> </s> b </s>, all of type 0.
Result<IdTemplate> BuildClsSep(const JsonFields& fields, bool is_bert) {
  PENSIEVE_TRY(const int32_t cls, ReadTokenPair(fields, "cls"));
  PENSIEVE_TRY(const int32_t sep, ReadTokenPair(fields, "sep"));
  using Kind = PairPart::Kind;
  PairTemplate pair;
  pair.parts = {{Kind::kIds, {cls}, 0}, {Kind::kFirst, {}, 0}};
  pair.parts.push_back({Kind::kIds, is_bert ? std::vector<int32_t>{sep} : std::vector<int32_t>{sep, sep}, 0});
  pair.parts.push_back({Kind::kSecond, {}, is_bert ? 1 : 0});
  pair.parts.push_back({Kind::kIds, {sep}, is_bert ? 1 : 0});
  return IdTemplate{{cls}, {sep}, std::move(pair)};
}

// The ids of special_tokens[name].
Result<std::vector<int32_t>> TemplateIds(const JsonFields& fields, const std::string& name) {
  PENSIEVE_TRY(const JsonFields tokens, fields.Object("special_tokens"));
  PENSIEVE_TRY(const JsonFields token, tokens.Object(name));
  PENSIEVE_TRY(const Json* values, token.Array("ids"));
  std::vector<int32_t> ids;
  for (const Json& value : *values) {
    PENSIEVE_TRY(const int32_t id, CheckedId(value, token.PlaceOf("ids")));
    ids.push_back(id);
  }
  return ids;
}

// The template of pairs: each text once and in order, token types that only grow, which is what models are made for.
Result<PairTemplate> BuildPairTemplate(const JsonFields& fields) {
  PairTemplate pair;
  if (fields.Find("pair") == nullptr) return pair;
  PENSIEVE_TRY(const Json* items, fields.Array("pair"));
  std::string order;
  int32_t last_type = 0;
  for (size_t i = 0; i < items->size(); ++i) {
    PENSIEVE_TRY(const JsonFields item, JsonFields::Of((*items)[i], fmt::format("{}[{}]", fields.PlaceOf("pair"), i)));
    const bool is_text = item.Find("Sequence") != nullptr;
    PENSIEVE_TRY(const JsonFields entry, item.Object(is_text ? "Sequence" : "SpecialToken"));
    PENSIEVE_TRY(const std::string name, entry.String("id"));
    PENSIEVE_TRY(const int64_t type, entry.IntegerOr("type_id", 0));
    PairPart part;
    if (is_text) {
      part.kind = name == "A" ? PairPart::Kind::kFirst : PairPart::Kind::kSecond;
      order += name;
    } else {
      PENSIEVE_TRY(part.ids, TemplateIds(fields, name));
    }
    if (type < last_type || type > 1) pair.problem = fmt::format("{} has unusual token types", fields.PlaceOf("pair"));
    part.type = last_type = type == 0 ? 0 : 1;
    pair.parts.push_back(std::move(part));
  }
  if (order != "AB") pair.problem = fmt::format("{} does not hold both texts in order", fields.PlaceOf("pair"));
  return pair;
}

Result<IdTemplate> BuildTemplate(const JsonFields& fields) {
  PENSIEVE_TRY(const Json* single, fields.Array("single"));
  IdTemplate built;
  int sequences = 0;
  for (size_t i = 0; i < single->size(); ++i) {
    PENSIEVE_TRY(const JsonFields item,
                 JsonFields::Of((*single)[i], fmt::format("{}[{}]", fields.PlaceOf("single"), i)));
    if (item.Find("Sequence") != nullptr) {
      ++sequences;
      continue;
    }
    PENSIEVE_TRY(const JsonFields token, item.Object("SpecialToken"));
    PENSIEVE_TRY(const std::string name, token.String("id"));
    PENSIEVE_TRY(const std::vector<int32_t> ids, TemplateIds(fields, name));
    auto& side = sequences == 0 ? built.prefix : built.suffix;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (sequences != 1) {
    return Unimplemented(fmt::format("{} with {} sequences is not supported", fields.PlaceOf("single"), sequences));
  }
  PENSIEVE_TRY(built.pair, BuildPairTemplate(fields));
  return built;
}

Status BuildStripDecoder(const JsonFields& fields, std::vector<DecoderStagePtr>& stages) {
  PENSIEVE_TRY(const char32_t content, ReadCharacter(fields, "content", " "));
  PENSIEVE_TRY(const int64_t start, fields.IntegerOr("start", 0));
  PENSIEVE_TRY(const int64_t stop, fields.IntegerOr("stop", 0));
  if (start < 0 || stop < 0) return DataLoss(fmt::format("{}: start and stop must not be negative", fields.place()));
  stages.push_back(MakeStripDecoder(content, static_cast<size_t>(start), static_cast<size_t>(stop)));
  return OkStatus();
}

Status BuildReplaceDecoder(const JsonFields& fields, std::vector<DecoderStagePtr>& stages) {
  PENSIEVE_TRY(Pattern pattern, ReadPattern(fields));
  PENSIEVE_TRY(std::string content, fields.String("content"));
  if (pattern.is_literal) {
    stages.push_back(MakeReplaceLiteralDecoder(std::move(pattern.text), std::move(content)));
    return OkStatus();
  }
  PENSIEVE_TRY(Regex regex, CompilePattern(fields, pattern));
  stages.push_back(MakeReplaceDecoder(std::move(regex), std::move(content)));
  return OkStatus();
}

Result<std::unique_ptr<Model>> BuildBpe(const JsonFields& fields, HfDocument& document) {
  BpeOptions options;
  options.merges = std::move(document.merges);
  PENSIEVE_TRY(options.unk_token, fields.OptionalString("unk_token"));
  PENSIEVE_TRY(options.continuing_subword_prefix, fields.StringOr("continuing_subword_prefix", ""));
  PENSIEVE_TRY(options.end_of_word_suffix, fields.StringOr("end_of_word_suffix", ""));
  PENSIEVE_TRY(options.byte_fallback, fields.BoolOr("byte_fallback", false));
  PENSIEVE_TRY(options.fuse_unk, fields.BoolOr("fuse_unk", false));
  PENSIEVE_TRY(options.ignore_merges, fields.BoolOr("ignore_merges", false));
  if (!document.has_merges) return fields.Malformed("merges", "an array");
  PENSIEVE_TRY(Vocabulary vocabulary, Vocabulary::Create(std::move(document.vocabulary)));
  // A file may name an unk token that its vocabulary lacks; it is then as if it named none.
  if (options.unk_token && vocabulary.Find(*options.unk_token) < 0) options.unk_token.reset();
  return CreateBpe(std::move(vocabulary), std::move(options));
}

Result<std::unique_ptr<Model>> BuildWordPiece(const JsonFields& fields, HfDocument& document) {
  WordPieceOptions options;
  PENSIEVE_TRY(options.unk_token, fields.StringOr("unk_token", options.unk_token));
  PENSIEVE_TRY(options.continuing_subword_prefix,
               fields.StringOr("continuing_subword_prefix", options.continuing_subword_prefix));
  PENSIEVE_TRY(options.max_input_chars_per_word,
               fields.IntegerOr("max_input_chars_per_word", options.max_input_chars_per_word));
  PENSIEVE_TRY(Vocabulary vocabulary, Vocabulary::Create(std::move(document.vocabulary)));
  return CreateWordPiece(std::move(vocabulary), std::move(options));
}

Result<std::unique_ptr<Model>> BuildUnigram(const JsonFields& fields, HfDocument& document) {
  UnigramOptions options;
  options.scores = std::move(document.scores);
  PENSIEVE_TRY(const int64_t unk_id, fields.IntegerOr("unk_id", -1));
  if (unk_id < -1 || unk_id > kTokenIdMax) return fields.Malformed("unk_id", "a token id");
  options.unk_id = static_cast<int32_t>(unk_id);
  PENSIEVE_TRY(options.byte_fallback, fields.BoolOr("byte_fallback", false));
  PENSIEVE_TRY(Vocabulary vocabulary,
               Vocabulary::Create(std::move(document.vocabulary), Vocabulary::Duplicates::kLastCounts));
  return CreateUnigram(std::move(vocabulary), std::move(options));
}

std::string InferModelType(const JsonFields& fields, const HfDocument& document) {
  if (document.has_merges) return "BPE";
  if (document.vocabulary_form == HfDocument::VocabularyForm::kArray) return "Unigram";
  const bool is_wordpiece =
      fields.Find("continuing_subword_prefix") != nullptr || fields.Find("max_input_chars_per_word") != nullptr;
  return is_wordpiece ? "WordPiece" : "WordLevel";
}

}  // namespace

Result<NormalizerPtr> BuildNormalizer(const JsonFields& fields) {
  PENSIEVE_TRY(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    PENSIEVE_TRY(auto parts, BuildAll<NormalizerPtr>(fields, "normalizers", BuildNormalizer));
    return MakeNormalizerSequence(std::move(parts));
  }
  if (type == "NFC") return MakeUnicodeNormalizer(NormalForm::kNfc);
  if (type == "NFD") return MakeUnicodeNormalizer(NormalForm::kNfd);
  if (type == "NFKC") return MakeUnicodeNormalizer(NormalForm::kNfkc);
  if (type == "NFKD") return MakeUnicodeNormalizer(NormalForm::kNfkd);
  if (type == "Lowercase") return MakeLowercaseNormalizer();
  if (type == "StripAccents") return MakeStripAccentsNormalizer();
  if (type == "ByteLevel") return MakeByteLevelNormalizer();
  if (type == "BertNormalizer") return BuildBertNormalizer(fields);
  if (type == "Strip") {
    PENSIEVE_TRY(const bool left, fields.BoolOr("strip_left", true));
    PENSIEVE_TRY(const bool right, fields.BoolOr("strip_right", true));
    return MakeStripNormalizer(left, right);
  }
  if (type == "Prepend") {
    PENSIEVE_TRY(std::string prefix, fields.String("prepend"));
    return MakePrependNormalizer(std::move(prefix));
  }
  if (type == "Replace") {
    PENSIEVE_TRY(const Pattern pattern, ReadPattern(fields));
    PENSIEVE_TRY(Regex regex, CompilePattern(fields, pattern));
    PENSIEVE_TRY(std::string content, fields.String("content"));
    return MakeReplaceNormalizer(std::move(regex), std::move(content));
  }
  if (type == "Precompiled") {
    PENSIEVE_TRY(const std::string encoded, fields.String("precompiled_charsmap"));
    const auto charsmap = DecodeBase64(encoded);
    if (!charsmap) return fields.Malformed("precompiled_charsmap", "base64");
    auto built = MakePrecompiledNormalizer(*charsmap);
    if (!built) return built.error().WithContext(fields.PlaceOf("precompiled_charsmap"));
    return built;
  }
  return UnknownType(fields, type);
}

Result<PreTokenizerPtr> BuildPreTokenizer(const JsonFields& fields) {
  PENSIEVE_TRY(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    PENSIEVE_TRY(auto parts, BuildAll<PreTokenizerPtr>(fields, "pretokenizers", BuildPreTokenizer));
    return MakePreTokenizerSequence(std::move(parts));
  }
  if (type == "Split") return BuildSplit(fields);
  if (type == "ByteLevel") return BuildByteLevel(fields);
  if (type == "Metaspace") return BuildMetaspace(fields);
  if (type == "Whitespace") return MakeWhitespacePreTokenizer();
  if (type == "WhitespaceSplit") return MakeCharacterPreTokenizer(IsWhitespace, SplitBehavior::kRemoved);
  if (type == "BertPreTokenizer") return BuildBertPreTokenizer();
  if (type == "Digits") {
    PENSIEVE_TRY(const bool individual, fields.BoolOr("individual_digits", false));
    return MakeCharacterPreTokenizer(IsNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  if (type == "Punctuation") {
    PENSIEVE_TRY(const SplitBehavior behavior, ReadBehavior(fields, "Isolated"));
    return MakeCharacterPreTokenizer(IsPunctuation, behavior);
  }
  if (type == "CharDelimiterSplit") {
    PENSIEVE_TRY(const char32_t delimiter, ReadCharacter(fields, "delimiter", ""));
    return MakeDelimiterPreTokenizer(delimiter);
  }
  return UnknownType(fields, type);
}

Result<IdTemplate> BuildPostProcessor(const JsonFields& fields) {
  PENSIEVE_TRY(const std::string type, fields.String("type"));
  if (type == "TemplateProcessing") return BuildTemplate(fields);
  if (type == "ByteLevel") return IdTemplate{};
  if (type == "BertProcessing" || type == "RobertaProcessing") return BuildClsSep(fields, type == "BertProcessing");
  if (type == "Sequence") {
    PENSIEVE_TRY(const auto parts, BuildAll<IdTemplate>(fields, "processors", BuildPostProcessor));
    IdTemplate whole;
    for (const IdTemplate& part : parts) {
      whole.prefix.insert(whole.prefix.begin(), part.prefix.begin(), part.prefix.end());
      whole.suffix.insert(whole.suffix.end(), part.suffix.begin(), part.suffix.end());
      if (part.pair.parts.empty()) continue;
      const bool is_second = !whole.pair.parts.empty();
      whole.pair = part.pair;
      if (is_second) whole.pair.problem = fmt::format("{} joins pairs twice", fields.PlaceOf("processors"));
    }
    return whole;
  }
  return UnknownType(fields, type);
}

Status BuildDecoder(const JsonFields& fields, std::vector<DecoderStagePtr>& stages) {
  PENSIEVE_TRY(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    PENSIEVE_TRY(const Json* parts, fields.Array("decoders"));
    for (size_t i = 0; i < parts->size(); ++i) {
      const std::string place = fmt::format("{}.decoders[{}]", fields.place(), i);
      PENSIEVE_TRY(const JsonFields part, JsonFields::Of((*parts)[i], place));
      PENSIEVE_RETURN_IF_ERROR(BuildDecoder(part, stages));
    }
    return OkStatus();
  }
  if (type == "Replace") return BuildReplaceDecoder(fields, stages);
  if (type == "Strip") return BuildStripDecoder(fields, stages);
  if (type == "ByteLevel") {
    stages.push_back(MakeByteLevelDecoder());
  } else if (type == "ByteFallback") {
    stages.push_back(MakeByteFallbackDecoder());
  } else if (type == "Fuse") {
    stages.push_back(MakeFuseDecoder());
  } else if (type == "Metaspace") {
    PENSIEVE_TRY(const char32_t replacement, ReadCharacter(fields, "replacement", MetaspaceOptions().replacement));
    PENSIEVE_TRY(const PrependScheme scheme, ReadPrependScheme(fields));
    stages.push_back(MakeMetaspaceDecoder(Utf8Of(replacement), scheme));
  } else if (type == "WordPiece") {
    PENSIEVE_TRY(std::string prefix, fields.StringOr("prefix", "##"));
    PENSIEVE_TRY(const bool cleanup, fields.BoolOr("cleanup", true));
    stages.push_back(MakeWordPieceDecoder(std::move(prefix), cleanup));
  } else if (type == "BPEDecoder") {
    PENSIEVE_TRY(std::string suffix, fields.StringOr("suffix", "</w>"));
    if (suffix.empty()) return DataLoss(fmt::format("{} is empty", fields.PlaceOf("suffix")));
    stages.push_back(MakeBpeDecoder(std::move(suffix)));
  } else {
    return UnknownType(fields, type);
  }
  return OkStatus();
}

Result<std::unique_ptr<Model>> BuildModel(const JsonFields& fields, HfDocument& document) {
  PENSIEVE_TRY(const std::string type, fields.StringOr("type", InferModelType(fields, document)));
  const bool wants_array = type == "Unigram";
  const auto form = wants_array ? HfDocument::VocabularyForm::kArray : HfDocument::VocabularyForm::kObject;
  if (type != "BPE" && type != "WordPiece" && type != "WordLevel" && type != "Unigram") {
    return UnknownType(fields, type);
  }
  if (document.vocabulary_form != form) {
    return DataLoss(fmt::format("{} is no {}", fields.PlaceOf("vocab"), wants_array ? "array" : "object"));
  }
  auto model = type == "BPE"         ? BuildBpe(fields, document)
               : type == "WordPiece" ? BuildWordPiece(fields, document)
               : type == "Unigram"   ? BuildUnigram(fields, document)
                                     : [&]() -> Result<std::unique_ptr<Model>> {
    PENSIEVE_TRY(const std::string unk_token, fields.StringOr("unk_token", "<unk>"));
    PENSIEVE_TRY(Vocabulary vocabulary, Vocabulary::Create(std::move(document.vocabulary)));
    return CreateWordLevel(std::move(vocabulary), unk_token);
  }();
  if (!model) return model.error().WithContext(fields.place());
  return model;
}

}  // namespace pensieve::tokenizer
