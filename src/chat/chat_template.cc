#include "chat/chat_template.h"

#include <chrono>
#include <utility>
#include <vector>

#include "chat/adapt_messages.h"
#include "chat/jinja_parser.h"
#include "chat/python_text.h"
#include "chat/template_probe.h"

namespace pensieve::chat {
namespace {

int64_t SystemNow() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

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

Result<jinja::TracedText> CutAtTag(const jinja::TracedText& text) {
  const std::string_view bare = kContinueTag.substr(0, kContinueTag.size() - 1);
  const size_t at = text.bytes().rfind(bare);
  if (at == std::string::npos) {
    return InvalidArgument("continue_final_message: the template does not show the last message");
  }
  const bool keeps_spaces = text.bytes().compare(at, kContinueTag.size(), kContinueTag) == 0;
  const std::string_view before = std::string_view(text.bytes()).substr(0, at);
  return text.Slice(0, keeps_spaces ? at : StripSpaceRight(before).size());
}

std::vector<bool> AnswersAmong(const Json& messages) {
  std::vector<bool> is_answer;
  for (const Json& message : messages) is_answer.push_back(message.value("role", std::string()) == "assistant");
  return is_answer;
}

}  // namespace

struct ChatTemplate::Parsed {
  std::string source;
  SpecialTokenTexts special_tokens;
  jinja::Block block;
  TemplateProbe probe;
};

Result<ChatTemplate> ChatTemplate::Parse(std::string source, std::map<std::string, std::string> special_tokens) {
  auto block = jinja::ParseTemplate(source);
  if (!block.has_value()) return block.error().WithContext("chat template");
  auto parsed = std::make_shared<Parsed>();
  parsed->source = std::move(source);
  parsed->special_tokens = std::move(special_tokens);
  parsed->block = *std::move(block);
  parsed->probe = ProbeTemplate(parsed->block, parsed->special_tokens, parsed->source);
  if (const Status& runs = parsed->probe.runs; !runs.ok()) return Status(runs).WithContext("chat template");
  return ChatTemplate(std::move(parsed));
}

Result<RenderedPrompt> ChatTemplate::Render(const RenderInputs& inputs) const {
  if (!inputs.extra_context.is_null() && !inputs.extra_context.is_object()) {
    return InvalidArgument("chat_template_kwargs: must be an object");
  }
  TemplateAbilities abilities = parsed_->probe.abilities;
  abilities.tools = abilities.tools || !inputs.spell_out_tools;
  PENSIEVE_TRY(auto adapted, AdaptForTemplate(inputs.messages, inputs.tools, abilities));
  if (inputs.continue_final_message) PENSIEVE_RETURN_IF_ERROR(TagLastMessage(adapted.messages));
  const TemplateInputs variables{adapted.messages, adapted.tools,
                                 inputs.add_generation_prompt && !inputs.continue_final_message, inputs.extra_context,
                                 inputs.now_s.value_or(SystemNow())};
  auto text = RenderWith(parsed_->block, parsed_->special_tokens, variables);
  if (!text.has_value()) return text.error().WithContext("chat template");
  if (inputs.continue_final_message) {
    text = CutAtTag(*text);
    if (!text.has_value()) return std::move(text).error();
  }
  return ToPrompt(*std::move(text), AnswersAmong(adapted.messages), parsed_->probe.frame);
}

const std::string& ChatTemplate::source() const { return parsed_->source; }
const std::string& ChatTemplate::answer_end() const { return parsed_->probe.answer_end; }
const std::string& ChatTemplate::turn_borders() const { return parsed_->probe.turn_borders; }
bool ChatTemplate::supports_tools() const { return parsed_->probe.abilities.tools; }
bool ChatTemplate::supports_system() const { return parsed_->probe.abilities.system; }
bool ChatTemplate::supports_system_mid_conversation() const { return parsed_->probe.abilities.system_mid_conversation; }
bool ChatTemplate::content_parts() const { return parsed_->probe.abilities.content_parts; }

}  // namespace pensieve::chat
