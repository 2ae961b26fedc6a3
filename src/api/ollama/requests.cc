#include "api/ollama/requests.h"

#include <fmt/format.h>

#include <array>

#include "api/fields.h"

namespace pensieve::api::ollama {
namespace {

constexpr size_t kMessagesMax = 100'000;
constexpr size_t kToolsMax = 4096;
constexpr size_t kInputsMax = 2048;
constexpr size_t kStopsMax = 64;
constexpr size_t kStopBytesMax = 256;

// `options`: Ollama's names of sampling fields. What only concerns its own runner (num_ctx, num_gpu, ...) is ignored.
struct Options {
  service::SamplingRequest sampling;
  std::vector<std::string> stop_sequences;
  std::optional<int64_t> new_tokens_max;
};

std::optional<float> Float(FieldReader& fields, std::string_view key, double min, double max) {
  const auto value = fields.Number(key, min, max);
  return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
}

void ReadStop(FieldReader& fields, std::vector<std::string>& stops) {
  const Json* stop = fields.Any("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    stops = {stop->get<std::string>()};
  } else if (auto strings = fields.Strings("stop", kStopsMax)) {
    stops = std::move(*strings);
  }
  for (const std::string& text : stops)
    if (text.empty() || text.size() > kStopBytesMax)
      fields.Fail("stop", fmt::format("each must have 1 to {} bytes", kStopBytesMax));
}

Result<Options> ReadOptions(const Json* object) {
  Options options;
  if (object == nullptr) return options;
  FieldReader fields(*object, "options");
  service::SamplingRequest& sampling = options.sampling;
  sampling.temperature = Float(fields, "temperature", 0, 2);
  sampling.top_p = Float(fields, "top_p", 0, 1);
  sampling.min_p = Float(fields, "min_p", 0, 1);
  sampling.repetition_penalty = Float(fields, "repeat_penalty", 0.01, 100);
  sampling.presence_penalty = Float(fields, "presence_penalty", -2, 2);
  sampling.frequency_penalty = Float(fields, "frequency_penalty", -2, 2);
  if (const auto top_k = fields.Integer("top_k", -1, INT32_MAX))
    sampling.top_k = static_cast<int32_t>(std::max<int64_t>(*top_k, 0));
  // A negative seed asks for a fresh one.
  if (const auto seed = fields.Integer("seed", INT64_MIN, INT64_MAX); seed && *seed >= 0)
    sampling.seed = static_cast<uint64_t>(*seed);
  // -1: without a limit; -2: until the context is full.
  if (const auto tokens = fields.Integer("num_predict", -2, INT64_MAX))
    options.new_tokens_max = *tokens < 0 ? INT64_MAX : *tokens;
  ReadStop(fields, options.stop_sequences);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return options;
}

// Images of a message, as the note that stands for them.
std::string ImageNote(FieldReader& fields) {
  const Json* images = fields.Array("images");
  return images == nullptr || images->empty() ? "" : "[an image that cannot be seen here]\n";
}

Result<Json> FromToolCalls(const Json& calls, const std::string& path) {
  Json out = Json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    FieldReader fields(calls[i], JoinPath(path, i));
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
                   {"function", {{"name", name}, {"arguments", arguments == nullptr ? Json::object() : *arguments}}}});
  }
  return out;
}

Result<Json> FromMessage(const Json& message, const std::string& path) {
  FieldReader fields(message, path);
  const std::string role = fields.RequiredString("role");
  const std::string content = fields.String("content").value_or("");
  const std::string note = ImageNote(fields);
  const Json* calls = fields.Array("tool_calls");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end())
    return InvalidArgument(path + ".role: must be one of system, user, assistant, tool");
  Json turn = {{"role", role}, {"content", note + content}};
  if (role == "tool") {
    turn["tool_call_id"] = fields.String("tool_call_id").value_or("");
    auto name = fields.String("tool_name");
    if (!name) name = fields.String("name");
    if (name) turn["name"] = *name;
  }
  if (role == "assistant") {
    if (const auto thinking = fields.String("thinking")) turn["reasoning_content"] = *thinking;
    if (calls != nullptr && !calls->empty()) {
      PENSIEVE_TRY(turn["tool_calls"], FromToolCalls(*calls, path + ".tool_calls"));
    }
  }
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return turn;
}

Result<Json> FromTools(const Json* tools) {
  Json out = Json::array();
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    if (i >= kToolsMax) return InvalidArgument(fmt::format("tools: must have at most {} entries", kToolsMax));
    FieldReader fields((*tools)[i], JoinPath("tools", i));
    fields.Require("function");
    const Json* function = fields.Object("function");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    FieldReader inner(*function, JoinPath("tools", i) + ".function");
    const std::string name = inner.RequiredString("name");
    const std::string description = inner.String("description").value_or("");
    const Json* parameters = inner.Object("parameters");
    PENSIEVE_RETURN_IF_ERROR(inner.status());
    Json schema = parameters != nullptr ? *parameters : Json{{"type", "object"}, {"properties", Json::object()}};
    out.push_back({{"type", "function"},
                   {"function", {{"name", name}, {"description", description}, {"parameters", std::move(schema)}}}});
  }
  return out.empty() ? Json() : out;
}

// "json", or a schema.
Status ReadFormat(const Json* format, service::ChatRequest& chat) {
  if (format == nullptr || *format == "") return OkStatus();
  if (*format == "json") {
    chat.output_schema = {{"type", "object"}};
  } else if (format->is_object()) {
    chat.output_schema = *format;
  } else {
    return InvalidArgument("format: must be \"json\" or a JSON schema");
  }
  return OkStatus();
}

// true, false, or a level.
Status ReadThink(const Json* think, service::ChatRequest& chat) {
  if (think == nullptr) return OkStatus();
  if (think->is_boolean()) {
    chat.thinking = think->get<bool>();
  } else if (*think == "low" || *think == "medium" || *think == "high") {
    chat.thinking = true;
    chat.effort = think->get<std::string>();
  } else {
    return InvalidArgument("think: must be true, false, \"low\", \"medium\" or \"high\"");
  }
  return OkStatus();
}

// 0 in any of its spellings asks for the model to be unloaded.
bool IsZero(const Json* keep_alive) {
  if (keep_alive == nullptr) return false;
  if (keep_alive->is_number()) return *keep_alive == 0;
  return *keep_alive == "0" || *keep_alive == "0s" || *keep_alive == "0m" || *keep_alive == "0h";
}

// The name of the model; `name` is its older key.
std::string ReadModel(FieldReader& fields) {
  if (const auto name = fields.String("model")) return *name;
  if (const auto name = fields.String("name")) return *name;
  return fields.RequiredString("model");
}

// What both kinds of text requests have, but for their text.
Result<service::ChatRequest> ReadShared(FieldReader& fields, const std::string& request_id, TextRequest& request) {
  service::ChatRequest chat;
  chat.id = request_id;
  chat.model = request.model = ReadModel(fields);
  request.stream = fields.Bool("stream").value_or(true);
  request.unload = IsZero(fields.Any("keep_alive"));
  const Json* object = fields.Object("options");
  chat.sampling.logprobs = fields.Bool("logprobs").value_or(false);
  const auto top_logprobs = static_cast<int32_t>(fields.Integer("top_logprobs", 0, 20).value_or(0));
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  PENSIEVE_TRY(Options options, ReadOptions(object));
  options.sampling.logprobs = chat.sampling.logprobs;
  options.sampling.top_logprobs = top_logprobs;
  chat.sampling = std::move(options.sampling);
  chat.stop_sequences = std::move(options.stop_sequences);
  chat.new_tokens_max = options.new_tokens_max;
  PENSIEVE_RETURN_IF_ERROR(ReadFormat(fields.Any("format"), chat));
  PENSIEVE_RETURN_IF_ERROR(ReadThink(fields.Any("think"), chat));
  return chat;
}

Result<service::EmbedRequest> ReadEmbed(FieldReader& fields, const std::string& request_id) {
  service::EmbedRequest embed;
  embed.id = request_id;
  embed.model = ReadModel(fields);
  embed.truncate = fields.Bool("truncate").value_or(true);
  embed.dimensions = fields.Integer("dimensions", 0, 1 << 20).value_or(0);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return embed;
}

}  // namespace

Result<TextRequest> FromChat(const Json& body, const std::string& request_id) {
  TextRequest request;
  FieldReader fields(body, "");
  PENSIEVE_TRY(service::ChatRequest chat, ReadShared(fields, request_id, request));
  const Json* messages = fields.Array("messages");
  const Json* tools = fields.Array("tools");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (messages == nullptr || messages->empty()) return request;
  if (messages->size() > kMessagesMax)
    return InvalidArgument(fmt::format("messages: must have at most {} entries", kMessagesMax));
  chat.messages = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    PENSIEVE_TRY(Json turn, FromMessage((*messages)[i], JoinPath("messages", i)));
    chat.messages.push_back(std::move(turn));
  }
  PENSIEVE_TRY(chat.tools, FromTools(tools));
  // As Ollama does: a conversation that ends with the model's own words is gone on with.
  const Json& last = chat.messages.back();
  chat.continue_final_message = last["role"] == "assistant" && !last.contains("tool_calls") && last["content"] != "";
  request.text = std::move(chat);
  return request;
}

Result<TextRequest> FromGenerate(const Json& body, const std::string& request_id) {
  TextRequest request;
  FieldReader fields(body, "");
  PENSIEVE_TRY(service::ChatRequest chat, ReadShared(fields, request_id, request));
  const std::string prompt = fields.String("prompt").value_or("");
  const std::string suffix = fields.String("suffix").value_or("");
  const std::string system = fields.String("system").value_or("");
  const bool raw = fields.Bool("raw").value_or(false);
  const std::string note = ImageNote(fields);
  if (const Json* context = fields.Array("context"); context != nullptr && !context->empty())
    fields.Fail("context", "no conversation is kept here; send it to /api/chat");
  if (!fields.String("template").value_or("").empty())
    fields.Fail("template", "the model's own template is used; `raw` goes without one");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (prompt.empty() && suffix.empty()) return request;
  if (raw || !suffix.empty()) {
    if (!chat.output_schema.is_null()) return InvalidArgument("format: a raw prompt cannot have one");
    service::CompletionRequest completion;
    completion.id = chat.id;
    completion.model = chat.model;
    completion.prompt = prompt;
    completion.suffix = suffix;
    completion.new_tokens_max = chat.new_tokens_max;
    completion.stop_sequences = std::move(chat.stop_sequences);
    completion.sampling = std::move(chat.sampling);
    request.text = std::move(completion);
    return request;
  }
  chat.messages = Json::array();
  if (!system.empty()) chat.messages.push_back({{"role", "system"}, {"content", system}});
  chat.messages.push_back({{"role", "user"}, {"content", note + prompt}});
  request.text = std::move(chat);
  return request;
}

Result<service::EmbedRequest> FromEmbed(const Json& body, const std::string& request_id) {
  FieldReader fields(body, "");
  PENSIEVE_TRY(service::EmbedRequest embed, ReadEmbed(fields, request_id));
  const Json* input = fields.Any("input");
  if (input == nullptr) return InvalidArgument("input: Field required");
  if (input->is_string()) {
    embed.texts.push_back(input->get<std::string>());
    return embed;
  }
  auto texts = fields.Strings("input", kInputsMax);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  embed.texts = std::move(*texts);
  return embed;
}

Result<service::EmbedRequest> FromEmbeddings(const Json& body, const std::string& request_id) {
  FieldReader fields(body, "");
  PENSIEVE_TRY(service::EmbedRequest embed, ReadEmbed(fields, request_id));
  embed.texts.push_back(fields.String("prompt").value_or(""));
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return embed;
}

}  // namespace pensieve::api::ollama
