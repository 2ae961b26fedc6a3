#include "chat/adapt_messages.h"

#include <fmt/format.h>

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "chat/jinja_print.h"

namespace pensieve::chat {
namespace {

constexpr std::string_view kTurnGap = "\n\n";  // between texts of turns that become one

std::string Role(const Json& message) { return message.value("role", std::string()); }

bool HasToolCalls(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

std::string PartText(const Json& part) {
  const auto text = part.is_object() ? part.find("text") : part.end();
  return part.is_object() && text != part.end() && text->is_string() ? text->get<std::string>() : std::string();
}

// The text of content that is a string or holds only text parts.
std::string ContentText(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end()) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (content->is_array()) {
    for (const Json& part : *content) text += PartText(part);
  }
  return text;
}

// Adds text behind, or in front of, whatever form the content has.
void AppendText(Json& message, const std::string& text) {
  Json& content = message["content"];
  if (content.is_array()) {
    content.push_back({{"type", "text"}, {"text", std::string(kTurnGap) + text}});
    return;
  }
  if (!content.is_string()) content = "";
  auto& before = content.get_ref<std::string&>();  // grows in place: many turns may be joined
  if (!before.empty()) before += kTurnGap;
  before += text;
}

void PrependText(Json& message, const std::string& text) {
  Json& content = message["content"];
  if (content.is_array()) {
    content.insert(content.begin(), Json{{"type", "text"}, {"text", text + std::string(kTurnGap)}});
    return;
  }
  const std::string after = content.is_string() ? content.get<std::string>() : "";
  content = after.empty() ? text : text + std::string(kTurnGap) + after;
}

// --- one message ---------------------------------------------------------------------------------------------------

Status AdaptContent(Json& message, size_t index, const TemplateAbilities& abilities) {
  Json& content = message["content"];
  if (content.is_null()) {
    if (!(abilities.content_null && HasToolCalls(message))) content = "";
    return OkStatus();
  }
  if (content.is_array() && !abilities.content_parts) {
    for (const Json& part : content) {
      const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string();
      if (is_text) continue;
      const std::string type = part.is_object() ? part.value("type", std::string("?")) : std::string("?");
      return InvalidArgument(
          fmt::format("messages[{}]: this model's template cannot show a content part of type '{}'", index, type));
    }
    content = ContentText(message);
  }
  if (content.is_string() && !abilities.content_text && abilities.content_parts) {
    content = Json::array({Json{{"type", "text"}, {"text", content}}});
  }
  return OkStatus();
}

// OpenAI sends arguments as a JSON string, templates want the object or the string. A model may have written anything:
// what it wrote must not lock the conversation.
void AdaptArguments(Json& call, const TemplateAbilities& abilities) {
  Json& function = call.contains("function") && call["function"].is_object() ? call["function"] : call;
  Json& arguments = function["arguments"];
  if (arguments.is_string()) {
    auto parsed = ParseJson(arguments.get_ref<const std::string&>());
    if (parsed.has_value() && parsed->is_object()) {
      if (!abilities.arguments_text) arguments = *std::move(parsed);
      return;
    }
    if (abilities.malformed_arguments && !arguments.get_ref<const std::string&>().empty()) return;
  }
  if (!arguments.is_object()) arguments = Json::object();
  if (abilities.arguments_text) arguments = PythonJson(arguments);
}

void AliasReasoning(Json& message) {
  for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.find(key);
    if (found == message.end() || !found->is_string()) continue;
    const Json reasoning = *found;
    if (!message.contains("thinking")) message["thinking"] = reasoning;
    message["reasoning_content"] = reasoning;
    return;
  }
}

Status AdaptMessage(Json& message, size_t index, const TemplateAbilities& abilities) {
  if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
    return InvalidArgument(fmt::format("messages[{}]: must be an object with a role", index));
  }
  if (Role(message) == "developer") message["role"] = "system";
  PENSIEVE_RETURN_IF_ERROR(AdaptContent(message, index, abilities));
  AliasReasoning(message);
  if (!HasToolCalls(message)) {
    message.erase("tool_calls");  // null or empty: templates ask whether the key is there
    return OkStatus();
  }
  for (Json& call : message["tool_calls"]) {
    if (!call.is_object()) return InvalidArgument(fmt::format("messages[{}]: a tool call must be an object", index));
    AdaptArguments(call, abilities);
  }
  return OkStatus();
}

// --- tools for templates that know none ----------------------------------------------------------------------------

std::string HermesToolSection(const Json& tools) {
  std::string section =
      "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
      "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
  for (const Json& tool : tools) section += "\n" + PythonJson(tool);
  return section +
         "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
         "<tool_call></tool_call> XML tags:\n<tool_call>\n"
         "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";
}

std::string HermesCall(const Json& call) {
  const Json& function = call.contains("function") ? call["function"] : call;
  const std::string name = function.is_object() ? function.value("name", std::string()) : std::string();
  const Json arguments =
      function.is_object() && function.contains("arguments") ? function["arguments"] : Json::object();
  return fmt::format("<tool_call>\n{{\"name\": {}, \"arguments\": {}}}\n</tool_call>", PythonJson(name),
                     PythonJson(arguments));
}

void SpellOutToolHistory(std::vector<Json>& messages) {
  std::vector<Json> turns;
  bool after_result = false;
  for (Json& message : messages) {
    const std::string role = Role(message);
    if (HasToolCalls(message)) {
      std::string text = ContentText(message);
      for (const Json& call : message["tool_calls"]) text += (text.empty() ? "" : "\n") + HermesCall(call);
      message["content"] = text;
      message.erase("tool_calls");
    }
    if (role != "tool") {
      turns.push_back(std::move(message));
      after_result = false;
      continue;
    }
    const std::string text = "<tool_response>\n" + ContentText(message) + "\n</tool_response>";
    if (after_result) {
      Json& content = turns.back()["content"];
      content = content.get<std::string>() + "\n" + text;
    } else {
      turns.push_back(Json{{"role", "user"}, {"content", text}});
    }
    after_result = true;
  }
  messages = std::move(turns);
}

// --- system turns --------------------------------------------------------------------------------------------------

// Takes the system turns at the front, as one text; none when there is no such turn.
std::optional<std::string> TakeLeadingSystem(std::vector<Json>& messages) {
  std::string system;
  size_t count = 0;
  for (; count < messages.size() && Role(messages[count]) == "system"; ++count) {
    const std::string text = ContentText(messages[count]);
    if (text.empty()) continue;
    system += (system.empty() ? "" : std::string(kTurnGap)) + text;
  }
  messages.erase(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count));
  return count == 0 ? std::nullopt : std::optional(std::move(system));
}

Json TextTurn(const char* role, const std::string& text, const TemplateAbilities& abilities) {
  if (abilities.content_text || !abilities.content_parts) return Json{{"role", role}, {"content", text}};
  return Json{{"role", role}, {"content", Json::array({Json{{"type", "text"}, {"text", text}}})}};
}

void PlaceLeadingSystem(std::vector<Json>& messages, const std::string& system, const TemplateAbilities& abilities) {
  if (abilities.system) {
    messages.insert(messages.begin(), TextTurn("system", system, abilities));
  } else if (system.empty()) {
    return;
  } else if (!messages.empty() && Role(messages.front()) == "user") {
    PrependText(messages.front(), system);
  } else {
    messages.insert(messages.begin(), TextTurn("user", system, abilities));
  }
}

void FoldLaterSystem(std::vector<Json>& messages, const TemplateAbilities& abilities) {
  std::vector<Json> turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (i == 0 || Role(messages[i]) != "system") {
      turns.push_back(std::move(messages[i]));
      continue;
    }
    const std::string text = "<system-reminder>\n" + ContentText(messages[i]) + "\n</system-reminder>";
    const std::string before = Role(turns.back());
    if (before == "user" || before == "tool") {
      AppendText(turns.back(), text);
    } else {
      turns.push_back(TextTurn("user", text, abilities));
    }
  }
  messages = std::move(turns);
}

void MergeSameRole(std::vector<Json>& messages) {
  std::vector<Json> turns;
  for (Json& message : messages) {
    const std::string role = Role(message);
    const bool mergeable = !turns.empty() && Role(turns.back()) == role && (role == "user" || role == "assistant") &&
                           !HasToolCalls(turns.back());
    if (!mergeable) {
      turns.push_back(std::move(message));
      continue;
    }
    const Json content = message["content"];
    if (content.is_array()) {
      for (const Json& part : content) AppendText(turns.back(), PartText(part));
    } else if (content.is_string()) {
      AppendText(turns.back(), content.get<std::string>());
    }
    if (HasToolCalls(message)) turns.back()["tool_calls"] = message["tool_calls"];
  }
  messages = std::move(turns);
}

// --- tool calls of the history -------------------------------------------------------------------------------------

// One assistant turn with n calls and its n results become n pairs.
void SpreadToolCalls(std::vector<Json>& messages) {
  std::vector<Json> turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!HasToolCalls(messages[i]) || messages[i]["tool_calls"].size() == 1) {
      turns.push_back(std::move(messages[i]));
      continue;
    }
    std::vector<Json> results;
    while (i + 1 + results.size() < messages.size() && Role(messages[i + 1 + results.size()]) == "tool") {
      results.push_back(std::move(messages[i + 1 + results.size()]));
    }
    const Json calls = messages[i]["tool_calls"];
    const size_t consumed = results.size();
    for (size_t c = 0; c < calls.size(); ++c) {
      Json turn = c == 0 ? messages[i] : Json{{"role", "assistant"}, {"content", ""}};
      turn["tool_calls"] = Json::array({calls[c]});
      turns.push_back(std::move(turn));
      const std::string id = calls[c].value("id", std::string());
      // Its own result by id, else simply the next one.
      size_t at = 0;
      while (at < results.size() && results[at].value("tool_call_id", std::string()) != id) ++at;
      if (at == results.size()) at = 0;
      if (results.empty()) continue;
      turns.push_back(std::move(results[at]));
      results.erase(results.begin() + static_cast<std::ptrdiff_t>(at));
    }
    for (Json& rest : results) turns.push_back(std::move(rest));
    i += consumed;
  }
  messages = std::move(turns);
}

// An empty answer between a tool result and the user turn behind it.
void AnswerToolResults(std::vector<Json>& messages) {
  for (size_t i = 1; i < messages.size(); ++i) {
    if (Role(messages[i - 1]) != "tool" || Role(messages[i]) != "user") continue;
    messages.insert(messages.begin() + static_cast<std::ptrdiff_t>(i), Json{{"role", "assistant"}, {"content", ""}});
  }
}

// Nine letters or digits that depend only on the id (FNV-1a in base 62); fitting ids stay.
std::string NineLetterId(const std::string& id) {
  constexpr std::string_view kLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  if (id.size() == 9 && id.find_first_not_of(kLetters) == std::string::npos) return id;
  uint64_t hash = 14695981039346656037ull;
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  std::string letters;
  for (int i = 0; i < 9; ++i, hash /= kLetters.size()) letters += kLetters[hash % kLetters.size()];
  return letters;
}

void ShortenCallIds(std::vector<Json>& messages) {
  for (Json& message : messages) {
    if (Role(message) == "tool") message["tool_call_id"] = NineLetterId(message.value("tool_call_id", std::string()));
    if (!HasToolCalls(message)) continue;
    for (Json& call : message["tool_calls"]) call["id"] = NineLetterId(call.value("id", std::string()));
  }
}

Status CheckStrings(const Json& messages) {
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object()) continue;
    for (const char* key : {"tool_call_id", "name"}) {
      const auto found = messages[i].find(key);
      if (found != messages[i].end() && !found->is_string() && !found->is_null()) {
        return InvalidArgument(fmt::format("messages[{}]: {} must be a string", i, key));
      }
    }
  }
  return OkStatus();
}

// Null ids and names are as good as absent ones, and `value()` of the JSON library wants strings.
void DropNullKeys(Json& message) {
  for (const char* key : {"tool_call_id", "name"}) {
    if (message.is_object() && message.contains(key) && message[key].is_null()) message.erase(key);
  }
  if (!message.is_object() || !HasToolCalls(message)) return;
  for (Json& call : message["tool_calls"]) {
    if (call.is_object() && call.contains("id") && !call["id"].is_string()) call.erase("id");
  }
}

}  // namespace

Result<AdaptedInputs> AdaptForTemplate(const Json& messages, const Json& tools, const TemplateAbilities& abilities) {
  if (!messages.is_array() || messages.empty()) return InvalidArgument("messages: must be an array with a message");
  if (!tools.is_null() && !tools.is_array()) return InvalidArgument("tools: must be an array");
  PENSIEVE_RETURN_IF_ERROR(CheckStrings(messages));
  std::vector<Json> turns(messages.begin(), messages.end());
  for (size_t i = 0; i < turns.size(); ++i) {
    DropNullKeys(turns[i]);
    PENSIEVE_RETURN_IF_ERROR(AdaptMessage(turns[i], i, abilities));
  }
  const bool has_tools = tools.is_array() && !tools.empty();
  std::optional<std::string> system = TakeLeadingSystem(turns);
  if (!abilities.tools) {
    if (has_tools) {
      const std::string before = system.value_or("");
      system = before + (before.empty() ? "" : std::string(kTurnGap)) + HermesToolSection(tools);
    }
    SpellOutToolHistory(turns);
  }
  if (system.has_value()) PlaceLeadingSystem(turns, *system, abilities);
  if (!abilities.system_mid_conversation) FoldLaterSystem(turns, abilities);
  if (!abilities.same_role_turns) MergeSameRole(turns);
  if (!abilities.user_after_tool) AnswerToolResults(turns);
  if (!abilities.parallel_tool_calls) SpreadToolCalls(turns);
  if (abilities.nine_letter_call_ids) ShortenCallIds(turns);

  AdaptedInputs adapted;
  adapted.messages = Json::array();
  for (Json& turn : turns) adapted.messages.push_back(std::move(turn));
  if (has_tools && abilities.tools) {
    adapted.tools = tools;
  } else if (!abilities.tools_none) {
    adapted.tools = Json::array();
  }
  return adapted;
}

std::string PythonJson(const Json& json) {
  if (json.is_number_float()) return jinja::FloatRepr(json.get<double>());
  if (!json.is_structured()) return DumpJson(json);
  std::string text(1, json.is_array() ? '[' : '{');
  bool first = true;
  for (const auto& [key, value] : json.items()) {
    if (!first) text += ", ";
    first = false;
    if (json.is_object()) text += DumpJson(key) + ": ";
    text += PythonJson(value);
  }
  return text + (json.is_array() ? ']' : '}');
}

}  // namespace pensieve::chat
