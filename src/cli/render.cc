// pensieve render: messages and tools to the exact prompt that a model would get.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/json.h"
#include "base/mapped_file.h"
#include "chat/chat_template.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/terminal.h"
#include "service/chat_templates.h"

namespace pensieve::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string text;
  std::string messages_file;
  std::string tools_file;
  std::string context;
  std::string system;
  bool no_generation_prompt = false;
  bool continue_final = false;
  bool spell_out_tools = false;
  bool json = false;
};

Result<Json> ReadJsonArgument(const std::string& path) {
  PENSIEVE_TRY(const auto text, ReadTextArgument(path));
  auto json = ParseJson(text);
  if (!json.has_value()) return json.error().WithContext(path);
  return json;
}

Result<Json> Messages(const Options& options) {
  if (options.messages_file.empty()) {
    if (options.text.empty()) return InvalidArgument("nothing to render: give TEXT or --messages FILE");
    Json messages = Json::array();
    if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
    messages.push_back({{"role", "user"}, {"content", options.text}});
    return messages;
  }
  PENSIEVE_TRY(auto json, ReadJsonArgument(options.messages_file));
  if (json.is_object() && json.contains("messages")) json = Json(json["messages"]);
  if (!json.is_array()) return InvalidArgument(fmt::format("{}: expected an array of messages", options.messages_file));
  return json;
}

Result<chat::RenderInputs> Inputs(const Options& options) {
  chat::RenderInputs inputs;
  PENSIEVE_TRY(inputs.messages, Messages(options));
  if (!options.tools_file.empty()) {
    PENSIEVE_TRY(inputs.tools, ReadJsonArgument(options.tools_file));
    if (!inputs.tools.is_array())
      return InvalidArgument(fmt::format("{}: expected an array of tools", options.tools_file));
  }
  if (!options.context.empty()) {
    PENSIEVE_TRY(inputs.extra_context, ParseJson(options.context));
    if (!inputs.extra_context.is_object()) return InvalidArgument("--context-json: expected an object");
  }
  inputs.add_generation_prompt = !options.no_generation_prompt;
  inputs.continue_final_message = options.continue_final;
  inputs.spell_out_tools = options.spell_out_tools;
  return inputs;
}

int Render(const Options& options) {
  const auto resolved = ResolveModel(options.model.model, DefaultModel::kGenerator);
  if (!resolved.has_value()) return Fail(resolved.error());
  auto header = model::ReadHeader(resolved->path);
  if (!header.has_value()) return Fail(header.error());
  PrintWarnings(header->warnings);
  if (!options.model.chat_template_file.empty()) {
    auto source = ReadTextArgument(options.model.chat_template_file);
    if (!source.has_value()) return Fail(source.error());
    header->text.chat_template = *std::move(source);
    header->text.tool_template.clear();
  }
  const auto inputs = Inputs(options);
  if (!inputs.has_value()) return Fail(inputs.error());
  const auto templates = service::ChatTemplates::Make(header->text);
  if (!templates.has_value()) return Fail(templates.error().WithContext(resolved->path));
  const auto& chosen = templates->Choose(!inputs->tools.is_null());
  const auto prompt = chosen.text.Render(*inputs);
  if (!prompt.has_value()) return Fail(prompt.error());
  if (!options.json) {
    fmt::print("{}", prompt->text);
    return 0;
  }
  const auto encoded = header->text.tokenizer->EncodeAuthored({prompt->text, prompt->spans, {}}, *chosen.limits);
  fmt::print("{}\n", DumpJson({{"prompt", prompt->text}, {"ids", encoded.ids}, {"count", encoded.ids.size()}}));
  return 0;
}

}  // namespace

void AddRender(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("render", "Show the exact prompt that messages and tools become");
  auto options = std::make_shared<Options>();
  command->add_option("TEXT", options->text, "One user message");
  AddModelOption(*command, options->model, false);
  command->add_option("--messages", options->messages_file,
                      "JSON file: an array of messages {role, content, ...}, or an object that holds one; - for stdin");
  command->add_option("--tools", options->tools_file, "JSON file: an array of {type: function, function: {...}}");
  command->add_option("--system", options->system, "A system message before TEXT");
  command->add_option("--context-json", options->context,
                      "Object of further template variables, as {\"enable_thinking\": false}");
  command->add_flag("--no-generation-prompt", options->no_generation_prompt, "Do not open the assistant's turn");
  command->add_flag("--continue", options->continue_final, "The last message is the beginning of the answer");
  command->add_flag("--spell-out-tools", options->spell_out_tools,
                    "Where the template shows no tools: describe them in the system turn, as the server does");
  command->add_flag("--json", options->json, "Print prompt, ids and count as one JSON object");
  command->callback([&action, options] { action = [options] { return Render(*options); }; });
}

}  // namespace pensieve::cli
