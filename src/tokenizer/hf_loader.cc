// tokenizer.json and tokenizer_config.json -> TokenizerParts.
#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_set>

#include "fmt/format.h"
#include "tokenizer/hf_components.h"
#include "tokenizer/tokenizer_parts.h"

namespace pensieve::tokenizer {
namespace {

Result<AddedToken> ReadAddedToken(const JsonFields& fields, int64_t id) {
  if (id < 0 || id > kTokenIdMax) {
    return DataLoss(fmt::format("{} {} is outside 0..{}", fields.PlaceOf("id"), id, kTokenIdMax));
  }
  AddedToken token;
  token.id = static_cast<int32_t>(id);
  PENSIEVE_TRY(token.content, fields.String("content"));
  PENSIEVE_TRY(token.single_word, fields.BoolOr("single_word", false));
  PENSIEVE_TRY(token.lstrip, fields.BoolOr("lstrip", false));
  PENSIEVE_TRY(token.rstrip, fields.BoolOr("rstrip", false));
  PENSIEVE_TRY(token.special, fields.BoolOr("special", false));
  PENSIEVE_TRY(token.normalized, fields.BoolOr("normalized", !token.special));
  return token;
}

Result<std::vector<AddedToken>> ReadAddedTokens(const JsonFields& root) {
  std::vector<AddedToken> tokens;
  if (root.Find("added_tokens") == nullptr) return tokens;
  PENSIEVE_TRY(const Json* entries, root.Array("added_tokens"));
  std::unordered_set<int32_t> ids;
  for (size_t i = 0; i < entries->size(); ++i) {
    PENSIEVE_TRY(const JsonFields entry, JsonFields::Of((*entries)[i], fmt::format("added_tokens[{}]", i)));
    PENSIEVE_TRY(const int64_t id, entry.Integer("id"));
    PENSIEVE_TRY(AddedToken token, ReadAddedToken(entry, id));
    if (!ids.insert(token.id).second) {
      return DataLoss(fmt::format("{} {} is given twice", entry.PlaceOf("id"), token.id));
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// tokenizer_config.json may add tokens that tokenizer.json lacks; where the two differ, tokenizer.json counts.
Status AddConfiguredTokens(const JsonFields& config, std::vector<AddedToken>& tokens,
                           std::vector<std::string>& warnings) {
  const Json* decoder = config.Find("added_tokens_decoder");
  if (decoder == nullptr) return OkStatus();
  PENSIEVE_TRY(const JsonFields fields, config.Object("added_tokens_decoder"));
  std::unordered_set<int32_t> ids;
  std::unordered_set<std::string> contents;
  for (const AddedToken& token : tokens) {
    ids.insert(token.id);
    contents.insert(token.content);
  }
  for (const auto& [key, value] : decoder->items()) {
    int64_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size()) {
      return DataLoss(fmt::format("{}: \"{}\" is no token id", fields.place(), key));
    }
    PENSIEVE_TRY(const JsonFields entry, JsonFields::Of(value, fields.PlaceOf(key)));
    PENSIEVE_TRY(AddedToken token, ReadAddedToken(entry, id));
    if (contents.contains(token.content)) continue;
    if (!ids.insert(token.id).second) {
      warnings.push_back(fmt::format("tokenizer_config.json gives id {} to \"{}\", tokenizer.json to another token",
                                     token.id, token.content));
      continue;
    }
    contents.insert(token.content);
    tokens.push_back(std::move(token));
  }
  return OkStatus();
}

// Takes tokens without a row in the embedding out of `tokens`, and out of the vocabulary where it lists them too.
// Vocabulary entries that are no added tokens stay: whoever loads the model refuses it.
void LeaveOutTokens(int64_t ids_end, std::vector<AddedToken>& tokens, HfDocument& document) {
  std::unordered_set<std::string> left_out;
  std::erase_if(tokens, [&](const AddedToken& token) {
    if (token.id < ids_end) return false;
    left_out.insert(token.content);
    return true;
  });
  if (left_out.empty()) return;
  const auto is_left_out = [&](const VocabularyEntry& entry) {
    return entry.id >= ids_end && left_out.contains(entry.text);
  };
  if (document.vocabulary_form == HfDocument::VocabularyForm::kObject) {
    std::erase_if(document.vocabulary, is_left_out);
    return;
  }
  while (!document.vocabulary.empty() && is_left_out(document.vocabulary.back())) {  // ids are places in a list
    document.vocabulary.pop_back();
    document.scores.pop_back();
  }
}

bool Lowercases(const JsonFields& root) {
  const Json* normalizer = root.Find("normalizer");
  if (normalizer == nullptr || !normalizer->is_object()) return false;
  const auto is_lowercasing = [](const Json& part) {
    const auto type = part.find("type");  // end() for what is no object
    if (type == part.end()) return false;
    const auto flag = part.find("lowercase");
    return *type == "Lowercase" || (*type == "BertNormalizer" && (flag == part.end() || *flag != false));
  };
  const auto parts = normalizer->find("normalizers");
  if (parts == normalizer->end() || !parts->is_array()) return is_lowercasing(*normalizer);
  return std::any_of(parts->begin(), parts->end(), is_lowercasing);
}

// bos_token and its like: a string, {"content": ...}, or null.
Result<std::optional<SpecialToken>> ReadSpecialToken(const JsonFields& config, const std::string& key,
                                                     const TokenizerParts& parts) {
  const Json* value = config.Find(key);
  if (value == nullptr) return std::optional<SpecialToken>();
  SpecialToken token;
  if (value->is_string()) {
    PENSIEVE_TRY(token.text, config.String(key));
  } else {
    PENSIEVE_TRY(const JsonFields fields, config.Object(key));
    PENSIEVE_TRY(token.text, fields.String("content"));
  }
  token.id = FindToken(parts, token.text);
  if (token.id < 0) return std::optional<SpecialToken>();
  return std::optional<SpecialToken>(std::move(token));
}

Status ReadSpecialTokens(const JsonFields& config, TokenizerParts& parts) {
  SpecialTokens& special = parts.special;
  const std::array<std::pair<const char*, std::optional<SpecialToken>*>, 7> targets = {{
      {"bos_token", &special.bos},
      {"eos_token", &special.eos},
      {"unk_token", &special.unk},
      {"pad_token", &special.pad},
      {"cls_token", &special.cls},
      {"sep_token", &special.sep},
      {"mask_token", &special.mask},
  }};
  for (const auto& [key, target] : targets) { PENSIEVE_TRY(*target, ReadSpecialToken(config, key, parts)); }
  return OkStatus();
}

// The Llama and Gemma classes rebuild the template from these flags when tokenizer_config.json has them.
Status ApplyBosEosFlags(const JsonFields& config, TokenizerParts& parts) {
  static constexpr std::array<std::string_view, 7> kClasses = {
      "LlamaTokenizer",     "LlamaTokenizerFast",     "GemmaTokenizer",     "GemmaTokenizerFast",
      "CodeLlamaTokenizer", "CodeLlamaTokenizerFast", "CohereTokenizerFast"};
  PENSIEVE_TRY(const std::string name, config.StringOr("tokenizer_class", ""));
  if (std::find(kClasses.begin(), kClasses.end(), name) == kClasses.end()) return OkStatus();
  const auto apply = [&config](const char* key, const std::optional<SpecialToken>& token,
                               std::vector<int32_t>& ids) -> Status {
    if (config.Find(key) == nullptr) return OkStatus();
    PENSIEVE_TRY(const bool wanted, config.BoolOr(key, false));
    ids.clear();
    if (!wanted) return OkStatus();
    if (!token) return DataLoss(fmt::format("tokenizer_config.json: {} is true, but the token is not known", key));
    ids.push_back(token->id);
    return OkStatus();
  };
  PENSIEVE_RETURN_IF_ERROR(apply("add_bos_token", parts.special.bos, parts.prefix_ids));
  return apply("add_eos_token", parts.special.eos, parts.suffix_ids);
}

Status ReadComponents(const JsonFields& root, HfDocument& document, TokenizerParts& parts) {
  if (root.Find("normalizer") != nullptr) {
    PENSIEVE_TRY(const JsonFields fields, root.Object("normalizer"));
    PENSIEVE_TRY(parts.normalizer, BuildNormalizer(fields));
  }
  if (root.Find("pre_tokenizer") != nullptr) {
    PENSIEVE_TRY(const JsonFields fields, root.Object("pre_tokenizer"));
    PENSIEVE_TRY(parts.pre_tokenizer, BuildPreTokenizer(fields));
  }
  PENSIEVE_TRY(const JsonFields model, root.Object("model"));
  PENSIEVE_TRY(parts.model, BuildModel(model, document));
  if (root.Find("post_processor") != nullptr) {
    PENSIEVE_TRY(const JsonFields fields, root.Object("post_processor"));
    PENSIEVE_TRY(IdTemplate ids, BuildPostProcessor(fields));
    parts.prefix_ids = std::move(ids.prefix);
    parts.suffix_ids = std::move(ids.suffix);
    parts.pair = std::move(ids.pair);
  }
  if (root.Find("decoder") == nullptr) {
    parts.decoder.push_back(MakeJoinDecoder());
    return OkStatus();
  }
  PENSIEVE_TRY(const JsonFields fields, root.Object("decoder"));
  return BuildDecoder(fields, parts.decoder);
}

void PutFirst(NormalizerPtr first, NormalizerPtr& normalizer) {
  std::vector<NormalizerPtr> steps;
  steps.push_back(std::move(first));
  if (normalizer != nullptr) steps.push_back(std::move(normalizer));
  normalizer = MakeNormalizerSequence(std::move(steps));
}

}  // namespace

Result<TokenizerParts> LoadHuggingFace(std::string_view tokenizer_json, const Json& tokenizer_config,
                                       const TokenizerOptions& options) {
  PENSIEVE_TRY(HfDocument document, ParseHfDocument(tokenizer_json));
  PENSIEVE_TRY(const JsonFields root, JsonFields::Of(document.root, ""));
  TokenizerParts parts;
  PENSIEVE_TRY(std::vector<AddedToken> added, ReadAddedTokens(root));
  const Json no_config = Json::object();
  PENSIEVE_TRY(const JsonFields config,
               JsonFields::Of(tokenizer_config.is_null() ? no_config : tokenizer_config, "tokenizer_config.json"));
  PENSIEVE_RETURN_IF_ERROR(AddConfiguredTokens(config, added, parts.warnings));
  LeaveOutTokens(options.ids_end, added, document);
  PENSIEVE_RETURN_IF_ERROR(ReadComponents(root, document, parts));
  if (options.lowercase && !Lowercases(root)) PutFirst(MakeLowercaseNormalizer(), parts.normalizer);
  const Normalizer* normalizer = parts.normalizer.get();
  parts.added =
      AddedTokens(std::move(added), [normalizer](std::string_view text) { return NormalizePiece(normalizer, text); });
  PENSIEVE_RETURN_IF_ERROR(ReadSpecialTokens(config, parts));
  PENSIEVE_RETURN_IF_ERROR(ApplyBosEosFlags(config, parts));
  const auto& special = parts.special;
  parts.special.add_bos = special.bos && !parts.prefix_ids.empty() && parts.prefix_ids.front() == special.bos->id;
  parts.special.add_eos = special.eos && !parts.suffix_ids.empty() && parts.suffix_ids.back() == special.eos->id;
  CollectEndOfGeneration({}, parts);
  return parts;
}

}  // namespace pensieve::tokenizer
