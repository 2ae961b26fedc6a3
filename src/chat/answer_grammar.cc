#include "chat/answer_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "chat/grammar_text.h"
#include "chat/json_schema.h"
#include "sampling/token_trie.h"

namespace pensieve::chat {
namespace {

using sampling::Budget;
using sampling::Dfa;
using sampling::GrammarBuilder;
using NodeId = sampling::NodeId;
using sampling::kNoMax;

// Some tens of milliseconds, and as many megabytes.
constexpr int64_t kBudgetSteps = 1'500'000;

// Text in which some parts may be special tokens.
struct Piece {
  std::string text;
  bool marker = false;
};
using Markup = std::vector<Piece>;
Piece Mark(std::string text) { return {std::move(text), true}; }
Piece Text(std::string text) { return {std::move(text), false}; }

// All ways to write it.
std::vector<std::string> Spellings(const Markup& markup) {
  std::vector<std::string> all{""};
  for (const Piece& piece : markup) {
    const size_t count = all.size();
    for (size_t i = 0; i < count; ++i) {
      if (piece.marker) all.push_back(all[i] + sampling::kSpecialBegin + piece.text + sampling::kSpecialEnd);
      all[i] += piece.text;
    }
  }
  return all;
}

// How a family writes calls. A block holds one call, or all of them.
struct CallSyntax {
  Markup open;                // what opens a block
  std::vector<Markup> heads;  // ways to write what is in front of the arguments; "\1" stands for the tool's name
  Markup tail;                // behind the arguments
  Markup separator;           // between the calls of a block
  Markup close;               // of the block
  bool one_per_block = false;
  std::string between;         // blocks
  bool starts_in_text = true;  // a block may follow text, for its opening is recognised
};

const Markup kJsonHead = {Text("{\"name\": \"\1\", \"arguments\": ")};
const Markup kCompactHead = {Text("{\"name\":\"\1\",\"arguments\":")};

CallSyntax MistralSyntax(bool with_marks) {
  if (with_marks)
    return {.open = {},
            .heads = {{Mark("[TOOL_CALLS]"), Text("\1"), Mark("[ARGS]")}},
            .tail = {},
            .separator = {},
            .close = {},
            .one_per_block = false,
            .between = "",
            .starts_in_text = false};
  return {.open = {Mark("[TOOL_CALLS]"), Text("[")},
          .heads = {kJsonHead, kCompactHead},
          .tail = {Text("}")},
          .separator = {Text(", ")},
          .close = {Text("]")},
          .one_per_block = false,
          .between = ""};
}

CallSyntax DeepSeekSyntax(bool fenced) {
  CallSyntax syntax{.open = {Mark("<｜tool▁calls▁begin｜>")},
                    .heads = {},
                    .tail = {},
                    .separator = {},
                    .close = {Mark("<｜tool▁calls▁end｜>")},
                    .one_per_block = false,
                    .between = ""};
  if (fenced) {
    syntax.heads = {{Mark("<｜tool▁call▁begin｜>"), Text("function"), Mark("<｜tool▁sep｜>"), Text("\1\n```json\n")}};
    syntax.tail = {Text("\n```"), Mark("<｜tool▁call▁end｜>")};
    syntax.separator = {Text("\n")};
  } else {
    syntax.heads = {{Mark("<｜tool▁call▁begin｜>"), Text("\1"), Mark("<｜tool▁sep｜>")}};
    syntax.tail = {Mark("<｜tool▁call▁end｜>")};
  }
  return syntax;
}

CallSyntax PhiSyntax(bool with_marks) {
  CallSyntax syntax{.open = {Text("functools[")},
                    .heads = {kJsonHead, kCompactHead},
                    .tail = {Text("}")},
                    .separator = {Text(", ")},
                    .close = {Text("]")},
                    .one_per_block = false,
                    .between = ""};
  if (with_marks) syntax.open = {Mark("<|tool_call|>"), Text("[")};
  if (with_marks) syntax.close = {Text("]"), Mark("<|/tool_call|>")};
  return syntax;
}

// Nothing for families whose arguments are no JSON.
std::optional<CallSyntax> SyntaxOf(ToolFormat format, const std::string& source) {
  const auto has = [&](const char* word) { return source.find(word) != std::string::npos; };
  switch (format) {
    case ToolFormat::kHermes:
      return CallSyntax{.open = {Mark("<tool_call>"), Text("\n")},
                        .heads = {kJsonHead, kCompactHead},
                        .tail = {Text("}")},
                        .separator = {},
                        .close = {Text("\n"), Mark("</tool_call>")},
                        .one_per_block = true,
                        .between = "\n"};
    case ToolFormat::kLlama3:
      if (has("<|python_start|>")) return std::nullopt;
      return CallSyntax{.open = {},
                        .heads = {{Text("{\"name\": \"\1\", \"parameters\": ")}},
                        .tail = {Text("}")},
                        .separator = {Text("; ")},
                        .close = {},
                        .one_per_block = false,
                        .between = "",
                        .starts_in_text = false};
    case ToolFormat::kMistral: return MistralSyntax(has("[ARGS]"));
    case ToolFormat::kPhi4: return PhiSyntax(has("<|tool_call|>"));
    case ToolFormat::kDeepSeek: return DeepSeekSyntax(has("```json"));
    case ToolFormat::kKimi:
      return CallSyntax{
          .open = {Mark("<|tool_calls_section_begin|>")},
          .heads = {{Mark("<|tool_call_begin|>"), Text("functions.\1:0"), Mark("<|tool_call_argument_begin|>")}},
          .tail = {Mark("<|tool_call_end|>")},
          .separator = {},
          .close = {Mark("<|tool_calls_section_end|>")},
          .one_per_block = false,
          .between = ""};
    case ToolFormat::kHarmony:
      return CallSyntax{.open = {Mark("<|channel|>"), Text("commentary to=functions.")},
                        .heads = {{Text("\1 "), Mark("<|constrain|>"), Text("json"), Mark("<|message|>")},
                                  {Text("\1"), Mark("<|message|>")}},
                        .tail = {},
                        .separator = {},
                        .close = {},
                        .one_per_block = true,
                        .between = ""};
    default: return std::nullopt;
  }
}

// Free text, up to the first of some markers or without any of them.
class FreeText {
 public:
  explicit FreeText(std::vector<std::string> markers) : markers_(std::move(markers)) {
    for (const std::string& marker : markers_) {
      for (size_t bytes = 0; bytes <= marker.size(); ++bytes) prefixes_.push_back(marker.substr(0, bytes));
    }
    std::sort(prefixes_.begin(), prefixes_.end());
    prefixes_.erase(std::unique(prefixes_.begin(), prefixes_.end()), prefixes_.end());
  }

  // Texts that end with the first marker in them (`until`), or that hold none.
  Result<Dfa> Automaton(bool until, Budget& budget) const {
    const auto next = [&](int64_t state, uint8_t byte) -> int64_t {
      if (EndsWithMarker(state)) return Dfa::kDead;
      const int64_t to = Follow(state, byte);
      return !until && EndsWithMarker(to) ? int64_t{Dfa::kDead} : to;
    };
    const auto label = [&](int64_t state) { return EndsWithMarker(state) == until ? 0 : Dfa::kNoLabel; };
    return sampling::Explore(Find(""), next, label, budget);
  }

 private:
  int64_t Find(const std::string& prefix) const {
    return std::lower_bound(prefixes_.begin(), prefixes_.end(), prefix) - prefixes_.begin();
  }
  bool EndsWithMarker(int64_t state) const {
    const std::string& prefix = prefixes_[static_cast<size_t>(state)];
    // The name of a special token is no text.
    if (prefix.starts_with(sampling::kSpecialBegin))
      return std::find(markers_.begin(), markers_.end(), prefix) != markers_.end();
    return std::any_of(markers_.begin(), markers_.end(),
                       [&](const std::string& marker) { return prefix.ends_with(marker); });
  }
  // The longest end of what was read that may begin a marker.
  int64_t Follow(int64_t state, uint8_t byte) const {
    std::string read = prefixes_[static_cast<size_t>(state)] + static_cast<char>(byte);
    while (!std::binary_search(prefixes_.begin(), prefixes_.end(), read)) read.erase(0, 1);
    return Find(read);
  }

  const std::vector<std::string> markers_;
  std::vector<std::string> prefixes_;
};

class AnswerCompiler {
 public:
  explicit AnswerCompiler(const AnswerRules& rules) : rules_(rules), budget_(kBudgetSteps), builder_(budget_) {}

  Result<std::shared_ptr<const sampling::Grammar>> Compile() {
    const bool demanded = rules_.calls == CallRule::kDemanded;
    PENSIEVE_TRY(const std::optional<CallSyntax> syntax, ChooseSyntax());
    if (rules_.form == AnswerForm::kFree && !syntax) return std::shared_ptr<const sampling::Grammar>();
    if (syntax) {
      const Status tools = AddTools();
      if (!tools.ok()) return tools;
    }
    NodeId body = -1;
    if (rules_.form == AnswerForm::kFree && !demanded) {
      PENSIEVE_TRY(body, TextWithCalls(*syntax));
      if (rules_.format.tool_format == ToolFormat::kHarmony) return Build(body);
    } else {
      std::vector<NodeId> choices;
      if (syntax) {
        PENSIEVE_TRY(const NodeId calls, Calls(*syntax));
        choices.push_back(calls);
      }
      if (rules_.form != AnswerForm::kFree && !demanded) {
        PENSIEVE_TRY(const NodeId answer, Answer());
        choices.push_back(answer);
      }
      body = builder_.Choice(std::move(choices));
    }
    PENSIEVE_TRY(const NodeId reasoning, Reasoning());
    return Build(builder_.Sequence({reasoning, body}));
  }

 private:
  Result<std::shared_ptr<const sampling::Grammar>> Build(NodeId root) {
    auto grammar = builder_.Build(root);
    if (grammar.has_value()) return grammar;
    return Status(StatusCode::kInvalidArgument, grammar.error().message());
  }

  // Those of the tools that may be called; nothing when calls need not be followed.
  Result<std::optional<CallSyntax>> ChooseSyntax() const {
    const bool has_tools = rules_.tools.is_array() && !rules_.tools.empty();
    std::optional<CallSyntax> none;
    if (rules_.calls == CallRule::kNone || !has_tools) return none;
    auto syntax = SyntaxOf(rules_.format.tool_format, rules_.template_source);
    const bool strict = !rules_.strict_tools.empty();
    if (!syntax && rules_.calls == CallRule::kDemanded)
      return InvalidArgument("tool_choice: the way in which this model writes calls cannot be enforced");
    if (!syntax && strict)
      return InvalidArgument("strict: the way in which this model writes calls cannot be enforced");
    const bool in_text = rules_.form == AnswerForm::kFree && rules_.calls == CallRule::kAllowed;
    if (syntax && in_text && !syntax->starts_in_text) {
      if (strict)
        return InvalidArgument("strict: this model's calls cannot be told from text; tool_choice can demand one");
      return none;
    }
    return syntax;
  }

  static const Json* FunctionOf(const Json& tool) {
    if (!tool.is_object()) return nullptr;
    const auto function = tool.find("function");
    return function != tool.end() && function->is_object() ? &*function : nullptr;
  }
  bool IsStrict(const std::string& name) const {
    return std::find(rules_.strict_tools.begin(), rules_.strict_tools.end(), name) != rules_.strict_tools.end();
  }

  Status AddTools() {
    static const Json kAnyObject = {{"type", "object"}};
    for (const Json& tool : rules_.tools) {
      const Json* function = FunctionOf(tool);
      if (function == nullptr || !function->contains("name") || !(*function)["name"].is_string()) continue;
      const auto name = (*function)["name"].get<std::string>();
      const auto parameters = function->find("parameters");
      const bool described = parameters != function->end() && !parameters->is_null();
      auto arguments = AddJsonSchema(builder_, described ? *parameters : kAnyObject, /*object_only=*/true, budget_);
      if (arguments.has_value()) {
        // Whether anything satisfies it shows in a grammar of its own only.
        GrammarBuilder alone(budget_);
        const auto root = AddJsonSchema(alone, described ? *parameters : kAnyObject, true, budget_);
        const Status built = root.has_value() ? alone.Build(*root).status() : root.error();
        if (!built.ok()) arguments = built;
      }
      if (!arguments.has_value()) {
        const bool needed = rules_.calls == CallRule::kDemanded || IsStrict(name);
        const Status error = Status(StatusCode::kInvalidArgument, arguments.error().message());
        if (needed || budget_.left() < 0) return error.WithContext(fmt::format("tools: {}", name));
        PENSIEVE_TRY(arguments, AddJsonSchema(builder_, kAnyObject, true, budget_));
      }
      tools_.emplace_back(name, *arguments);
    }
    return tools_.empty() ? InvalidArgument("tools: none has a name") : OkStatus();
  }

  Result<NodeId> Markups(const Markup& markup) {
    if (markup.empty()) return builder_.Empty();
    PENSIEVE_TRY(Dfa dfa, sampling::LiteralSet(Spellings(markup), /*labelled=*/false, budget_));
    return builder_.Terminal(std::make_shared<const Dfa>(std::move(dfa)));
  }

  // What opens a call, its tool's name and arguments, and what ends it.
  Result<NodeId> Call(const CallSyntax& syntax) {
    std::vector<std::pair<std::string, size_t>> heads;
    for (size_t tool = 0; tool < tools_.size(); ++tool) {
      for (const Markup& head : syntax.heads) {
        for (std::string text : Spellings(head)) {
          const bool in_json = text.find("\"\1\"") != std::string::npos;
          std::string name = tools_[tool].first;
          if (in_json) name = DumpJson(Json(name)).substr(1, DumpJson(Json(name)).size() - 2);
          text.replace(text.find('\1'), 1, name);
          heads.emplace_back(std::move(text), tool);
        }
      }
    }
    std::sort(heads.begin(), heads.end());
    heads.erase(std::unique(heads.begin(), heads.end(), [](auto& a, auto& b) { return a.first == b.first; }),
                heads.end());
    std::vector<std::string> texts;
    std::vector<NodeId> values;
    PENSIEVE_TRY(const NodeId tail, Markups(syntax.tail));
    for (const auto& [text, tool] : heads) {
      texts.push_back(text);
      values.push_back(builder_.Sequence({tools_[tool].second, tail}));
    }
    PENSIEVE_TRY(Dfa keys, sampling::LiteralSet(texts, /*labelled=*/true, budget_));
    PENSIEVE_RETURN_IF_ERROR(keys.FindReach(static_cast<int32_t>(texts.size())));
    return builder_.Switch(std::make_shared<const Dfa>(std::move(keys)), std::move(values));
  }

  // The calls of a block behind its opening, and its end.
  Result<NodeId> Block(const CallSyntax& syntax) {
    PENSIEVE_TRY(const NodeId call, Call(syntax));
    PENSIEVE_TRY(const NodeId close, Markups(syntax.close));
    if (syntax.one_per_block) return builder_.Sequence({call, close});
    PENSIEVE_TRY(const NodeId separator, Markups(syntax.separator));
    const bool apart = !syntax.separator.empty();
    const int64_t max = rules_.parallel_calls ? kNoMax : 1;
    return builder_.Sequence({builder_.Repeat(call, apart ? separator : -1, 1, max), close});
  }

  Result<NodeId> Calls(const CallSyntax& syntax) {
    PENSIEVE_TRY(const NodeId open, Markups(syntax.open));
    PENSIEVE_TRY(const NodeId block, Block(syntax));
    const NodeId whole = builder_.Sequence({open, block});
    const bool harmony = rules_.format.tool_format == ToolFormat::kHarmony;
    if (!syntax.one_per_block || !rules_.parallel_calls || harmony) return whole;
    return builder_.Repeat(whole, syntax.between.empty() ? -1 : builder_.Literal(syntax.between), 1, kNoMax);
  }

  Result<NodeId> Free(const Markup& marker, bool until) {
    PENSIEVE_TRY(Dfa dfa, FreeText(Spellings(marker)).Automaton(until, budget_));
    return builder_.Terminal(std::make_shared<const Dfa>(std::move(dfa)));
  }

  Result<NodeId> TextWithCalls(const CallSyntax& syntax) {
    // Blanks at the end of the opening may be left out by a model, but not what makes it one.
    Markup opening = syntax.open;
    NodeId blanks = builder_.Empty();
    if (!opening.empty() && opening.back().text == "\n") {
      opening.pop_back();
      blanks = builder_.Optional(builder_.Literal("\n"));
    }
    PENSIEVE_TRY(const NodeId text, Free(opening, /*until=*/true));
    PENSIEVE_TRY(const NodeId rest, Free(opening, /*until=*/false));
    PENSIEVE_TRY(const NodeId block, Block(syntax));
    const NodeId call = builder_.Sequence({text, blanks, block});
    return builder_.Sequence({builder_.Repeat(call, -1, 0, kNoMax), rest});
  }

  Result<NodeId> Answer() {
    Result<NodeId> answer = rules_.form == AnswerForm::kJsonSchema
                                ? AddJsonSchema(builder_, rules_.schema, /*object_only=*/false, budget_)
                            : rules_.form == AnswerForm::kRegex ? AddRegex(builder_, rules_.text, budget_)
                                                                : AddGrammarText(builder_, rules_.text, budget_);
    const char* field = rules_.form == AnswerForm::kJsonSchema ? "schema"
                        : rules_.form == AnswerForm::kRegex    ? "regex"
                                                               : "grammar";
    if (!answer.has_value()) return Status(StatusCode::kInvalidArgument, answer.error().message()).WithContext(field);
    if (rules_.format.tool_format != ToolFormat::kHarmony) return answer;
    PENSIEVE_TRY(const NodeId plain, Markups({Mark("<|channel|>"), Text("final"), Mark("<|message|>")}));
    PENSIEVE_TRY(const NodeId marked, Markups({Mark("<|channel|>"), Text("final "), Mark("<|constrain|>"), Text("json"),
                                               Mark("<|message|>")}));
    return builder_.Sequence({builder_.Choice({plain, marked}), *answer});
  }

  // What may, or must, come first.
  Result<NodeId> Reasoning() {
    if (rules_.format.tool_format == ToolFormat::kHarmony) {
      PENSIEVE_TRY(const NodeId open, Markups({Mark("<|channel|>"), Text("analysis"), Mark("<|message|>")}));
      PENSIEVE_TRY(const NodeId inside, Free({Mark("<|end|>")}, /*until=*/true));
      PENSIEVE_TRY(const NodeId next, Markups({Mark("<|start|>"), Text("assistant")}));
      return builder_.Optional(builder_.Sequence({open, inside, next}));
    }
    const ReasoningTags* tags = TagsOf(rules_.format.reasoning);
    if (tags == nullptr) return builder_.Empty();
    PENSIEVE_TRY(const NodeId inside, Free({Mark(tags->close)}, /*until=*/true));
    const NodeId blanks = builder_.Repeat(builder_.Literal("\n"), -1, 0, 4);
    if (rules_.format.starts_in_reasoning) return builder_.Sequence({inside, blanks});
    PENSIEVE_TRY(const NodeId open, Markups({Mark(tags->open)}));
    return builder_.Optional(builder_.Sequence({open, inside, blanks}));
  }

  const AnswerRules& rules_;
  Budget budget_;
  GrammarBuilder builder_;
  std::vector<std::pair<std::string, NodeId>> tools_;
};

}  // namespace

std::string AnswerRules::Fingerprint() const {
  const bool some_tools = calls != CallRule::kNone && tools.is_array();
  // Lengths, so that no two rules have the same text.
  std::string print =
      fmt::format("{} {} {} {} {} {} {} ", static_cast<int>(form), static_cast<int>(calls),
                  static_cast<int>(parallel_calls), static_cast<int>(format.tool_format),
                  static_cast<int>(format.reasoning), static_cast<int>(format.starts_in_reasoning), text.size());
  print += text;
  const std::string schema_text = form == AnswerForm::kJsonSchema ? DumpJson(schema) : "";
  print += fmt::format(" {} {}", schema_text.size(), schema_text);
  if (!some_tools) return print;
  for (const Json& tool : tools) {
    // What tools say of themselves in words makes no difference.
    const auto function = tool.is_object() ? tool.find("function") : tool.end();
    if (!tool.is_object() || function == tool.end() || !function->is_object()) continue;
    for (const char* field : {"name", "parameters"}) {
      const std::string value = function->contains(field) ? DumpJson((*function)[field]) : "";
      print += fmt::format(" {} {}", value.size(), value);
    }
  }
  for (const std::string& name : strict_tools) print += fmt::format(" strict {} {}", name.size(), name);
  for (const char* word : {"[ARGS]", "```json", "<|tool_call|>", "<|python_start|>"})
    print += template_source.find(word) != std::string::npos ? '1' : '0';
  return print;
}

Result<std::shared_ptr<const sampling::Grammar>> CompileAnswer(const AnswerRules& rules) {
  return AnswerCompiler(rules).Compile();
}

}  // namespace pensieve::chat
