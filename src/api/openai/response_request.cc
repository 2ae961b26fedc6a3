#include "api/openai/response_request.h"

#include <fmt/format.h>

#include <array>
#include <map>

#include "api/fields.h"
#include "api/openai/sampling_fields.h"
#include "base/base64.h"
#include "base/random_id.h"

namespace pensieve::api::openai {
namespace {

constexpr size_t kItemsMax = 100'000;
constexpr size_t kToolsMax = 4096;
constexpr std::string_view kSeal = "pensieve-reasoning:";

// A string or parts; parts that are no text become a note in brackets.
Result<std::string> PartsText(const Json* content, const std::string& path) {
  if (content == nullptr) return std::string();
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return InvalidArgument(path + ": must be a string or an array of parts");
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    FieldReader fields((*content)[i], JoinPath(path, i));
    const std::string type = fields.RequiredString("type");
    std::string part;
    if (type.ends_with("_text") || type == "text") part = fields.RequiredString("text");
    if (type == "refusal") part = fields.RequiredString("refusal");
    if (type == "input_image") part = "[an image that cannot be seen here]";
    if (type == "input_file") part = "[a file that cannot be read here]";
    if (type == "input_audio") part = "[a sound that cannot be heard here]";
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    if (!text.empty() && !part.empty()) text += '\n';
    text += part;
  }
  return text;
}

std::string OpenSeal(std::string_view sealed) {
  auto opened = DecodeBase64(sealed);
  if (!opened.has_value() || !opened->starts_with(kSeal)) return "";  // another vendor's
  return opened->substr(kSeal.size());
}

// Writes turns of a chat from items.
class Conversation {
 public:
  Status Add(const Json& item, const std::string& path) {
    FieldReader fields(item, path);
    const std::string type = fields.String("type").value_or("message");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    if (type == "message") return AddMessage(fields, path);
    if (type == "function_call") return AddCall(fields);
    if (type == "function_call_output") return AddOutput(fields, path);
    if (type == "reasoning") return AddReasoning(fields, path);
    return OkStatus();
  }
  void AddSystem(const std::string& text) { turns_.push_back({{"role", "system"}, {"content", text}}); }
  Json& turns() { return turns_; }

 private:
  Status AddMessage(FieldReader& fields, const std::string& path) {
    const std::string role = fields.RequiredString("role");
    fields.Require("content");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    constexpr std::array<std::string_view, 4> kRoles = {"user", "assistant", "system", "developer"};
    if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end())
      return InvalidArgument(path + ".role: must be one of user, assistant, system, developer");
    PENSIEVE_TRY(const std::string text, PartsText(fields.Any("content"), path + ".content"));
    if (role == "assistant") {
      Json& turn = Assistant(/*takes=*/[](const Json& last) { return !last.contains("tool_calls"); });
      turn["content"].get_ref<std::string&>() += text;
    } else {
      turns_.push_back({{"role", role == "developer" ? "system" : role}, {"content", text}});
    }
    return OkStatus();
  }

  Status AddCall(FieldReader& fields) {
    const std::string id = fields.RequiredString("call_id");
    const std::string name = fields.RequiredString("name");
    const std::string arguments = fields.RequiredString("arguments");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    names_[id] = name;
    Json& turn = Assistant([](const Json&) { return true; });
    turn["tool_calls"].push_back(
        {{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}});
    return OkStatus();
  }

  Status AddOutput(FieldReader& fields, const std::string& path) {
    const std::string id = fields.RequiredString("call_id");
    fields.Require("output");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    PENSIEVE_TRY(std::string text, PartsText(fields.Any("output"), path + ".output"));
    Json turn = {{"role", "tool"}, {"tool_call_id", id}, {"content", std::move(text)}};
    if (const auto name = names_.find(id); name != names_.end()) turn["name"] = name->second;
    turns_.push_back(std::move(turn));
    return OkStatus();
  }

  Status AddReasoning(FieldReader& fields, const std::string& path) {
    const Json* content = fields.Array("content");
    const std::string sealed = fields.String("encrypted_content").value_or("");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    PENSIEVE_TRY(std::string text, PartsText(content, path + ".content"));
    if (text.empty()) text = OpenSeal(sealed);
    if (text.empty()) return OkStatus();
    Json& turn = Assistant([](const Json& last) { return last["content"] == "" && !last.contains("tool_calls"); });
    turn["reasoning_content"] = std::move(text);
    return OkStatus();
  }

  // The last turn when it is the assistant's and takes the next item, else a new one.
  template <typename Takes>
  Json& Assistant(Takes takes) {
    if (turns_.empty() || turns_.back()["role"] != "assistant" || !takes(turns_.back()))
      turns_.push_back({{"role", "assistant"}, {"content", ""}});
    return turns_.back();
  }

  Json turns_ = Json::array();
  std::map<std::string, std::string> names_;  // of tools, by call id
};

// `input` as items with types and ids.
Result<Json> ReadInput(const Json& body) {
  const Json* input = Find(body, "input");
  if (input == nullptr) return InvalidArgument("input: Field required");
  Json items = Json::array();
  if (input->is_string()) {
    items.push_back({{"type", "message"},
                     {"role", "user"},
                     {"content", Json::array({{{"type", "input_text"}, {"text", *input}}})}});
  } else if (input->is_array()) {
    items = *input;
  } else {
    return InvalidArgument("input: must be a string or an array of items");
  }
  if (items.size() > kItemsMax) return InvalidArgument(fmt::format("input: must have at most {} items", kItemsMax));
  for (size_t i = 0; i < items.size(); ++i) {
    Json& item = items[i];
    if (!item.is_object()) return InvalidArgument(JoinPath("input", i) + ": must be an object");
    if (!item.contains("type")) item["type"] = "message";
    if (Find(item, "id") == nullptr) item["id"] = NewId(item["type"] == "message" ? "msg_" : "item_");
    // Texts in place of parts are as good, but clients that read them back know parts only.
    if (item["type"] == "message" && item.contains("content") && item["content"].is_string()) {
      const bool is_answer = StringOr(item, "role") == "assistant";
      const std::string text = item["content"].get<std::string>();
      item["content"] = Json::array({{{"type", is_answer ? "output_text" : "input_text"}, {"text", text}}});
    }
  }
  return items;
}

Result<Json> FromTools(const Json* tools) {
  Json out = Json::array();
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    if (i >= kToolsMax) return InvalidArgument(fmt::format("tools: must have at most {} entries", kToolsMax));
    FieldReader fields((*tools)[i], JoinPath("tools", i));
    const std::string type = fields.RequiredString("type");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    if (type != "function") continue;
    const std::string name = fields.RequiredString("name");
    const std::string description = fields.String("description").value_or("");
    const Json* parameters = fields.Object("parameters");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    Json schema = parameters != nullptr ? *parameters : Json{{"type", "object"}, {"properties", Json::object()}};
    out.push_back({{"type", "function"},
                   {"function", {{"name", name}, {"description", description}, {"parameters", std::move(schema)}}}});
  }
  return out.empty() ? Json() : out;
}

Status ReadToolChoice(FieldReader& fields, service::ChatRequest& chat) {
  chat.parallel_tool_calls = fields.Bool("parallel_tool_calls").value_or(true);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  const Json* choice = fields.Any("tool_choice");
  if (choice == nullptr) return OkStatus();
  if (!choice->is_string() && !choice->is_object())
    return InvalidArgument("tool_choice: must be \"auto\", \"none\", \"required\" or an object");
  const std::string word = choice->is_string() ? choice->get<std::string>() : StringOr(*choice, "mode", "auto");
  if (word == "none") chat.tool_choice = service::ToolChoice::kNone;
  else if (word == "required") chat.tool_choice = service::ToolChoice::kAny;
  else if (word != "auto") return InvalidArgument("tool_choice: must be \"auto\", \"none\", \"required\" or an object");
  if (choice->is_object() && StringOr(*choice, "type") == "function") {
    chat.tool_choice = service::ToolChoice::kNamed;
    chat.tool_choice_name = StringOr(*choice, "name");
    if (chat.tool_choice_name.empty()) return InvalidArgument("tool_choice.name: Field required");
  }
  const bool must_call =
      chat.tool_choice == service::ToolChoice::kAny || chat.tool_choice == service::ToolChoice::kNamed;
  return must_call && chat.tools.is_null() ? InvalidArgument("tool_choice: a call needs tools") : OkStatus();
}

Status ReadFormat(FieldReader& fields, service::ChatRequest& chat) {
  const Json* text = fields.Object("text");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  const Json* format = text == nullptr ? nullptr : Find(*text, "format");
  if (format == nullptr) return OkStatus();
  FieldReader inner(*format, "text.format");
  const std::string type = inner.RequiredString("type");
  if (type == "json_schema") inner.Require("schema");
  const Json* schema = inner.Object("schema");
  PENSIEVE_RETURN_IF_ERROR(inner.status());
  if (type == "json_object") chat.output_schema = {{"type", "object"}};
  else if (type == "json_schema") chat.output_schema = *schema;
  else if (type != "text")
    return InvalidArgument("text.format.type: must be \"text\", \"json_object\" or \"json_schema\"");
  return OkStatus();
}

Status ReadReasoning(FieldReader& fields, service::ChatRequest& chat) {
  const Json* reasoning = fields.Object("reasoning");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (reasoning == nullptr) return OkStatus();
  FieldReader inner(*reasoning, "reasoning");
  const std::string effort = inner.String("effort").value_or("");
  PENSIEVE_RETURN_IF_ERROR(inner.status());
  if (effort == "none") chat.thinking = false;
  else chat.effort = effort;
  return OkStatus();
}

// What would be a different answer if it were ignored.
Status RefuseUnserved(FieldReader& fields) {
  if (fields.Bool("background").value_or(false))
    fields.Fail("background", "answers are only made while their client waits");
  if (fields.Any("conversation") != nullptr) fields.Fail("conversation", "is not kept here; use previous_response_id");
  if (fields.Any("prompt") != nullptr) fields.Fail("prompt", "no prompts are stored here");
  return fields.status();
}

// The request's own fields, with OpenAI's defaults for absent ones.
Json Settings(const Json& body) {
  const auto or_default = [&](const char* key, Json fallback) {
    const Json* value = Find(body, key);
    return value == nullptr ? fallback : *value;
  };
  Json text = or_default("text", Json::object());
  if (!text.contains("format")) text["format"] = {{"type", "text"}};
  return {{"instructions", or_default("instructions", nullptr)},
          {"max_output_tokens", or_default("max_output_tokens", nullptr)},
          {"max_tool_calls", or_default("max_tool_calls", nullptr)},
          {"metadata", or_default("metadata", Json::object())},
          {"parallel_tool_calls", or_default("parallel_tool_calls", true)},
          {"previous_response_id", or_default("previous_response_id", nullptr)},
          {"reasoning", or_default("reasoning", {{"effort", nullptr}, {"summary", nullptr}})},
          {"store", or_default("store", true)},
          {"temperature", or_default("temperature", nullptr)},
          {"text", std::move(text)},
          {"tool_choice", or_default("tool_choice", "auto")},
          {"tools", or_default("tools", Json::array())},
          {"top_logprobs", or_default("top_logprobs", 0)},
          {"top_p", or_default("top_p", nullptr)},
          {"truncation", or_default("truncation", "disabled")},
          {"user", or_default("user", nullptr)}};
}

Status ReadFields(FieldReader& fields, ResponseRequest& request) {
  service::ChatRequest& chat = request.chat;
  chat.model = fields.RequiredString("model");
  request.store = fields.Bool("store").value_or(true);
  request.previous_id = fields.String("previous_response_id").value_or("");
  chat.new_tokens_max = ReadNewTokensMax(fields, "max_output_tokens");
  StreamOptions stream;
  ReadShared(fields, chat.sampling, chat.stop_sequences, stream);
  request.stream = stream.stream;
  chat.sampling.top_logprobs = static_cast<int32_t>(fields.Integer("top_logprobs", 0, 20).value_or(0));
  if (const auto include = fields.Strings("include", 64)) {
    for (const std::string& what : *include) {
      request.encrypted_reasoning |= what == "reasoning.encrypted_content";
      request.logprobs |= what == "message.output_text.logprobs";
    }
  }
  chat.sampling.logprobs = request.logprobs || chat.sampling.top_logprobs > 0;
  request.logprobs = chat.sampling.logprobs;
  return fields.status();
}

}  // namespace

std::string SealReasoning(std::string_view text) { return EncodeBase64(std::string(kSeal) + std::string(text)); }

Result<std::string> PreviousResponseId(const Json& body) {
  FieldReader fields(body, "");
  std::string id = fields.String("previous_response_id").value_or("");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return id;
}

Result<ResponseRequest> FromResponses(const Json& body, const Json& history, const std::string& request_id) {
  ResponseRequest request;
  request.chat.id = request_id;
  FieldReader fields(body, "");
  PENSIEVE_RETURN_IF_ERROR(ReadFields(fields, request));
  PENSIEVE_RETURN_IF_ERROR(RefuseUnserved(fields));
  const std::string instructions = fields.String("instructions").value_or("");
  const Json* tools = fields.Array("tools");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  PENSIEVE_TRY(request.input, ReadInput(body));
  Conversation conversation;
  if (!instructions.empty()) conversation.AddSystem(instructions);
  for (const Json& item : history) PENSIEVE_RETURN_IF_ERROR(conversation.Add(item, "previous_response_id"));
  for (size_t i = 0; i < request.input.size(); ++i)
    PENSIEVE_RETURN_IF_ERROR(conversation.Add(request.input[i], JoinPath("input", i)));
  if (conversation.turns().empty()) return InvalidArgument("input: at least one item is required");
  request.chat.messages = std::move(conversation.turns());
  PENSIEVE_TRY(request.chat.tools, FromTools(tools));
  PENSIEVE_RETURN_IF_ERROR(ReadToolChoice(fields, request.chat));
  PENSIEVE_RETURN_IF_ERROR(ReadFormat(fields, request.chat));
  PENSIEVE_RETURN_IF_ERROR(ReadReasoning(fields, request.chat));
  request.settings = Settings(body);
  return request;
}

}  // namespace pensieve::api::openai
