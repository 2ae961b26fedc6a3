#include "model/text_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/mapped_file.h"
#include "formats/config_fields.h"
#include "formats/foreign_file.h"
#include "model/config_limits.h"
#include "model/model_files.h"
#include "tokenizer/gguf_vocabulary.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
using formats::ConfigFields;
using formats::GgufFields;
using formats::GgufFile;

constexpr size_t kTokenizerBytesMax = 256 << 20;
constexpr size_t kTokenizerConfigBytesMax = 64 << 20;
constexpr size_t kTemplateBytesMax = 4 << 20;

// Tokens that end a turn wherever they exist as special tokens. "<|end|>" is not among them: gpt-oss ends messages
// with it, and where it ends turns (Phi-3) the configuration says so.
constexpr std::array<std::string_view, 8> kTurnEnds = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>",
                                                       "<turn|>",    "<|return|>", "<|call|>",   "<|endoftext|>"};

// Ids of the files, of the tokenizer and of well-known turn ends, ascending and once each.
std::vector<int32_t> StopIds(const std::vector<int64_t>& configured, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int32_t> ids = tokenizer.special().eog_ids;
  for (const int64_t id : configured) ids.push_back(static_cast<int32_t>(id));
  for (const std::string_view name : kTurnEnds) {
    const auto id = tokenizer.TokenToId(name);
    if (id && tokenizer.IsSpecial(*id)) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// A template given by the user replaces all the model brings.
Status OverrideTemplate(const std::string& template_file, ModelText& text) {
  if (template_file.empty()) return OkStatus();
  PENSIEVE_TRY(text.chat_template, ReadFile(template_file, kTemplateBytesMax));
  text.tool_template.clear();
  return OkStatus();
}

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// "chat_template" is a string or a list of {name, template}.
Status ReadTemplateField(const ConfigFields& fields, ModelText& text) {
  const Json* value = fields.Find("chat_template");
  if (value == nullptr) return OkStatus();
  if (value->is_string()) {
    text.chat_template = value->get<std::string>();
    return OkStatus();
  }
  if (!value->is_array()) return fields.Error("chat_template", "must be a string or a list of named templates");
  for (const Json& entry : *value) {
    ConfigFields named(fields.place(), entry, "chat_template[].");
    const std::string name = named.String("name", "");
    const std::string source = named.String("template", "");
    PENSIEVE_RETURN_IF_ERROR(named.status());
    if (name == "default") text.chat_template = source;
    if (name == "tool_use") text.tool_template = source;
  }
  return OkStatus();
}

// Lowest priority first, so that later ones replace: chat_template.json, tokenizer_config.json, chat_template.jinja.
Status ReadHfTemplates(const fs::path& directory, const ConfigFields& tokenizer_config, ModelText& text) {
  const std::string json_path = (directory / "chat_template.json").string();
  if (Exists(json_path)) {
    PENSIEVE_TRY(const Json json, formats::ReadJsonObject(json_path, kTemplateBytesMax));
    PENSIEVE_RETURN_IF_ERROR(ReadTemplateField(ConfigFields(json_path, json), text));
  }
  PENSIEVE_RETURN_IF_ERROR(ReadTemplateField(tokenizer_config, text));
  const fs::path jinja = directory / "chat_template.jinja";
  if (Exists(jinja)) { PENSIEVE_TRY(text.chat_template, ReadFile(jinja.string(), kTemplateBytesMax)); }
  const fs::path tool_use = directory / "additional_chat_templates" / "tool_use.jinja";
  if (Exists(tool_use)) { PENSIEVE_TRY(text.tool_template, ReadFile(tool_use.string(), kTemplateBytesMax)); }
  return OkStatus();
}

// --- GGUF
// -------------------------------------------------------------------------------------------------------------

std::vector<std::string> CopyStrings(GgufFields& fields, std::string_view key) {
  const auto* strings = fields.Strings(key);
  if (strings == nullptr) return {};
  return std::vector<std::string>(strings->begin(), strings->end());
}

Result<tokenizer::GgufVocabulary> ReadVocabulary(const GgufFile& file) {
  GgufFields fields(file);
  const auto key = [](std::string_view name) { return fmt::format("tokenizer.ggml.{}", name); };
  const auto id = [&](std::string_view name) -> std::optional<int64_t> {
    return fields.OptionalInt(key(name), {-1, INT64_MAX});
  };
  tokenizer::GgufVocabulary vocabulary;
  vocabulary.model = fields.String(key("model"), "");
  if (vocabulary.model.empty()) fields.Fail(fields.Error(key("model"), "is missing: the file has no tokenizer"));
  vocabulary.pre = fields.String(key("pre"), "");
  vocabulary.tokens = CopyStrings(fields, key("tokens"));
  vocabulary.merges = CopyStrings(fields, key("merges"));
  if (vocabulary.model == "llama" || fields.Has(key("scores"))) {
    if (const auto* scores = fields.Floats(key("scores"))) vocabulary.scores.assign(scores->begin(), scores->end());
  }
  if (const auto* types = fields.Ints(key("token_type"))) vocabulary.token_types.assign(types->begin(), types->end());
  if (fields.Has(key("eos_token_ids"))) {
    if (const auto* ids = fields.Ints(key("eos_token_ids"))) vocabulary.eos_ids = *ids;
  }
  vocabulary.bos_id = id("bos_token_id");
  vocabulary.eos_id = id("eos_token_id");
  vocabulary.eot_id = id("eot_token_id");
  vocabulary.eom_id = id("eom_token_id");
  vocabulary.unk_id = id("unknown_token_id");
  vocabulary.sep_id = id("seperator_token_id");  // the format's own spelling
  if (!vocabulary.sep_id) vocabulary.sep_id = id("separator_token_id");
  vocabulary.pad_id = id("padding_token_id");
  vocabulary.cls_id = id("cls_token_id");
  vocabulary.mask_id = id("mask_token_id");
  vocabulary.add_bos = fields.OptionalBool(key("add_bos_token"));
  vocabulary.add_eos = fields.OptionalBool(key("add_eos_token"));
  vocabulary.add_space_prefix = fields.OptionalBool(key("add_space_prefix"));
  vocabulary.remove_extra_whitespaces = fields.OptionalBool(key("remove_extra_whitespaces"));
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return vocabulary;
}

// Errors of a missing or foreign file say what lies there instead.
Result<std::unique_ptr<tokenizer::Tokenizer>> ReadTokenizerJson(const std::string& path, const Json& tokenizer_config,
                                                                const tokenizer::TokenizerOptions& options) {
  if (!Exists(path)) return MissingTokenizer(fs::path(path).parent_path().string());
  PENSIEVE_TRY(const std::string text, ReadFile(path, kTokenizerBytesMax));
  const auto foreign = formats::ExplainForeignFile(path, std::as_bytes(std::span(text)), formats::FileFormat::kJson);
  if (foreign) return *foreign;
  return tokenizer::Tokenizer::FromHuggingFace(text, tokenizer_config, path, options);
}

Result<Json> ReadTokenizerConfig(const fs::path& directory) {
  const std::string path = (directory / "tokenizer_config.json").string();
  return Exists(path) ? formats::ReadJsonObject(path, kTokenizerConfigBytesMax) : Json();
}

tokenizer::TokenizerOptions OptionsOf(const HfModel& model) {
  return {.ids_end = model.config.vocab_size, .lowercase = model.lowercases};
}

Result<std::unique_ptr<tokenizer::Tokenizer>> ReadGgufTokenizer(const GgufFile& file) {
  PENSIEVE_TRY(tokenizer::GgufVocabulary vocabulary, ReadVocabulary(file));
  tokenizer::TokenizerOptions options;
  const formats::GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding != nullptr && embedding->shape.size() == 2) options.ids_end = embedding->shape[0];
  return tokenizer::Tokenizer::FromGguf(std::move(vocabulary), file.files().front().path(), options);
}

}  // namespace

Result<ModelText> ReadHfText(const std::string& directory, const HfModel& model, const std::string& template_file) {
  const fs::path base(directory);
  PENSIEVE_TRY(const Json tokenizer_config, ReadTokenizerConfig(base));
  ModelText text;
  PENSIEVE_TRY(text.tokenizer,
               ReadTokenizerJson((base / "tokenizer.json").string(), tokenizer_config, OptionsOf(model)));
  const ConfigFields fields((base / "tokenizer_config.json").string(), tokenizer_config);
  PENSIEVE_RETURN_IF_ERROR(ReadHfTemplates(base, fields, text));
  PENSIEVE_RETURN_IF_ERROR(OverrideTemplate(template_file, text));
  text.stop_ids = StopIds(model.eos_ids, *text.tokenizer);
  text.defaults = model.defaults;
  return text;
}

Result<ModelText> ReadGgufText(const GgufFile& file, const std::string& template_file) {
  ModelText text;
  PENSIEVE_TRY(text.tokenizer, ReadGgufTokenizer(file));
  GgufFields fields(file);
  text.chat_template = fields.String("tokenizer.chat_template", "");
  text.tool_template = fields.String("tokenizer.chat_template.tool_use", "");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  PENSIEVE_RETURN_IF_ERROR(OverrideTemplate(template_file, text));
  text.stop_ids = StopIds({}, *text.tokenizer);
  return text;
}

Result<std::unique_ptr<tokenizer::Tokenizer>> ReadTokenizer(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  std::error_code ignored;
  const bool is_tokenizer_json = path.ends_with(".json") && name != "config.json" && !fs::is_directory(path, ignored);
  ModelPlace place;
  if (is_tokenizer_json) {
    place.directory = fs::path(path).parent_path().string();
  } else {
    PENSIEVE_TRY(place, FindTokenizerFiles(path));
  }
  if (place.is_gguf()) {
    PENSIEVE_TRY(const GgufFile file, GgufFile::Open(place.gguf));
    return ReadGgufTokenizer(file);
  }
  const fs::path directory(place.directory);
  PENSIEVE_TRY(const Json tokenizer_config, ReadTokenizerConfig(directory));
  // The model around the tokenizer may say more about it; where there is none, or an unknown one, it stands alone.
  const auto model = ReadHfModel(directory.string());
  return ReadTokenizerJson(is_tokenizer_json ? path : (directory / "tokenizer.json").string(), tokenizer_config,
                           model ? OptionsOf(*model) : tokenizer::TokenizerOptions());
}

}  // namespace pensieve::model
