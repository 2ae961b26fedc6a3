#include <fmt/format.h>

#include <array>

#include "api/openai/requests.h"
#include "api/openai/sampling_fields.h"

namespace pensieve::api::openai {
namespace {

constexpr size_t kMessagesMax = 100'000;
constexpr size_t kToolsMax = 4096;

// A string, null, or parts; parts that are no text become a note in brackets.
Result<std::string> ContentText(const Json* content, const std::string& path) {
  if (content == nullptr) return std::string();
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return InvalidArgument(path + ": must be a string or an array of parts");
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    FieldReader fields((*content)[i], JoinPath(path, i));
    const std::string type = fields.RequiredString("type");
    std::string part;
    if (type == "text" || type == "refusal") {
      part = fields.RequiredString(type);
    } else if (type == "image_url") {
      part = "[an image that cannot be seen here]";
    } else if (type == "input_audio") {
      part = "[a sound that cannot be heard here]";
    } else if (type == "file") {
      part = "[a file that cannot be read here]";
    }
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    if (!text.empty() && !part.empty()) text += '\n';
    text += part;
  }
  return text;
}

Result<Json> FromToolCalls(const Json& calls, const std::string& path) {
  Json out = Json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    FieldReader fields(calls[i], JoinPath(path, i));
    const std::string type = fields.String("type").value_or("function");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    if (type != "function") continue;
    fields.Require("function");
    const std::string id = fields.String("id").value_or("");
    const Json* function = fields.Object("function");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    FieldReader inner(*function, JoinPath(path, i) + ".function");
    const std::string name = inner.RequiredString("name");
    const Json* arguments = inner.Any("arguments");
    PENSIEVE_RETURN_IF_ERROR(inner.status());
    out.push_back({{"id", id},
                   {"type", "function"},
                   {"function", {{"name", name}, {"arguments", arguments == nullptr ? Json("{}") : *arguments}}}});
  }
  return out;
}

Result<Json> FromMessage(const Json& message, const std::string& path) {
  FieldReader fields(message, path);
  const std::string role = fields.RequiredString("role");
  const Json* calls = fields.Array("tool_calls");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  constexpr std::array<std::string_view, 6> kRoles = {"system", "developer", "user", "assistant", "tool", "function"};
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
    return InvalidArgument(path + ".role: must be one of system, developer, user, assistant, tool, function");
  }
  const bool may_be_empty = role == "assistant";
  if (!may_be_empty) fields.Require("content");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  PENSIEVE_TRY(std::string content, ContentText(fields.Any("content"), path + ".content"));
  Json turn = {{"role", role == "developer"  ? "system"
                        : role == "function" ? "tool"
                                             : role},
               {"content", std::move(content)}};
  if (role == "tool") turn["tool_call_id"] = fields.RequiredString("tool_call_id");
  if (const auto name = fields.String("name")) turn["name"] = *name;
  if (role == "assistant") {
    if (const auto reasoning = fields.String("reasoning_content")) turn["reasoning_content"] = *reasoning;
    if (calls != nullptr && !calls->empty()) {
      PENSIEVE_TRY(Json tool_calls, FromToolCalls(*calls, path + ".tool_calls"));
      if (!tool_calls.empty()) turn["tool_calls"] = std::move(tool_calls);
    }
  }
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return turn;
}

Result<Json> FromFunction(const Json* function, const std::string& path) {
  if (function == nullptr) return InvalidArgument(path + ": Field required");
  FieldReader fields(*function, path);
  const std::string name = fields.RequiredString("name");
  const std::string description = fields.String("description").value_or("");
  const Json* parameters = fields.Object("parameters");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  Json schema = parameters != nullptr ? *parameters : Json{{"type", "object"}, {"properties", Json::object()}};
  return Json{{"type", "function"},
              {"function", {{"name", name}, {"description", description}, {"parameters", std::move(schema)}}}};
}

// `tools`, or the older `functions`. Tools of other types are no functions that a model here could call.
Status ReadTools(FieldReader& fields, service::ChatRequest& chat) {
  const Json* tools = fields.Array("tools");
  const Json* functions = fields.Array("functions");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  Json out = Json::array();
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    if (i >= kToolsMax) return InvalidArgument(fmt::format("tools: must have at most {} entries", kToolsMax));
    const std::string path = JoinPath("tools", i);
    if (!(*tools)[i].is_object()) return InvalidArgument(path + ": must be an object");
    if (StringOr((*tools)[i], "type", "function") != "function") continue;
    const Json* function = Find((*tools)[i], "function");
    PENSIEVE_TRY(Json tool, FromFunction(function, path + ".function"));
    const Json* strict = Find(*function, "strict");
    if (strict != nullptr && *strict == true) chat.strict_tools.push_back(tool["function"]["name"].get<std::string>());
    out.push_back(std::move(tool));
  }
  for (size_t i = 0; tools == nullptr && functions != nullptr && i < functions->size(); ++i) {
    if (i >= kToolsMax) return InvalidArgument(fmt::format("functions: must have at most {} entries", kToolsMax));
    PENSIEVE_TRY(Json tool, FromFunction(&(*functions)[i], JoinPath("functions", i)));
    out.push_back(std::move(tool));
  }
  if (!out.empty()) chat.tools = std::move(out);
  return OkStatus();
}

Status ReadToolChoice(FieldReader& fields, service::ChatRequest& chat) {
  chat.parallel_tool_calls = fields.Bool("parallel_tool_calls").value_or(true);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  const char* key = fields.Any("tool_choice") != nullptr ? "tool_choice" : "function_call";
  const Json* choice = fields.Any(key);
  if (choice == nullptr) return OkStatus();
  if (choice->is_string()) {
    const std::string name = choice->get<std::string>();
    if (name == "auto") chat.tool_choice = service::ToolChoice::kAuto;
    else if (name == "none") chat.tool_choice = service::ToolChoice::kNone;
    else if (name == "required") chat.tool_choice = service::ToolChoice::kAny;
    else return InvalidArgument(fmt::format("{}: must be \"auto\", \"none\", \"required\" or an object", key));
    return OkStatus();
  }
  if (!choice->is_object()) return InvalidArgument(fmt::format("{}: must be a string or an object", key));
  // {type: "allowed_tools", mode} limits the choice; here it keeps its mode and all tools stay visible.
  if (const Json* allowed = Find(*choice, "allowed_tools")) {
    if (StringOr(*allowed, "mode") == "required") chat.tool_choice = service::ToolChoice::kAny;
    return OkStatus();
  }
  const Json* function = Find(*choice, "function");
  chat.tool_choice = service::ToolChoice::kNamed;
  chat.tool_choice_name = StringOr(function == nullptr ? *choice : *function, "name");
  if (chat.tool_choice_name.empty()) return InvalidArgument(fmt::format("{}.function.name: Field required", key));
  return OkStatus();
}

Status ReadResponseFormat(FieldReader& fields, service::ChatRequest& chat) {
  const Json* format = fields.Object("response_format");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (format == nullptr) return OkStatus();
  FieldReader inner(*format, "response_format");
  const std::string type = inner.RequiredString("type");
  const Json* json_schema = inner.Object("json_schema");
  if (type == "json_schema") inner.Require("json_schema");
  PENSIEVE_RETURN_IF_ERROR(inner.status());
  if (type == "text") return OkStatus();
  if (type == "json_object") {
    // A schema beside it is llama.cpp's and others' form of json_schema.
    const Json* of_object = inner.Object("schema");
    PENSIEVE_RETURN_IF_ERROR(inner.status());
    chat.output_schema = of_object == nullptr ? Json{{"type", "object"}} : *of_object;
    return OkStatus();
  }
  if (type == "regex" || type == "grammar") {
    std::string text = inner.RequiredString(type == "regex" ? "pattern" : "grammar");
    PENSIEVE_RETURN_IF_ERROR(inner.status());
    (type == "regex" ? chat.output_regex : chat.output_grammar) = std::move(text);
    return OkStatus();
  }
  if (type != "json_schema")
    return InvalidArgument(
        "response_format.type: must be \"text\", \"json_object\", \"json_schema\", \"regex\" or \"grammar\"");
  FieldReader schema(*json_schema, "response_format.json_schema");
  const Json* body = schema.Object("schema");
  PENSIEVE_RETURN_IF_ERROR(schema.status());
  chat.output_schema = body == nullptr ? Json::object() : *body;
  return OkStatus();
}

void ReadReasoning(FieldReader& fields, service::ChatRequest& chat) {
  const std::string effort = fields.String("reasoning_effort").value_or("");
  if (effort == "none") chat.thinking = false;
  else chat.effort = effort;
  if (const Json* variables = fields.Object("chat_template_kwargs")) chat.template_context = *variables;
  chat.continue_final_message = fields.Bool("continue_final_message").value_or(false);
}

}  // namespace

Result<ChatCompletionRequest> FromChatCompletion(const Json& body, const std::string& request_id) {
  ChatCompletionRequest request;
  service::ChatRequest& chat = request.chat;
  chat.id = request_id;
  FieldReader fields(body, "");
  chat.model = fields.RequiredString("model");
  const Json* messages = fields.RequiredArray("messages");
  ReadShared(fields, chat.sampling, chat.stop_sequences, request.stream);
  chat.sampling.logprobs = fields.Bool("logprobs").value_or(false);
  chat.sampling.top_logprobs = static_cast<int32_t>(fields.Integer("top_logprobs", 0, 20).value_or(0));
  if (chat.sampling.top_logprobs > 0 && !chat.sampling.logprobs)
    fields.Fail("top_logprobs", "needs logprobs to be true");
  chat.new_tokens_max = ReadNewTokensMax(fields, "max_completion_tokens");
  if (!chat.new_tokens_max) chat.new_tokens_max = ReadNewTokensMax(fields, "max_tokens");
  ReadReasoning(fields, chat);
  request.n = ReadN(fields);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (messages->empty()) return InvalidArgument("messages: at least one message is required");
  if (messages->size() > kMessagesMax) {
    return InvalidArgument(fmt::format("messages: must have at most {} entries", kMessagesMax));
  }
  chat.messages = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    PENSIEVE_TRY(Json turn, FromMessage((*messages)[i], JoinPath("messages", i)));
    chat.messages.push_back(std::move(turn));
  }
  if (chat.continue_final_message && chat.messages.back()["role"] != "assistant") {
    return InvalidArgument("continue_final_message: the last message must be an assistant message");
  }
  PENSIEVE_RETURN_IF_ERROR(ReadTools(fields, chat));
  PENSIEVE_RETURN_IF_ERROR(ReadToolChoice(fields, chat));
  const bool must_call =
      chat.tool_choice == service::ToolChoice::kAny || chat.tool_choice == service::ToolChoice::kNamed;
  if (must_call && chat.tools.is_null()) return InvalidArgument("tool_choice: a call needs tools");
  PENSIEVE_RETURN_IF_ERROR(ReadResponseFormat(fields, chat));
  return request;
}

}  // namespace pensieve::api::openai
