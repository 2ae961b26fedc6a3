#include "api/anthropic/messages_request.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/anthropic/content_blocks.h"
#include "api/anthropic/tools.h"
#include "api/fields.h"

namespace pensieve::api::anthropic {
namespace {

constexpr size_t kMessagesMax = 100'000;
constexpr size_t kStopSequencesMax = 64;
constexpr size_t kStopSequenceBytesMax = 256;

// Writes turns one after another and merges neighbours of the same role.
class Conversation {
 public:
  void AddText(const char* role, const std::string& text, std::string_view between) {
    if (text.empty()) return;
    Json& turn = Turn(role);
    auto& content = turn["content"].get_ref<std::string&>();
    if (!content.empty()) content += between;
    content += text;
  }
  void AddAssistant(MessageParts parts) {
    if (parts.text.empty() && parts.reasoning.empty() && parts.tool_calls.empty()) return;
    Json& turn = Turn("assistant");
    turn["content"].get_ref<std::string&>() += parts.text;
    if (!parts.reasoning.empty()) {
      if (!turn.contains("reasoning_content")) turn["reasoning_content"] = "";
      auto& reasoning = turn["reasoning_content"].get_ref<std::string&>();
      if (!reasoning.empty()) reasoning += '\n';
      reasoning += parts.reasoning;
    }
    for (Json& call : parts.tool_calls) {
      tool_names_[call["id"].get<std::string>()] = call["function"]["name"].get<std::string>();
      turn["tool_calls"].push_back(std::move(call));
    }
  }
  void AddToolAnswer(const ToolAnswer& answer) {
    Json turn = {{"role", "tool"}, {"tool_call_id", answer.call_id}, {"content", answer.text}};
    if (const auto name = tool_names_.find(answer.call_id); name != tool_names_.end()) turn["name"] = name->second;
    turns_.push_back(std::move(turn));
  }

  Json& turns() { return turns_; }

 private:
  Json& Turn(const char* role) {
    if (turns_.empty() || turns_.back()["role"] != role) turns_.push_back({{"role", role}, {"content", ""}});
    return turns_.back();
  }

  Json turns_ = Json::array();
  std::map<std::string, std::string> tool_names_;  // by call id
};

Result<std::string> SystemText(const Json* system) {
  if (system == nullptr) return std::string();
  if (system->is_string()) return system->get<std::string>();
  if (!system->is_array()) return InvalidArgument("system: must be a string or an array of text blocks");
  std::string text;
  for (size_t i = 0; i < system->size(); ++i) {
    FieldReader fields((*system)[i], JoinPath("system", i));
    const std::string type = fields.RequiredString("type");
    const std::string block = type == "text" ? fields.RequiredString("text") : "";
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    if (block.empty() || block.starts_with("x-anthropic-billing-header")) continue;
    if (!text.empty()) text += "\n\n";
    text += block;
  }
  return text;
}

Result<Role> RoleOf(const std::string& role, const std::string& path) {
  if (role == "user") return Role::kUser;
  if (role == "assistant") return Role::kAssistant;
  if (role == "system") return Role::kSystem;
  return InvalidArgument(path + ".role: must be \"user\", \"assistant\" or \"system\"");
}

Status AddMessage(const Json& message, const std::string& path, std::map<std::string, Json>& deferred_tools,
                  Conversation& conversation) {
  FieldReader fields(message, path);
  const std::string role_name = fields.RequiredString("role");
  fields.Require("content");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  PENSIEVE_TRY(const Role role, RoleOf(role_name, path));
  const Json* content = fields.Any("content");
  if (role == Role::kUser && (content->is_string() || content->is_array()) && (content->empty() || *content == "")) {
    return InvalidArgument(path + ".content: a user message must not be empty");
  }
  const BlockContext context{.role = role, .deferred_tools = &deferred_tools};
  PENSIEVE_TRY(MessageParts parts, FromContent(content, path + ".content", context));
  if (role == Role::kAssistant) {
    conversation.AddAssistant(std::move(parts));
    return OkStatus();
  }
  // Answers first: templates want them right behind the calls.
  for (const ToolAnswer& answer : parts.tool_answers) conversation.AddToolAnswer(answer);
  conversation.AddText(role == Role::kSystem ? "system" : "user", parts.text, "\n\n");
  return OkStatus();
}

Result<Json> FromMessages(const Json& body, std::map<std::string, Json> deferred_tools) {
  FieldReader fields(body, "");
  const Json* messages = fields.RequiredArray("messages");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (messages->empty()) return InvalidArgument("messages: at least one message is required");
  if (messages->size() > kMessagesMax) {
    return InvalidArgument(fmt::format("messages: must have at most {} entries", kMessagesMax));
  }
  Conversation conversation;
  PENSIEVE_TRY(const std::string system, SystemText(Find(body, "system")));
  conversation.AddText("system", system, "\n\n");
  for (size_t i = 0; i < messages->size(); ++i) {
    PENSIEVE_RETURN_IF_ERROR(AddMessage((*messages)[i], JoinPath("messages", i), deferred_tools, conversation));
  }
  if (conversation.turns().empty()) return InvalidArgument("messages: every message is empty");
  return std::move(conversation.turns());
}

Status ReadToolChoice(const Json* choice, const Json* tools, service::ChatRequest& chat) {
  if (choice == nullptr) return OkStatus();
  FieldReader fields(*choice, "tool_choice");
  const std::string type = fields.RequiredString("type");
  chat.parallel_tool_calls = !fields.Bool("disable_parallel_tool_use").value_or(false);
  if (type == "tool") chat.tool_choice_name = fields.RequiredString("name");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (type == "auto") chat.tool_choice = service::ToolChoice::kAuto;
  else if (type == "any") chat.tool_choice = service::ToolChoice::kAny;
  else if (type == "none") chat.tool_choice = service::ToolChoice::kNone;
  else if (type == "tool") chat.tool_choice = service::ToolChoice::kNamed;
  else return InvalidArgument("tool_choice.type: must be \"auto\", \"any\", \"tool\" or \"none\"");
  // Judged by what was sent: a tool that the server would run, and that is not shown here, is not the client's mistake.
  const bool has_tools = tools != nullptr && !tools->empty();
  if ((type == "any" || type == "tool") && !has_tools) return InvalidArgument("tool_choice: a call needs tools");
  return OkStatus();
}

Status ReadThinking(const Json* thinking, MessagesRequest& request) {
  if (thinking == nullptr) return OkStatus();
  FieldReader fields(*thinking, "thinking");
  const std::string type = fields.RequiredString("type");
  request.thinking_omitted = fields.String("display").value_or("") == "omitted";
  fields.Integer("budget_tokens", 0, INT64_MAX);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (type == "enabled" || type == "adaptive") request.chat.thinking = true;
  if (type == "disabled") request.chat.thinking = false;
  // Thinking between tools: on when the last turn brings answers of tools.
  const Json& turns = request.chat.messages;
  if (type == "between_tools") {
    const bool user_said_more = turns.back()["role"] == "user" && turns.size() > 1;
    request.chat.thinking = turns[turns.size() - (user_said_more ? 2 : 1)]["role"] == "tool";
  }
  return OkStatus();
}

// output_config.format and its predecessor output_format: {type: "json_schema", schema}.
Status ReadFormat(const Json* format, const std::string& path, service::ChatRequest& chat) {
  if (format == nullptr) return OkStatus();
  FieldReader fields(*format, path);
  const std::string type = fields.RequiredString("type");
  const Json* schema = fields.Object("schema");
  if (type == "json_schema") fields.Require("schema");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (type != "json_schema") return InvalidArgument(path + ".type: must be \"json_schema\"");
  chat.output_schema = *schema;
  return OkStatus();
}

Status ReadOutput(const Json& body, service::ChatRequest& chat) {
  PENSIEVE_RETURN_IF_ERROR(ReadFormat(Find(body, "output_format"), "output_format", chat));
  const Json* config = Find(body, "output_config");
  if (config == nullptr) return OkStatus();
  FieldReader fields(*config, "output_config");
  chat.effort = fields.String("effort").value_or("");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return ReadFormat(fields.Any("format"), "output_config.format", chat);
}

Status ReadSampling(const Json& body, const MessagesContext& context, service::ChatRequest& chat) {
  FieldReader fields(body, "");
  if (!context.count_only) fields.Require("max_tokens");
  chat.new_tokens_max = fields.Integer("max_tokens", 0, INT64_MAX);
  const auto to_float = [](double value) { return static_cast<float>(value); };
  if (const auto value = fields.Number("temperature", 0, 2)) chat.sampling.temperature = to_float(*value);
  if (const auto value = fields.Number("top_p", 0, 1)) chat.sampling.top_p = to_float(*value);
  if (const auto value = fields.Integer("top_k", 0, INT32_MAX)) chat.sampling.top_k = static_cast<int32_t>(*value);
  if (auto stops = fields.Strings("stop_sequences", kStopSequencesMax)) {
    for (size_t i = 0; i < stops->size(); ++i) {
      if (!(*stops)[i].empty() && (*stops)[i].size() <= kStopSequenceBytesMax) continue;
      fields.Fail(JoinPath("stop_sequences", i), fmt::format("must have 1 to {} bytes", kStopSequenceBytesMax));
    }
    chat.stop_sequences = std::move(*stops);
  }
  return fields.status();
}

// A last assistant message is the beginning of the answer, unless it ends in calls or holds nothing to go on from. The
// messages as they were sent decide: what follows an answer may hold nothing that a template shows, and still ends it.
void MarkPrefill(const Json& sent, service::ChatRequest& chat) {
  if (StringOr(sent.back(), "role") != "assistant") return;
  Json& last = chat.messages.back();
  if (last["role"] != "assistant" || last.contains("tool_calls")) return;
  if (!last["content"].get_ref<const std::string&>().empty()) {
    chat.continue_final_message = true;
  } else if (chat.messages.size() > 1) {
    chat.messages.erase(chat.messages.size() - 1);
  }
}

}  // namespace

Result<MessagesRequest> FromMessagesRequest(const Json& body, const MessagesContext& context) {
  MessagesRequest request;
  service::ChatRequest& chat = request.chat;
  chat.id = context.request_id;
  chat.any_model = true;
  FieldReader fields(body, "");
  chat.model = fields.RequiredString("model");
  request.stream = fields.Bool("stream").value_or(false);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  PENSIEVE_RETURN_IF_ERROR(ReadSampling(body, context, chat));
  PENSIEVE_TRY(ToolSet tools, FromTools(Find(body, "tools")));
  chat.tools = std::move(tools.shown);
  chat.strict_tools = std::move(tools.strict);
  for (const auto& [name, function] : tools.deferred)
    chat.deferred_tools.push_back({{"type", "function"}, {"function", function}});
  PENSIEVE_TRY(chat.messages, FromMessages(body, std::move(tools.deferred)));
  MarkPrefill(body["messages"], chat);
  PENSIEVE_RETURN_IF_ERROR(ReadToolChoice(Find(body, "tool_choice"), Find(body, "tools"), chat));
  PENSIEVE_RETURN_IF_ERROR(ReadThinking(Find(body, "thinking"), request));
  PENSIEVE_RETURN_IF_ERROR(ReadOutput(body, chat));
  return request;
}

}  // namespace pensieve::api::anthropic
