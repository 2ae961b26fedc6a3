// GGUF's tokenizer metadata -> TokenizerParts. The file stores vocabularies and names; the split patterns behind the
// names are known here.
#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "fmt/format.h"
#include "formats/printable.h"
#include "tokenizer/tokenizer_parts.h"

namespace pensieve::tokenizer {
namespace {

enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

constexpr const char* kGpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr const char* kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kQwen2 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kQwen35 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kO200k =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kTekken =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kDeepseek3 =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// DeepSeek-LLM names its letters one by one: the cased letters of scripts that had case when it was made.
constexpr const char* kDeepseekLetters =
    "\\s?(?:(?![\\x{560}\\x{588}\\x{10c7}-\\x{10ff}\\x{1c80}-\\x{1c88}\\x{2d00}-\\x{2d2d}\\x{a78f}-\\x{a7ff}"
    "\\x{ab30}-\\x{ab6f}\\x{10570}-\\x{105bc}\\x{16e40}-\\x{16e7f}\\x{1d400}-\\x{1df2a}])[\\p{Lu}\\p{Ll}\\p{Lt}])+";
constexpr const char* kDeepseekPunctuation = "\\s?[!-/:-~！-／：-～‘-‟\\x{3000}-。]+";

// One way to split; patterns are applied one after the other, each to what the one before left.
struct Splitting {
  std::array<const char*, 7> patterns{};  // null: no more
  bool individual_digits = false;         // before the patterns
  bool ignore_merges = false;
  bool add_bos = false;  // unless the file says otherwise
  bool nfc = false;      // the tokenizer.json of these models composes characters first; no GGUF field says so
};

struct NamedSplitting {
  std::string_view name;
  Splitting splitting;
};

constexpr Splitting kLlama3Splitting{{kLlama3}, false, true, true};
constexpr Splitting kQwen2Splitting{{kQwen2}, false, false, false, /*nfc=*/true};
constexpr Splitting kQwen2PlainSplitting{{kQwen2}, false, false, false};
constexpr Splitting kO200kSplitting{{kO200k}, false, false, false};
constexpr Splitting kGpt2Splitting{{kGpt2}, false, false, false};
constexpr Splitting kGptNeoxSplitting{{kGpt2}, false, false, false, /*nfc=*/true};
constexpr Splitting kDigitsSplitting{{kGpt2}, true, false, false};
// What files without (or with an unknown) pattern name are split by.
constexpr Splitting kDefaultSplitting{
    {"[\\p{P}\\$\\+<=>\\^~\\|]+", kGpt2, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false, false};

constexpr std::array kSplittings = std::to_array<NamedSplitting>({
    {"llama-bpe", kLlama3Splitting},
    {"llama3", kLlama3Splitting},
    {"llama-v3", kLlama3Splitting},
    {"falcon3", kLlama3Splitting},
    {"falcon-h1", kLlama3Splitting},
    {"midm-2.0", kLlama3Splitting},
    {"lfm2", kLlama3Splitting},
    {"pixtral", kLlama3Splitting},
    {"chatglm-bpe", {{kLlama3}, false, false, false}},
    {"glm4", {{kLlama3}, false, false, false}},
    {"dbrx", {{kLlama3}, false, false, false}},
    {"smaug-bpe", {{kLlama3}, false, false, false}},
    {"qwen2", kQwen2Splitting},
    {"deepseek-r1-qwen", kQwen2Splitting},
    {"stablelm2", kQwen2Splitting},
    {"hunyuan", kQwen2Splitting},
    {"megrez", kQwen2PlainSplitting},
    {"kormo", kQwen2PlainSplitting},
    {"qwen35", {{kQwen35}, false, false, false, /*nfc=*/true}},
    {"gpt-4o", kO200kSplitting},
    {"llama4", kO200kSplitting},
    {"kanana2", kO200kSplitting},
    {"tekken", {{kTekken}, false, true, true}},
    {"smollm", kDigitsSplitting},
    {"starcoder", kDigitsSplitting},
    {"command-r", {{kGpt2}, true, false, false, /*nfc=*/true}},
    {"refact", kDigitsSplitting},
    {"codeshell", kDigitsSplitting},
    {"exaone", kDigitsSplitting},
    {"minerva-7b", kDigitsSplitting},
    {"gpt-2", kGpt2Splitting},
    {"phi-2", kGpt2Splitting},
    {"mpt", kGptNeoxSplitting},
    {"olmo", kGptNeoxSplitting},
    {"modern-bert", kGptNeoxSplitting},
    {"jina-es", kGpt2Splitting},
    {"jina-de", kGpt2Splitting},
    {"jina-v1-en", kGpt2Splitting},
    {"jina-v2-es", kGpt2Splitting},
    {"jina-v2-de", kGpt2Splitting},
    {"jina-v2-code", kGpt2Splitting},
    {"jais", kGpt2Splitting},
    {"trillion", kGpt2Splitting},
    {"exaone4", kGpt2Splitting},
    {"gigachat", kGpt2Splitting},
    {"a.x-4.0", kGpt2Splitting},
    {"mellum", kGpt2Splitting},
    {"roberta-bpe", kGpt2Splitting},
    {"deepseek-v3", {{"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", kDeepseek3}, false, false, false}},
    {"deepseek-llm",
     {{"[\\r\\n]", kDeepseekLetters, kDeepseekPunctuation, "\\s+$", "[一-龥ࠀ-一가-퟿]+", "\\p{N}+"},
      false,
      false,
      false}},
    {"deepseek-coder",
     {{"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"}, false, false, false}},
    {"falcon", {{"[\\p{P}\\$\\+<=>\\^~\\|`]+", kGpt2, "[0-9][0-9][0-9]"}, false, false, false}},
    {"default", kDefaultSplitting},
    {"", kDefaultSplitting},
});

int32_t TypeOf(const GgufVocabulary& source, size_t id) {
  return source.token_types.empty() ? kNormal : source.token_types[id];
}

Status CheckShape(const GgufVocabulary& source) {
  if (source.tokens.empty()) return DataLoss("tokenizer.ggml.tokens is missing or empty");
  if (source.tokens.size() > static_cast<size_t>(kTokenIdMax)) {
    return DataLoss(
        fmt::format("tokenizer.ggml.tokens has {} entries, more than {}", source.tokens.size(), kTokenIdMax));
  }
  if (!source.token_types.empty() && source.token_types.size() != source.tokens.size()) {
    return DataLoss(fmt::format("tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {}",
                                source.token_types.size(), source.tokens.size()));
  }
  return OkStatus();
}

Result<Vocabulary> BuildVocabulary(std::vector<std::string> tokens) {
  std::vector<VocabularyEntry> entries;
  entries.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    entries.push_back({ToValidUtf8(tokens[id]), static_cast<int64_t>(id)});
  }
  return Vocabulary::Create(std::move(entries), Vocabulary::Duplicates::kLastCounts);
}

// Phi-3's chat tokens swallow the whitespace behind them; GGUF has no field for that.
bool IsPhi3(const GgufVocabulary& source) {
  const auto has = [&source](std::string_view token) {
    return std::find(source.tokens.begin(), source.tokens.end(), token) != source.tokens.end();
  };
  return source.model == "llama" && has("<|placeholder1|>") && has("<|assistant|>") && has("<|end|>");
}

// How many tokens are left without those behind the embedding's last row. Only tokens that are found in the text before
// the model sees it can be left out: where others are among them, all stay, and whoever loads the model refuses it.
size_t TokensWithRows(const GgufVocabulary& source, int64_t ids_end) {
  const size_t all = source.tokens.size();
  if (ids_end >= static_cast<int64_t>(all)) return all;
  const auto end = static_cast<size_t>(ids_end);
  for (size_t id = end; id < all; ++id) {
    const int32_t type = TypeOf(source, id);
    if (type == kNormal || type == kByte) return all;
  }
  return end;
}

AddedTokens CollectAddedTokens(const GgufVocabulary& source, size_t tokens_end) {
  const bool phi3 = IsPhi3(source);
  std::vector<AddedToken> added;
  for (size_t id = 0; id < tokens_end; ++id) {
    const int32_t type = TypeOf(source, id);
    if (type != kControl && type != kUserDefined && type != kUnknown) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = source.tokens[id];
    token.normalized = false;
    token.special = type != kUserDefined;
    token.rstrip = phi3 && type == kControl && token.content != "<s>" && token.content != "<|endoftext|>";
    added.push_back(std::move(token));
  }
  return AddedTokens(std::move(added), [](std::string_view text) { return std::string(text); });
}

// Nothing for tokens that were left out.
Result<std::optional<SpecialToken>> ReadId(std::optional<int64_t> id, std::string_view key,
                                           const GgufVocabulary& source, size_t tokens_end) {
  if (!id) return std::optional<SpecialToken>();
  if (*id < 0 || *id >= static_cast<int64_t>(source.tokens.size())) {
    // Some converters write -1 or 2^32-1 for "none".
    if (*id == -1 || *id == 0xFFFFFFFFll) return std::optional<SpecialToken>();
    return DataLoss(fmt::format("tokenizer.ggml.{} is {}, outside the {} tokens", key, *id, source.tokens.size()));
  }
  if (static_cast<size_t>(*id) >= tokens_end) return std::optional<SpecialToken>();
  return std::optional<SpecialToken>(SpecialToken{static_cast<int32_t>(*id), source.tokens[static_cast<size_t>(*id)]});
}

Status ReadSpecialTokens(const GgufVocabulary& source, size_t tokens_end, TokenizerParts& parts) {
  SpecialTokens& special = parts.special;
  PENSIEVE_TRY(special.bos, ReadId(source.bos_id, "bos_token_id", source, tokens_end));
  PENSIEVE_TRY(special.eos, ReadId(source.eos_id, "eos_token_id", source, tokens_end));
  PENSIEVE_TRY(special.unk, ReadId(source.unk_id, "unknown_token_id", source, tokens_end));
  PENSIEVE_TRY(special.pad, ReadId(source.pad_id, "padding_token_id", source, tokens_end));
  PENSIEVE_TRY(special.cls, ReadId(source.cls_id, "cls_token_id", source, tokens_end));
  PENSIEVE_TRY(special.sep, ReadId(source.sep_id, "seperator_token_id", source, tokens_end));
  PENSIEVE_TRY(special.mask, ReadId(source.mask_id, "mask_token_id", source, tokens_end));
  std::vector<int32_t> ends;
  std::vector<std::pair<std::optional<int64_t>, const char*>> ids = {{source.eot_id, "eot_token_id"},
                                                                     {source.eom_id, "eom_token_id"}};
  for (const int64_t id : source.eos_ids) ids.emplace_back(id, "eos_token_ids");
  for (const auto& [id, key] : ids) {
    PENSIEVE_TRY(const auto token, ReadId(id, key, source, tokens_end));
    if (token) ends.push_back(token->id);
  }
  CollectEndOfGeneration(std::move(ends), parts);
  return OkStatus();
}

// bos and eos around the text; `bos_default` where the file does not say.
Status ApplyTemplate(const GgufVocabulary& source, bool bos_default, TokenizerParts& parts) {
  SpecialTokens& special = parts.special;
  special.add_bos = source.add_bos.value_or(bos_default) && special.bos.has_value();
  special.add_eos = source.add_eos.value_or(false) && special.eos.has_value();
  if (source.add_bos.value_or(false) && !special.bos) {
    return DataLoss("tokenizer.ggml.add_bos_token is true, but there is no bos_token_id");
  }
  if (special.add_bos) parts.prefix_ids = {special.bos->id};
  if (special.add_eos) parts.suffix_ids = {special.eos->id};
  return OkStatus();
}

Result<PreTokenizerPtr> BuildSplitting(const Splitting& splitting) {
  std::vector<PreTokenizerPtr> steps;
  if (splitting.individual_digits) steps.push_back(MakeCharacterPreTokenizer(IsNumeric, SplitBehavior::kIsolated));
  for (const char* pattern : splitting.patterns) {
    if (pattern == nullptr) break;
    PENSIEVE_TRY(Regex regex, Regex::Compile(pattern));
    steps.push_back(MakeSplitPreTokenizer(std::move(regex), SplitBehavior::kIsolated, false));
  }
  PENSIEVE_TRY(PreTokenizerPtr byte_level, MakeByteLevelPreTokenizer(false, false));
  steps.push_back(std::move(byte_level));
  return MakePreTokenizerSequence(std::move(steps));
}

Status LoadByteLevelBpe(GgufVocabulary& source, TokenizerParts& parts) {
  const auto* named = std::find_if(kSplittings.begin(), kSplittings.end(),
                                   [&source](const NamedSplitting& known) { return known.name == source.pre; });
  Splitting splitting = kDefaultSplitting;
  if (named != kSplittings.end()) {
    splitting = named->splitting;
  } else {
    parts.warnings.push_back(
        fmt::format("tokenizer.ggml.pre \"{}\" is not known: words are split by a default pattern, so token ids may "
                    "differ from those "
                    "that the model was trained with, and answers may be worse",
                    formats::Printable(source.pre, 60)));
  }
  if (splitting.nfc) parts.normalizer = MakeUnicodeNormalizer(NormalForm::kNfc);
  PENSIEVE_TRY(parts.pre_tokenizer, BuildSplitting(splitting));
  BpeOptions options;
  options.ignore_merges = splitting.ignore_merges;
  options.merges.reserve(source.merges.size());
  for (size_t i = 0; i < source.merges.size(); ++i) {
    const std::string& line = source.merges[i];
    const size_t space = line.find(' ', 1);
    if (line.empty() || space == std::string::npos || space + 1 == line.size()) {
      return DataLoss(fmt::format("tokenizer.ggml.merges[{}] is not two tokens with a space between", i));
    }
    options.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  PENSIEVE_TRY(Vocabulary vocabulary, BuildVocabulary(std::move(source.tokens)));
  auto model = CreateBpe(std::move(vocabulary), std::move(options));
  if (!model) return model.error().WithContext("tokenizer.ggml");
  parts.model = *std::move(model);
  parts.decoder.push_back(MakeByteLevelDecoder());
  return ApplyTemplate(source, splitting.add_bos, parts);
}

Status LoadScoredBpe(GgufVocabulary& source, TokenizerParts& parts) {
  std::vector<NormalizerPtr> steps;
  const bool add_space_prefix = source.add_space_prefix.value_or(true);
  if (add_space_prefix) steps.push_back(MakePrependNormalizer(" "));
  PENSIEVE_TRY(Regex space, Regex::Literal(" "));
  steps.push_back(MakeReplaceNormalizer(std::move(space), "\xE2\x96\x81"));
  parts.normalizer = MakeNormalizerSequence(std::move(steps));

  ScoredBpeOptions options;
  options.scores = std::move(source.scores);
  for (const float score : options.scores) {
    if (score != score) return DataLoss("tokenizer.ggml.scores holds a value that is no number");
  }
  options.unk_id = parts.special.unk ? parts.special.unk->id : -1;
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const int32_t type = TypeOf(source, id);
    options.kinds.push_back(type == kNormal || type == kUserDefined ? ScoredTokenKind::kMergeable
                            : type == kUnused                       ? ScoredTokenKind::kUnused
                                                                    : ScoredTokenKind::kReserved);
  }
  PENSIEVE_TRY(Vocabulary vocabulary, BuildVocabulary(std::move(source.tokens)));
  auto model = CreateScoredBpe(std::move(vocabulary), std::move(options));
  if (!model) return model.error().WithContext("tokenizer.ggml");
  parts.model = *std::move(model);
  parts.decoder.push_back(MakeReplaceLiteralDecoder("\xE2\x96\x81", " "));
  parts.decoder.push_back(MakeByteFallbackDecoder());
  parts.decoder.push_back(MakeFuseDecoder());
  if (add_space_prefix) parts.decoder.push_back(MakeStripDecoder(' ', 1, 0));
  return ApplyTemplate(source, true, parts);
}

// GGUF writes word starts as "▁word" and continuations bare; the model wants "word" and "##word".
std::string WordPieceSpelling(const std::string& token, int32_t type) {
  constexpr std::string_view kSpace = "\xE2\x96\x81";
  if (type != kNormal || (token.starts_with('[') && token.ends_with(']'))) return token;
  return token.starts_with(kSpace) ? token.substr(kSpace.size()) : "##" + token;
}

// The file does not say whether text is lowercased: a vocabulary with capitals could not be used if it were.
bool HasCapitals(const GgufVocabulary& source) {
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    const std::string& token = source.tokens[id];
    if (TypeOf(source, id) != kNormal || token.starts_with('[')) continue;
    if (std::any_of(token.begin(), token.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) return true;
  }
  return false;
}

Status LoadWordPiece(GgufVocabulary& source, TokenizerParts& parts) {
  const bool lowercase = !HasCapitals(source);
  parts.normalizer = MakeBertNormalizer({.strip_accents = lowercase, .lowercase = lowercase});
  std::vector<PreTokenizerPtr> steps;
  steps.push_back(MakeCharacterPreTokenizer(IsWhitespace, SplitBehavior::kRemoved));
  steps.push_back(MakeCharacterPreTokenizer(IsPunctuation, SplitBehavior::kIsolated));
  parts.pre_tokenizer = MakePreTokenizerSequence(std::move(steps));
  for (size_t id = 0; id < source.tokens.size(); ++id) {
    source.tokens[id] = WordPieceSpelling(source.tokens[id], TypeOf(source, id));
  }
  WordPieceOptions options;
  SpecialTokens& special = parts.special;
  if (special.unk) options.unk_token = special.unk->text;
  PENSIEVE_TRY(Vocabulary vocabulary, BuildVocabulary(std::move(source.tokens)));
  auto model = CreateWordPiece(std::move(vocabulary), std::move(options));
  if (!model) return model.error().WithContext("tokenizer.ggml");
  parts.model = *std::move(model);
  parts.decoder.push_back(MakeWordPieceDecoder("##", true));
  // Files name [CLS] and [SEP] under several keys, or only in the vocabulary.
  const auto pick = [&parts](std::optional<SpecialToken>& first, const std::optional<SpecialToken>& second,
                             const char* name) {
    if (!first) first = second;
    const int32_t id = FindToken(parts, name);
    if (!first && id >= 0) first = SpecialToken{id, name};
    return first ? std::vector<int32_t>{first->id} : std::vector<int32_t>{};
  };
  const std::vector<int32_t> cls = pick(special.cls, special.bos, "[CLS]");
  const std::vector<int32_t> sep = pick(special.sep, special.eos, "[SEP]");
  special.add_bos = source.add_bos.value_or(true);
  special.add_eos = source.add_eos.value_or(true);
  if (special.add_bos) parts.prefix_ids = cls;
  if (special.add_eos) parts.suffix_ids = sep;
  using Kind = PairPart::Kind;
  parts.pair.parts = {{Kind::kIds, parts.prefix_ids, 0},
                      {Kind::kFirst, {}, 0},
                      {Kind::kIds, sep, 0},
                      {Kind::kSecond, {}, 1},
                      {Kind::kIds, parts.suffix_ids, 1}};
  return OkStatus();
}

}  // namespace

Result<TokenizerParts> LoadGguf(GgufVocabulary source, const TokenizerOptions& options) {
  PENSIEVE_RETURN_IF_ERROR(CheckShape(source));
  TokenizerParts parts;
  const size_t tokens_end = TokensWithRows(source, options.ids_end);
  parts.added = CollectAddedTokens(source, tokens_end);
  PENSIEVE_RETURN_IF_ERROR(ReadSpecialTokens(source, tokens_end, parts));
  source.tokens.resize(tokens_end);
  if (!source.token_types.empty()) source.token_types.resize(tokens_end);
  if (source.scores.size() > tokens_end) source.scores.resize(tokens_end);
  if (source.model == "gpt2") {
    PENSIEVE_RETURN_IF_ERROR(LoadByteLevelBpe(source, parts));
  } else if (source.model == "llama") {
    PENSIEVE_RETURN_IF_ERROR(LoadScoredBpe(source, parts));
  } else if (source.model == "bert") {
    PENSIEVE_RETURN_IF_ERROR(LoadWordPiece(source, parts));
  } else {
    return Unimplemented(fmt::format("tokenizer.ggml.model \"{}\" is not supported", source.model));
  }
  return parts;
}

}  // namespace pensieve::tokenizer
