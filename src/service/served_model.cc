#include "service/served_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "chat/output_parser.h"

namespace pensieve::service {
namespace {

// 0 when the file system does not tell.
int64_t FileTime(const std::string& path) {
  std::error_code error;
  const auto time = std::filesystem::last_write_time(path, error);
  if (error) return 0;
  const auto system_time = std::chrono::file_clock::to_sys(time);
  return std::chrono::duration_cast<std::chrono::seconds>(system_time.time_since_epoch()).count();
}

// Of the file, or of all files in the directory. 0 when the file system does not tell.
int64_t FileBytes(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error))
    return static_cast<int64_t>(std::filesystem::file_size(path, error));
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    const auto size = entry.is_regular_file(error) ? entry.file_size(error) : 0;
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

ModelDescription Describe(const std::string& name, const model::LoadedModel& loaded, const engine::Engine& engine,
                          const chat::ChatTemplate* standard, const chat::ChatTemplate* for_tools) {
  const model::ModelConfig& config = loaded.config;
  ModelDescription description;
  description.name = name;
  description.display_name = config.name.empty() ? name : config.name;
  description.path = loaded.path;
  description.generates = config.can_generate();
  description.embeds = config.is_embedding;
  description.context_max = engine.context_max();
  const int64_t embed_max = config.embed_context_max > 0 ? config.embed_context_max : config.context_max;
  description.embed_context_max = std::min(embed_max, engine.context_max());
  description.dimension = config.embedding_size();
  description.created_unix_s = FileTime(loaded.path);
  description.device = loaded.backend->Describe();
  description.architecture = config.architecture;
  description.quantization = config.quantization;
  description.size_bytes = FileBytes(loaded.path);
  if (standard != nullptr) {
    description.chat_template = standard->source();
    description.supports_tools = for_tools->supports_tools();
    const auto format = chat::DetectOutputFormat(standard->source(), "", /*tools_given=*/false);
    description.supports_thinking =
        format.reasoning != chat::ReasoningFormat::kNone || format.tool_format == chat::ToolFormat::kHarmony;
  }
  return description;
}

// The special token with which a template closes answers ends generation, whatever the configuration says.
void AddTurnEnd(const chat::ChatTemplate& chat_template, model::ModelText& text) {
  const std::string& end = chat_template.answer_end();
  const size_t begin = end.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return;
  const auto ids = text.tokenizer->Encode(end.substr(begin), {.add_special = false});
  const auto& bos = text.tokenizer->special().bos;
  if (ids.empty() || !text.tokenizer->IsSpecial(ids.front()) || (bos && ids.front() == bos->id)) return;
  const auto at = std::lower_bound(text.stop_ids.begin(), text.stop_ids.end(), ids.front());
  if (at == text.stop_ids.end() || *at != ids.front()) text.stop_ids.insert(at, ids.front());
}

}  // namespace

Result<std::shared_ptr<ServedModel>> ServedModel::Create(const std::string& name, std::vector<std::string> aliases,
                                                         std::unique_ptr<model::LoadedModel> loaded,
                                                         const engine::EngineOptions& options) {
  std::shared_ptr<ServedModel> served(new ServedModel);
  if (loaded->config.can_generate()) {
    auto templates = ChatTemplates::Make(loaded->text);
    if (templates.has_value()) {
      served->templates_ = *std::move(templates);
      for (const bool with_tools : {false, true}) AddTurnEnd(served->templates_->Choose(with_tools).text, loaded->text);
    } else if (templates.error().code() != StatusCode::kFailedPrecondition) {
      return templates.error().WithContext(fmt::format("{}: chat template", loaded->path));
    }
  }
  engine::EngineOptions engine_options = options;
  engine_options.check_weights = [model = loaded.get()](bool quick) { return model->CheckWeights(quick); };
  engine_options.step_rows_max = std::min(options.step_rows_max, loaded->network->rows_max());
  PENSIEVE_TRY(served->engine_, engine::Engine::Create(*loaded->backend, *loaded->network, engine_options));
  const auto* standard = served->templates_ ? &served->templates_->Choose(/*with_tools=*/false).text : nullptr;
  const auto* for_tools = served->templates_ ? &served->templates_->Choose(/*with_tools=*/true).text : nullptr;
  served->description_ = Describe(name, *loaded, *served->engine_, standard, for_tools);
  served->aliases_ = std::move(aliases);
  served->loaded_ = std::move(loaded);
  return served;
}

Result<const ChatTemplates::Guarded*> ServedModel::Template(bool with_tools) const {
  if (templates_) return &templates_->Choose(with_tools);
  return FailedPrecondition(
      fmt::format("model: \"{}\" has no chat template; only raw completions are possible", name()));
}

int32_t ServedModel::vocab_size() const {
  return static_cast<int32_t>(std::min<int64_t>(tokenizer().vocab_size(), config().vocab_size));
}

std::shared_ptr<sampling::TokenMasks> ServedModel::token_masks() const {
  std::call_once(masks_made_, [this] {
    std::vector<sampling::TokenBytes> tokens(static_cast<size_t>(vocab_size()));
    for (int32_t id = 0; id < vocab_size(); ++id) {
      const bool special = tokenizer().IsSpecial(id);
      tokens[static_cast<size_t>(id)] = {special ? tokenizer().IdToToken(id) : tokenizer().TokenBytes(id), special};
    }
    token_masks_ = std::make_shared<sampling::TokenMasks>(std::make_shared<const sampling::TokenTrie>(tokens));
  });
  return token_masks_;
}

}  // namespace pensieve::service
