#include "chat/template_probe.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "chat/jinja_evaluator.h"

namespace pensieve::chat {

Result<jinja::TracedText> RenderWith(const jinja::Block& block, const SpecialTokenTexts& special_tokens,
                                     const TemplateInputs& inputs) {
  jinja::RenderContext context;
  for (const auto& [name, text] : special_tokens) context.variables.emplace_back(name, text);
  context.variables.emplace_back("documents", nullptr);
  if (inputs.extra.is_object()) {
    for (const auto& [name, value] : inputs.extra.items()) context.variables.emplace_back(name, value, kRequestOrigin);
  }
  context.variables.emplace_back("messages", inputs.messages, kFirstMessage, /*numbered=*/true);
  context.variables.emplace_back("tools", inputs.tools, kRequestOrigin);
  context.variables.emplace_back("add_generation_prompt", inputs.add_generation_prompt);
  context.now_s = inputs.now_s;
  return jinja::RenderTemplate(block, context);
}

namespace {

// Renders small conversations and looks for their words in the result.
class Prober {
 public:
  Prober(const jinja::Block& block, const SpecialTokenTexts& special_tokens, const std::string& source)
      : block_(block), special_tokens_(special_tokens), source_(source) {}

  TemplateProbe Run() {
    TemplateProbe probe;
    GuessVariables();
    probe.abilities = Abilities();
    probe.frame = Frame(probe.abilities);
    probe.answer_end = AnswerEnd();
    probe.turn_borders = TurnBorders();
    probe.runs = Runs();
    return probe;
  }

 private:
  static constexpr const char* kUser = "Quartzuser";
  static constexpr const char* kSystem = "Quartzsystem";
  static constexpr const char* kAnswer = "Quartzanswer";
  static constexpr const char* kLater = "Quartzlater";
  static constexpr int kGuessesMax = 8;

  static bool Has(std::string_view text, std::string_view word) { return text.find(word) != std::string_view::npos; }

  // --- variables that a request may give ----------------------------------------------------------------------------

  // The global that a template misses; empty for every other error.
  static std::string MissingVariable(const Status& error) {
    constexpr std::string_view kEnd = "' is undefined";
    const std::string& message = error.message();
    const size_t begin = message.find('\'');
    if (!message.ends_with(kEnd) || begin == std::string::npos) return "";
    const std::string name = message.substr(begin + 1, message.size() - kEnd.size() - begin - 1);
    return Has(name, "'") ? "" : name;
  }

  // OK when a user's turn renders in one of the forms that templates want it in; else the first form's error.
  Status RendersSomehow() const {
    Status first;
    for (const Json& turn : {TextTurn("user", kUser), PartsTurn()}) {
      for (const Json& tools : {Json(), Json::array()}) {
        const Json messages = Json::array({turn});
        const auto text = RenderWith(block_, special_tokens_, TemplateInputs{messages, tools, true, extra_, 0});
        if (text.has_value()) return OkStatus();
        if (first.ok()) first = text.error();
      }
    }
    return first;
  }

  // A template may demand what requests can give it (functions, datetime): probes do as such a request would.
  void GuessVariables() {
    for (int i = 0; i < kGuessesMax; ++i) {
      const std::string name = MissingVariable(RendersSomehow());
      if (name.empty()) return;
      bool helped = false;
      for (const Json& value : {Json(""), Json(Json::array()), Json(Json::object())}) {
        extra_[name] = value;
        const Status now = RendersSomehow();
        const std::string next = MissingVariable(now);
        helped = now.ok() || (!next.empty() && next != name);
        if (helped) break;
      }
      if (helped) continue;
      extra_.erase(name);
      return;
    }
  }

  // --- abilities ----------------------------------------------------------------------------------------------------

  TemplateAbilities Abilities() {
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

  // Behind an answer that is the last turn.
  std::string AnswerEnd() const {
    const std::string text = Closed({Turn("user", kUser), Turn("assistant", kAnswer)});
    const size_t at = text.rfind(kAnswer);
    return at == std::string::npos ? std::string() : text.substr(at + std::string_view(kAnswer).size());
  }

  // The template's error on a user turn in the form that it takes best.
  Status Runs() const {
    const Json messages = Json::array({Turn("user", kUser)});
    const auto text = RenderWith(block_, special_tokens_, TemplateInputs{messages, no_tools_, true, extra_, 0});
    return text.has_value() || !text.error().message().starts_with("line ") ? OkStatus() : text.error();
  }

  static Json TextTurn(const char* role, const char* text) { return Json{{"role", role}, {"content", text}}; }
  Json Turn(const char* role, const char* text) const {
    if (!use_parts_) return TextTurn(role, text);
    return Json{{"role", role}, {"content", Json::array({Json{{"type", "text"}, {"text", text}}})}};
  }
  static Json PartsTurn() {
    return Json{{"role", "user"}, {"content", Json::array({Json{{"type", "text"}, {"text", kUser}}})}};
  }

  // Empty when the template refuses.
  jinja::TracedText Traced(const std::vector<Json>& turns, const Json& tools, bool open) const {
    const Json messages = turns;
    auto text = RenderWith(block_, special_tokens_, TemplateInputs{messages, tools, open, extra_, 0});
    return text.has_value() ? *std::move(text) : jinja::TracedText();
  }
  std::string Closed(const std::vector<Json>& turns) const { return Traced(turns, no_tools_, false).bytes(); }
  std::string TryWith(const std::vector<Json>& turns, const Json& tools) const {
    return Traced(turns, tools, true).bytes();
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
    const std::string answers =
        Try({Turn("user", kUser), Turn("assistant", kAnswer), Turn("assistant", kLater), Turn("user", "Quartzlast")});
    return Has(users, kUser) && Has(users, kLater) && Has(answers, kAnswer) && Has(answers, kLater);
  }

  static Json Tool() {
    const Json parameters = {{"type", "object"},
                             {"properties", {{"city", {{"type", "string"}, {"description", "Quartz city"}}}}},
                             {"required", Json::array({"city"})}};
    return Json{{"type", "function"},
                {"function", {{"name", "quartz_tool"}, {"description", "Quartz."}, {"parameters", parameters}}}};
  }

  static Json Call(const char* name, const char* id, Json arguments) {
    return Json{{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", std::move(arguments)}}}};
  }
  static Json Arguments(bool as_text) {
    return as_text ? Json(R"({"city": "Quartzcity"})") : Json{{"city", "Quartzcity"}};
  }
  Json CallingTurn(std::vector<Json> calls) const {
    Json turn = Turn("assistant", "");
    turn["tool_calls"] = std::move(calls);
    return turn;
  }
  Json ResultTurn(const char* id, const char* text) const {
    Json turn = Turn("tool", text);
    turn["tool_call_id"] = id;
    return turn;
  }

  // Objects where they are shown as JSON, or as the template likes; text where only that works: a template that joins
  // strings refuses an object, and one that prints it shows Python's quotes.
  void ProbeArguments(TemplateAbilities& found, const Json& tools) const {
    const auto shown = [&](Json arguments) {
      return TryWith({Turn("user", kUser), CallingTurn({Call("quartz_first", kFirstId, std::move(arguments))})}, tools);
    };
    const std::string as_object = shown(Arguments(false));
    const std::string as_text = shown(Arguments(true));
    found.arguments_text =
        Has(as_text, R"({"city": "Quartzcity"})") && (!Has(as_object, "Quartzcity") || Has(as_object, "'Quartzcity'"));
    // Within quotes it would be a string, which is no call's arguments.
    const std::string malformed = shown("{Quartzbroken");
    found.malformed_arguments =
        Has(malformed, "{Quartzbroken") && !Has(malformed, "\"{Quartzbroken") && !Has(malformed, "'{Quartzbroken");
  }

  void ProbeTools(TemplateAbilities& found) const {
    const Json tools = Json::array({Tool()});
    const std::vector<Json> turns = {Turn("user", kUser)};
    const std::string with = TryWith(turns, tools);
    found.tools = Has(with, "quartz_tool") && with != Try(turns);
    ProbeArguments(found, tools);
    const Json call_of_first = Call("quartz_first", kFirstId, Arguments(found.arguments_text));
    const Json call_of_second = Call("quartz_second", kSecondId, Arguments(found.arguments_text));
    const Json first = ResultTurn(kFirstId, "Quartzresult");
    const Json second = ResultTurn(kSecondId, "Quartzother");
    const Json both_calls = CallingTurn({call_of_first, call_of_second});
    const std::string both = TryWith({Turn("user", kUser), both_calls, first, second}, tools);
    const Json call = CallingTurn({call_of_first});
    const std::string one = TryWith({Turn("user", kUser), call, first}, tools);
    const std::string next = TryWith({Turn("user", kUser), call, first, Turn("user", kLater)}, tools);
    const std::string answered =
        TryWith({Turn("user", kUser), call, first, Turn("assistant", ""), Turn("user", kLater)}, tools);
    found.user_after_tool = Has(next, kLater) || !Has(answered, kLater);
    // A template that shows no calls at all gains nothing by turns of one call each.
    const bool shows_calls = Has(one, "quartz_first");
    const bool takes_both = !both.empty() || one.empty();
    found.parallel_tool_calls = shows_calls ? Has(both, "quartz_first") && Has(both, "quartz_second") : takes_both;
  }

  // --- borders of turns ---------------------------------------------------------------------------------------------

  static std::string_view Behind(std::string_view text, std::string_view word) {
    const size_t at = text.rfind(word);
    return at == std::string_view::npos ? std::string_view() : text.substr(at + word.size());
  }

  // What the template has written behind the last byte of the messages.
  static std::string LastWords(const jinja::TracedText& text) {
    const auto runs = text.Runs();
    if (runs.empty() || runs.back().origin != jinja::kFromTemplate) return "";
    return text.bytes().substr(runs.size() == 1 ? 0 : runs[runs.size() - 2].end);
  }

  TurnFrame Frame(const TemplateAbilities& abilities) const {
    const std::string user_end = LastWords(Traced({Turn("user", kUser)}, no_tools_, false));
    const std::string open = Try({Turn("user", kUser)});
    const std::string closed = Closed({Turn("user", kUser), Turn("assistant", kAnswer)});
    std::string_view generated = Behind(open, kUser);
    std::string_view shown =
        Behind(std::string_view(closed).substr(0, std::min(closed.rfind(kAnswer), closed.size())), kUser);
    TurnFrame frame;
    if (generated.starts_with(user_end) && shown.starts_with(user_end)) {
      generated.remove_prefix(user_end.size());
      shown.remove_prefix(user_end.size());
      const auto [end, unused] = std::mismatch(generated.begin(), generated.end(), shown.begin(), shown.end());
      frame.header.assign(generated.begin(), end);
    }
    frame.closers.push_back(user_end);
    const Json call = Call("quartz_first", kFirstId, Arguments(abilities.arguments_text));
    const std::vector<Json> called = {Turn("user", kUser), CallingTurn({call}), ResultTurn(kFirstId, "Quartzresult")};
    frame.closers.push_back(LastWords(Traced(called, Json::array({Tool()}), false)));
    frame.answer_end = AnswerEnd();
    const size_t begin = std::min(frame.answer_end.find_first_not_of(" \t\r\n"), frame.answer_end.size());
    frame.answer_end = frame.answer_end.substr(begin, frame.answer_end.find_last_not_of(" \t\r\n") + 1 - begin);
    return frame;
  }

  std::string TurnBorders() const {
    const std::string text = Closed({Turn("user", kUser), Turn("assistant", kAnswer), Turn("user", kLater)});
    const std::string_view behind = Behind(text, kAnswer);
    const size_t at = behind.find(kLater);
    return at == std::string_view::npos ? std::string()
                                        : std::string(behind.substr(0, at)) + std::string(Behind(text, kLater));
  }

  static constexpr const char* kFirstId = "abcdefgh1";
  static constexpr const char* kSecondId = "abcdefgh2";

  const jinja::Block& block_;
  const SpecialTokenTexts& special_tokens_;
  const std::string& source_;
  Json extra_ = Json::object();
  Json no_tools_;
  bool use_parts_ = false;
};

}  // namespace

TemplateProbe ProbeTemplate(const jinja::Block& block, const SpecialTokenTexts& special_tokens,
                            const std::string& source) {
  return Prober(block, special_tokens, source).Run();
}

}  // namespace pensieve::chat
