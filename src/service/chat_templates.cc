#include "service/chat_templates.h"

#include <map>
#include <string>

namespace pensieve::service {
namespace {

std::map<std::string, std::string> TemplateTokens(const tokenizer::SpecialTokens& special) {
  std::map<std::string, std::string> tokens;
  const auto add = [&](const char* name, const std::optional<tokenizer::SpecialToken>& token) {
    if (token.has_value()) tokens[name] = token->text;
  };
  add("bos_token", special.bos);
  add("eos_token", special.eos);
  add("unk_token", special.unk);
  add("pad_token", special.pad);
  add("cls_token", special.cls);
  add("sep_token", special.sep);
  return tokens;
}

Result<ChatTemplates::Guarded> Guard(std::string source, const model::ModelText& text) {
  PENSIEVE_TRY(auto parsed, chat::ChatTemplate::Parse(std::move(source), TemplateTokens(text.tokenizer->special())));
  auto limits = text.tokenizer->Limit(parsed.turn_borders(), parsed.source(), text.stop_ids);
  return ChatTemplates::Guarded{std::move(parsed), std::move(limits)};
}

}  // namespace

Result<ChatTemplates> ChatTemplates::Make(const model::ModelText& text) {
  std::string source = text.chat_template;
  if (source.empty()) {
    source =
        chat::FallbackTemplate([&](std::string_view token) { return text.tokenizer->TokenToId(token).has_value(); });
  }
  if (source.empty()) return FailedPrecondition("the model has no chat template; give one with --chat-template FILE");
  PENSIEVE_TRY(auto standard, Guard(std::move(source), text));
  std::optional<Guarded> for_tools;
  if (!text.tool_template.empty()) { PENSIEVE_TRY(for_tools, Guard(text.tool_template, text)); }
  return ChatTemplates(std::move(standard), std::move(for_tools));
}

}  // namespace pensieve::service
