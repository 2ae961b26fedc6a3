#include "service/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <random>

namespace pensieve::service {
namespace {

constexpr float kDefaultTemperature = 0.7f;
constexpr float kDefaultTopP = 0.95f;
constexpr size_t kTailBytes = 512;  // of the prompt, where an open reasoning tag would stand

// Tools that are neither wanted nor allowed are not shown: a model cannot call what it does not know of.
Result<Json> OfferedTools(const ChatRequest& request) {
  if (!request.tools.is_array() || request.tools.empty() || request.tool_choice == ToolChoice::kNone) return Json();
  if (request.tool_choice != ToolChoice::kNamed) return request.tools;
  for (const Json& tool : request.tools) {
    const auto function = tool.is_object() ? tool.find("function") : tool.end();
    if (!tool.is_object() || function == tool.end() || !function->is_object()) continue;
    const auto name = function->find("name");
    if (name != function->end() && *name == request.tool_choice_name) return Json::array({tool});
  }
  return InvalidArgument(fmt::format("tool_choice.name: there is no tool \"{}\"", request.tool_choice_name));
}

// What the request demands beyond the conversation. It joins the last user turn, so that earlier bytes, and with them
// the shared prefix of the conversation, stay as they are.
std::string Instructions(const ChatRequest& request, const Json& tools) {
  std::string text;
  if (!tools.is_null() && request.tool_choice == ToolChoice::kAny) text = "Answer with a call of one of the tools.";
  if (!tools.is_null() && request.tool_choice == ToolChoice::kNamed) {
    text = fmt::format("Answer with a call of the tool {}.", request.tool_choice_name);
  }
  if (request.output_schema.is_object()) {
    if (!text.empty()) text += "\n\n";
    text += fmt::format("Answer with one JSON value and nothing else. It must satisfy this JSON Schema:\n{}",
                        DumpJson(request.output_schema));
  }
  return text;
}

void AppendToLastUserTurn(Json& messages, const std::string& text) {
  for (auto turn = messages.rbegin(); turn != messages.rend(); ++turn) {
    if (!turn->is_object() || turn->value("role", "") != "user") continue;
    Json& content = (*turn)["content"];
    if (content.is_string()) {
      content.get_ref<std::string&>() += "\n\n" + text;
    } else if (content.is_array()) {
      content.push_back({{"type", "text"}, {"text", "\n\n" + text}});
    } else {
      content = text;
    }
    return;
  }
  messages.push_back({{"role", "user"}, {"content", text}});
}

// The levels that templates know. Requests may ask for more.
std::string TemplateEffort(const std::string& effort) {
  if (effort == "minimal") return "low";
  if (effort == "xhigh" || effort == "max") return "high";
  return effort;
}

Json TemplateVariables(const ChatRequest& request) {
  Json variables = request.template_context.is_object() ? request.template_context : Json::object();
  // Both names are in use; a template looks at one of them.
  if (request.thinking) variables["enable_thinking"] = variables["thinking"] = *request.thinking;
  if (!request.effort.empty()) variables["reasoning_effort"] = TemplateEffort(request.effort);
  return variables;
}

// The text of the turn that the answer goes on with; empty for any other end of the conversation.
std::string BeginningOfAnswer(const ChatRequest& request) {
  if (!request.continue_final_message || !request.messages.is_array() || request.messages.empty()) return "";
  const Json& last = request.messages.back();
  const auto content = last.is_object() ? last.find("content") : last.end();
  if (!last.is_object() || content == last.end()) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  for (const Json& part : content->is_array() ? *content : Json::array()) {
    if (part.is_object() && part.contains("text") && part["text"].is_string()) text += part["text"].get<std::string>();
  }
  return text;
}

Status CheckMessages(const Json& messages) {
  if (!messages.is_array() || messages.empty()) return InvalidArgument("messages: at least one message is required");
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto role = messages[i].is_object() ? messages[i].find("role") : messages[i].end();
    if (!messages[i].is_object() || role == messages[i].end() || !role->is_string()) {
      return InvalidArgument(fmt::format("messages.{}: must be an object with a role", i));
    }
  }
  return OkStatus();
}

uint64_t FreshSeed() {
  thread_local std::random_device entropy;
  return static_cast<uint64_t>(entropy()) << 32 | entropy();
}

// One prompt on its way to ids. Stored answers are put in as they are; what stands between two of them is tokenized as a
// whole.
class PromptTokenizer {
 public:
  PromptTokenizer(const ServedModel& model, const Prompt& prompt, uint64_t partition)
      : model_(model), prompt_(prompt), text_(prompt.rendered.text), partition_(partition) {}

  PromptIds Run() {
    PrefixHasher hasher(text_, prompt_.rendered.spans);
    const auto& answers = prompt_.rendered.answers;
    for (size_t i = 0; i < answers.size(); ++i) {
      open_ = prompt_.continues_answer && i + 1 == answers.size() && answers[i].end == text_.size();
      if (open_) out_.before = hasher.At(answers[i].begin);
      auto drawn = open_ ? std::nullopt : Stored(answers[i], hasher);
      if (drawn) {
        Encode(drawn->begin);
        Put(*drawn);
      } else {
        marks_.insert(marks_.end(), {answers[i].begin, answers[i].end});
      }
    }
    Encode(text_.size());
    if (!open_) {
      out_.before = hasher.At(text_.size());
      out_.answer_begin = out_.ids.size();
    }
    return std::move(out_);
  }

 private:
  static constexpr size_t kHeaderBytesMax = 512;  // of what a template writes before an answer's own bytes

  // A header may end earlier or later when a turn is generated than when it is history (<think>).
  std::optional<AnswerStore::Found> Stored(const chat::AnswerRange& answer, PrefixHasher& hasher) const {
    const size_t first =
        std::max({answer.gap_begin, answer.own_begin - std::min(answer.own_begin, kHeaderBytesMax), done_});
    std::vector<PromptPrefix> candidates;
    for (size_t at = first; at <= answer.own_begin; ++at) candidates.push_back(hasher.At(at));
    auto found = model_.answers().Find(partition_, candidates, text_, answer.end);
    return found && OnlyTheTemplateForges(*found) ? std::move(found) : std::nullopt;
  }

  // A model may have drawn a special token where the message that comes back only spells it.
  bool OnlyTheTemplateForges(const AnswerStore::Found& found) const {
    const std::vector<TextSpan>& spans = prompt_.rendered.spans;
    size_t begin = found.begin;
    for (const DrawnToken& token : found.tokens) {
      const size_t end = found.begin + token.end;
      if (std::ranges::binary_search(prompt_.limits->template_ids, token.id)) {
        const auto span = std::ranges::upper_bound(spans, begin, {}, &TextSpan::end);
        if (span == spans.end() || span->source != TextSource::kTemplate || span->end < end) return false;
      }
      begin = end;
    }
    return true;
  }

  void Put(const AnswerStore::Found& drawn) {
    const auto first = static_cast<int64_t>(out_.ids.size());
    for (const DrawnToken& token : drawn.tokens) out_.ids.push_back(token.id);
    out_.answers.push_back({first, static_cast<int64_t>(out_.ids.size())});
    done_ = drawn.begin + drawn.tokens.back().end;
  }

  // Tokenizes text_[done_, end), in which the marks are the begins and ends of answers.
  void Encode(size_t end) {
    std::vector<TextSpan> spans;
    for (const TextSpan& span : prompt_.rendered.spans) {
      if (span.end <= done_) continue;
      spans.push_back({std::min(span.end, end) - done_, span.source});
      if (span.end >= end) break;
    }
    for (size_t& mark : marks_) mark -= done_;
    const tokenizer::AuthoredText input{text_.substr(done_, end - done_), spans, marks_, done_ == 0};
    const tokenizer::AuthoredIds encoded = model_.tokenizer().EncodeAuthored(input, *prompt_.limits);
    const std::vector<int32_t>& stop_ids = model_.text().stop_ids;
    const auto first = static_cast<int64_t>(out_.ids.size());
    for (size_t i = 0; i + 1 < encoded.marks.size(); i += 2) {
      if (open_ && i + 2 == encoded.marks.size()) {
        out_.answer_known = encoded.marks[i] >= 0;
        out_.answer_begin = static_cast<size_t>(first + std::max<int64_t>(encoded.marks[i], 0));
      }
      if (encoded.marks[i] < 0) continue;
      // What the template writes of an answer behind its end (the call's name in a result's header) is none of it.
      const auto begin = encoded.ids.begin() + encoded.marks[i];
      const auto behind =
          std::find_first_of(begin, encoded.ids.begin() + std::max(encoded.marks[i], encoded.marks[i + 1]),
                             stop_ids.begin(), stop_ids.end());
      if (behind != begin) out_.answers.push_back({first + encoded.marks[i], first + (behind - encoded.ids.begin())});
    }
    out_.ids.insert(out_.ids.end(), encoded.ids.begin(), encoded.ids.end());
    marks_.clear();
    done_ = end;
  }

  const ServedModel& model_;
  const Prompt& prompt_;
  const std::string_view text_;
  const uint64_t partition_;
  PromptIds out_;
  std::vector<size_t> marks_;  // begin and end of answers behind done_
  size_t done_ = 0;            // bytes that are ids already
  bool open_ = false;          // the last answer is the one that is continued
};

}  // namespace

Result<Prompt> RenderPrompt(const ServedModel& model, ChatRequest request) {
  PENSIEVE_RETURN_IF_ERROR(CheckMessages(request.messages));
  Prompt prompt;
  PENSIEVE_TRY(prompt.tools, OfferedTools(request));
  const bool with_tools = !prompt.tools.is_null();
  PENSIEVE_TRY(const ChatTemplates::Guarded* chosen, model.Template(with_tools));
  const std::string instructions = Instructions(request, prompt.tools);
  if (!instructions.empty()) AppendToLastUserTurn(request.messages, instructions);
  chat::RenderInputs inputs;
  inputs.tools = prompt.tools;
  inputs.continue_final_message = request.continue_final_message;
  inputs.add_generation_prompt = !request.continue_final_message;
  inputs.spell_out_tools = true;
  inputs.extra_context = TemplateVariables(request);
  inputs.messages = std::move(request.messages);
  auto rendered = chosen->text.Render(inputs);
  if (!rendered.has_value()) return rendered.error().WithContext("messages");
  prompt.rendered = *std::move(rendered);
  prompt.limits = chosen->limits;
  prompt.continues_answer = inputs.continue_final_message;
  prompt.template_source = chosen->text.source();
  const std::string& text = prompt.rendered.text;
  const size_t tail = text.size() - std::min(text.size(), kTailBytes);
  prompt.format = chat::DetectOutputFormat(chosen->text.source(), text.substr(tail), with_tools);
  return prompt;
}

Result<AnswerDemands> ReadDemands(const ChatRequest& request) {
  AnswerDemands demands;
  chat::AnswerRules& rules = demands.rules;
  const int forms = static_cast<int>(!request.output_schema.is_null()) +
                    static_cast<int>(!request.output_regex.empty()) + static_cast<int>(!request.output_grammar.empty());
  if (forms > 1)
    return InvalidArgument("the answer can be a JSON value, match a pattern or follow a grammar, but not two of them");
  if (!request.output_schema.is_null()) {
    rules.form = chat::AnswerForm::kJsonSchema;
    rules.schema = request.output_schema;
  } else if (!request.output_regex.empty()) {
    rules.form = chat::AnswerForm::kRegex;
    rules.text = request.output_regex;
  } else if (!request.output_grammar.empty()) {
    rules.form = chat::AnswerForm::kGrammar;
    rules.text = request.output_grammar;
  }
  const bool demanded = request.tool_choice == ToolChoice::kAny || request.tool_choice == ToolChoice::kNamed;
  if (request.tool_choice != ToolChoice::kNone)
    rules.calls = demanded ? chat::CallRule::kDemanded : chat::CallRule::kAllowed;
  rules.strict_tools = request.strict_tools;
  rules.parallel_calls = request.parallel_tool_calls;
  if (!demanded) demands.deferred_tools = request.deferred_tools;
  demands.beginning = BeginningOfAnswer(request);
  return demands;
}

PromptIds TokenizePrompt(const ServedModel& model, const Prompt& prompt, uint64_t partition) {
  return PromptTokenizer(model, prompt, partition).Run();
}

Status CheckPromptLen(int64_t prompt_tokens, int64_t tokens_max) {
  if (prompt_tokens <= tokens_max) return OkStatus();
  return InvalidArgument(fmt::format("prompt is too long: {} tokens > {} maximum", prompt_tokens, tokens_max))
      .WithReason(ErrorReason::kPromptTooLong);
}

Status CheckTextLen(const tokenizer::Tokenizer& tokenizer, std::string_view text, int64_t tokens_max) {
  // A part of the text has about as many tokens as the whole has there: only what stands at its end may join with what
  // follows. The margin is for that.
  constexpr size_t kMarginTokens = 256;
  constexpr size_t kBytesPerToken = 8;  // twice what a token of English or code has
  // A text that is not so much longer than what is looked at is counted whole: then the count that people are told is exact.
  constexpr size_t kWorthIt = 4;
  const size_t enough = static_cast<size_t>(std::max<int64_t>(tokens_max, 0)) + kMarginTokens;
  for (size_t bytes = enough * kBytesPerToken; bytes * kWorthIt < text.size(); bytes *= 4) {
    const size_t tokens = tokenizer.Encode(text.substr(0, bytes), {.add_special = false}).size();
    if (tokens <= enough) continue;
    const double whole = static_cast<double>(tokens) * static_cast<double>(text.size()) / static_cast<double>(bytes);
    return CheckPromptLen(static_cast<int64_t>(whole), tokens_max);
  }
  return OkStatus();
}

Result<sampling::SamplingParams> ResolveSampling(const ServedModel& model, const SamplingRequest& request) {
  const model::GenerationDefaults& defaults = model.text().defaults;
  const auto choose = [](auto asked, auto of_model, auto ours) { return asked ? *asked : of_model ? *of_model : ours; };
  sampling::SamplingParams params;
  params.temperature = choose(request.temperature, defaults.temperature, kDefaultTemperature);
  params.top_p = choose(request.top_p, defaults.top_p, kDefaultTopP);
  params.top_k = choose(request.top_k, defaults.top_k, 0);
  params.min_p = choose(request.min_p, defaults.min_p, 0.0f);
  params.repetition_penalty = choose(request.repetition_penalty, defaults.repetition_penalty, 1.0f);
  params.presence_penalty = request.presence_penalty.value_or(0.0f);
  params.frequency_penalty = request.frequency_penalty.value_or(0.0f);
  params.seed = request.seed ? *request.seed : FreshSeed();
  params.logit_bias = request.logit_bias;
  params.logprobs = request.logprobs;
  params.top_logprobs = request.top_logprobs;
  // The ends of both ranges leave only the most likely token.
  if (params.top_p == 0.0f || params.min_p == 1.0f) params.temperature = 0.0f;
  if (params.top_p == 0.0f) params.top_p = 1.0f;
  if (params.min_p == 1.0f) params.min_p = 0.0f;
  PENSIEVE_RETURN_IF_ERROR(sampling::Validate(params, static_cast<int32_t>(model.config().vocab_size)));
  return params;
}

}  // namespace pensieve::service
