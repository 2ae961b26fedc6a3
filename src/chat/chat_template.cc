#include "chat/chat_template.h"

#include <chrono>
#include <utility>
#include <vector>

#include "chat/adapt_messages.h"
#include "chat/jinja_evaluator.h"
#include "chat/jinja_parser.h"
#include "chat/python_text.h"

namespace pensieve::chat {
namespace {

using SpecialTokens = std::map<std::string, std::string>;

int64_t SystemNow() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

struct Variables {
  const Json& messages;
  const Json& tools;  // array or null
  bool add_generation_prompt = true;
  const Json& extra;  // object or null
  int64_t now_s = 0;
};

Result<std::string> RenderWith(const jinja::Block& block, const SpecialTokens& special_tokens,
                               const Variables& variables) {
  jinja::RenderContext context;
  for (const auto& [name, text] : special_tokens) context.variables.emplace_back(name, text);
  context.variables.emplace_back("documents", nullptr);
  if (variables.extra.is_object()) {
    for (const auto& [name, value] : variables.extra.items()) context.variables.emplace_back(name, value);
  }
  context.variables.emplace_back("messages", variables.messages);
  context.variables.emplace_back("tools", variables.tools);
  context.variables.emplace_back("add_generation_prompt", variables.add_generation_prompt);
  context.now_s = variables.now_s;
  return jinja::RenderTemplate(block, context);
}

// Renders small conversations and looks for their words in the result.
class Prober {
 public:
  Prober(const jinja::Block& block, const SpecialTokens& special_tokens, const std::string& source)
      : block_(block), special_tokens_(special_tokens), source_(source) {}

  TemplateAbilities Run() {
    TemplateAbilities found;
    const Json user = Turn("user", kUser);
    // A template that fails with text may want parts, or a list of tools; the first form that works serves all probes.
    found.tools_none = !Try({user}).empty() || TryWith({user}, Json::array()).empty();
    no_tools_ = found.tools_none ? Json() : Json::array();
    const std::string with_parts = TryWith({PartsTurn()}, no_tools_);
    found.content_parts = Has(with_parts, kUser) && !Has(with_parts, "'text'") && !Has(with_parts, "\"text\"");
    found.content_text = Has(Try({user}), kUser) || !found.content_parts;
    use_parts_ = !found.content_text;
    found.system = Has(Try({Turn("system", kSystem), Turn("user", kUser)}), kSystem);
    found.system_mid_conversation = SystemStaysInPlace(found.system);
    found.same_role_turns = SameRoleTurns();
    found.content_null = Has(source_, "content is not none") || Has(source_, "content is none") ||
                         Has(source_, "['content'] is not none") || Has(source_, "['content'] is none");
    found.nine_letter_call_ids = Has(source_, "length != 9") || Has(source_, "length == 9");
    ProbeTools(found);
    return found;
  }

  // Behind an answer that is the last turn. To be called after Run.
  std::string AnswerEnd() const {
    const std::string text = Closed({Turn("user", kUser), Turn("assistant", kAnswer)});
    const size_t at = text.rfind(kAnswer);
    return at == std::string::npos ? std::string() : text.substr(at + std::string_view(kAnswer).size());
  }

  // The template's error on a user turn in the form that it takes best; raise_exception's words are none. After Run.
  Status Runs() const {
    const Json messages = Json::array({Turn("user", kUser)});
    const auto text = RenderWith(block_, special_tokens_, Variables{messages, no_tools_, true, Json(), 0});
    return text.has_value() || !text.error().message().starts_with("line ") ? OkStatus() : text.error();
  }

 private:
  static constexpr const char* kUser = "Quartzuser";
  static constexpr const char* kSystem = "Quartzsystem";
  static constexpr const char* kAnswer = "Quartzanswer";
  static constexpr const char* kLater = "Quartzlater";

  static bool Has(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

  Json Turn(const char* role, const char* text) const {
    if (!use_parts_) return Json{{"role", role}, {"content", text}};
    return Json{{"role", role}, {"content", Json::array({Json{{"type", "text"}, {"text", text}}})}};
  }
  static Json PartsTurn() {
    return Json{{"role", "user"}, {"content", Json::array({Json{{"type", "text"}, {"text", kUser}}})}};
  }

  // Empty when the template refuses.
  std::string Closed(const std::vector<Json>& turns) const {
    Json messages = Json::array();
    for (const Json& turn : turns) messages.push_back(turn);
    auto text = RenderWith(block_, special_tokens_, Variables{messages, no_tools_, false, Json(), 0});
    return text.has_value() ? *std::move(text) : std::string();
  }
  std::string TryWith(const std::vector<Json>& turns, const Json& tools) const {
    Json messages = Json::array();
    for (const Json& turn : turns) messages.push_back(turn);
    auto text = RenderWith(block_, special_tokens_, Variables{messages, tools, true, Json(), 0});
    return text.has_value() ? *std::move(text) : std::string();
  }
  std::string Try(const std::vector<Json>& turns) const { return TryWith(turns, no_tools_); }

  // A later system turn must stand behind what came before it and in front of what follows.
  bool SystemStaysInPlace(bool system) const {
    const std::string after_user = Try({Turn("user", kUser), Turn("system", kLater)});
    const size_t user_at = after_user.find(kUser);
    const size_t later_at = after_user.find(kLater);
    if (user_at == std::string::npos || later_at == std::string::npos || later_at < user_at) return false;
    std::vector<Json> turns = {Turn("user", kUser), Turn("assistant", kAnswer), Turn("system", kLater),
                               Turn("user", "Quartzlast")};
    if (system) turns.insert(turns.begin(), Turn("system", kSystem));
    const std::string text = Try(turns);
    const size_t answer = text.find(kAnswer);
    const size_t later = text.find(kLater);
    const size_t last = text.find("Quartzlast");
    const bool all = answer != std::string::npos && later != std::string::npos && last != std::string::npos;
    return all && answer < later && later < last && (!system || Has(text, kSystem));
  }

  bool SameRoleTurns() const {
    const std::string users = Try({Turn("user", kUser), Turn("user", kLater)});
    const std::string answers = Try({Turn("user", kUser), Turn("assistant", kAnswer), Turn("assistant", kLater),
                                     Turn("user", "Quartzlast")});
    return Has(users, kUser) && Has(users, kLater) && Has(answers, kAnswer) && Has(answers, kLater);
  }

  static Json Tool() {
    const Json parameters = {{"type", "object"},
                             {"properties", {{"city", {{"type", "string"}, {"description", "Quartz city"}}}}},
                             {"required", Json::array({"city"})}};
    return Json{{"type", "function"},
                {"function", {{"name", "quartz_tool"}, {"description", "Quartz."}, {"parameters", parameters}}}};
  }

  static Json Call(const char* name, const char* id) {
    return Json{{"id", id}, {"type", "function"},
                {"function", {{"name", name}, {"arguments", {{"city", "Quartzcity"}}}}}};
  }

  void ProbeTools(TemplateAbilities& found) const {
    const Json tools = Json::array({Tool()});
    const std::vector<Json> turns = {Turn("user", kUser)};
    const std::string with = TryWith(turns, tools);
    found.tools = Has(with, "quartz_tool") && with != Try(turns);
    Json calls = Turn("assistant", "");
    calls["tool_calls"] = Json::array({Call("quartz_first", "abcdefgh1"), Call("quartz_second", "abcdefgh2")});
    Json first = Turn("tool", "Quartzresult");
    first["tool_call_id"] = "abcdefgh1";
    Json second = Turn("tool", "Quartzother");
    second["tool_call_id"] = "abcdefgh2";
    const std::string both = TryWith({Turn("user", kUser), calls, first, second}, tools);
    Json call = Turn("assistant", "");
    call["tool_calls"] = Json::array({Call("quartz_first", "abcdefgh1")});
    const std::string next = TryWith({Turn("user", kUser), call, first, Turn("user", kLater)}, tools);
    const std::string answered =
        TryWith({Turn("user", kUser), call, first, Turn("assistant", ""), Turn("user", kLater)}, tools);
    found.user_after_tool = Has(next, kLater) || !Has(answered, kLater);
    found.parallel_tool_calls = Has(both, "quartz_first") && Has(both, "quartz_second");
  }

  const jinja::Block& block_;
  const SpecialTokens& special_tokens_;
  const std::string& source_;
  Json no_tools_;
  bool use_parts_ = false;
};

// As HF transformers: an unlikely tag behind the last content, and the prompt cut where it shows up.
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";

Status TagLastMessage(Json& messages) {
  Json& last = messages.back();
  if (last.value("role", std::string()) != "assistant") {
    return InvalidArgument("continue_final_message needs an assistant message at the end");
  }
  Json& content = last["content"];
  if (content.is_array() && !content.empty() && content.back().contains("text")) {
    Json& text = content.back()["text"];
    text = text.get<std::string>() + std::string(kContinueTag);
    return OkStatus();
  }
  if (!content.is_string()) return InvalidArgument("continue_final_message: the last message has no text");
  content = content.get<std::string>() + std::string(kContinueTag);
  return OkStatus();
}

Result<std::string> CutAtTag(std::string text) {
  const std::string_view bare = kContinueTag.substr(0, kContinueTag.size() - 1);
  const size_t at = text.rfind(bare);
  if (at == std::string::npos) {
    return InvalidArgument("continue_final_message: the template does not show the last message");
  }
  const bool keeps_spaces = text.compare(at, kContinueTag.size(), kContinueTag) == 0;
  text.resize(at);
  return keeps_spaces ? text : std::string(StripSpaceRight(text));
}

}  // namespace

struct ChatTemplate::Parsed {
  std::string source;
  SpecialTokens special_tokens;
  jinja::Block block;
  TemplateAbilities abilities;
  std::string answer_end;
};

Result<ChatTemplate> ChatTemplate::Parse(std::string source, std::map<std::string, std::string> special_tokens) {
  auto block = jinja::ParseTemplate(source);
  if (!block.has_value()) return block.error().WithContext("chat template");
  auto parsed = std::make_shared<Parsed>();
  parsed->source = std::move(source);
  parsed->special_tokens = std::move(special_tokens);
  parsed->block = *std::move(block);
  Prober prober(parsed->block, parsed->special_tokens, parsed->source);
  parsed->abilities = prober.Run();
  parsed->answer_end = prober.AnswerEnd();
  if (Status runs = prober.Runs(); !runs.ok()) return runs.WithContext("chat template");
  return ChatTemplate(std::move(parsed));
}

Result<std::string> ChatTemplate::Render(const RenderInputs& inputs) const {
  if (!inputs.extra_context.is_null() && !inputs.extra_context.is_object()) {
    return InvalidArgument("chat_template_kwargs: must be an object");
  }
  TemplateAbilities abilities = parsed_->abilities;
  abilities.tools = abilities.tools || !inputs.spell_out_tools;
  PENSIEVE_TRY(auto adapted, AdaptForTemplate(inputs.messages, inputs.tools, abilities));
  if (inputs.continue_final_message) PENSIEVE_RETURN_IF_ERROR(TagLastMessage(adapted.messages));
  const Variables variables{adapted.messages, adapted.tools,
                            inputs.add_generation_prompt && !inputs.continue_final_message, inputs.extra_context,
                            inputs.now_s.value_or(SystemNow())};
  auto text = RenderWith(parsed_->block, parsed_->special_tokens, variables);
  if (!text.has_value()) return text.error().WithContext("chat template");
  return inputs.continue_final_message ? CutAtTag(*std::move(text)) : text;
}

const std::string& ChatTemplate::source() const { return parsed_->source; }
const std::string& ChatTemplate::answer_end() const { return parsed_->answer_end; }
bool ChatTemplate::supports_tools() const { return parsed_->abilities.tools; }
bool ChatTemplate::supports_system() const { return parsed_->abilities.system; }
bool ChatTemplate::supports_system_mid_conversation() const { return parsed_->abilities.system_mid_conversation; }
bool ChatTemplate::content_parts() const { return parsed_->abilities.content_parts; }

}  // namespace pensieve::chat
