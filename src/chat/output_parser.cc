#include "chat/output_parser.h"

#include <utility>

#include "chat/output_parser_parts.h"

namespace pensieve::chat {
namespace {

bool Has(const std::string& text, std::string_view word) { return text.find(word) != std::string::npos; }

ToolFormat DetectToolFormat(const std::string& source) {
  if (Has(source, "<|channel|>") && Has(source, "<|message|>")) return ToolFormat::kHarmony;
  if (Has(source, "<minimax:tool_call>")) return ToolFormat::kMiniMax;
  if (Has(source, "<|tool_call>") && Has(source, "<tool_call|>")) return ToolFormat::kGemma;
  if (Has(source, "<start_function_call>")) return ToolFormat::kFunctionGemma;
  if (Has(source, "<|tool_list_start|>") || Has(source, "<|tool_call_start|>")) return ToolFormat::kPythonic;
  if (Has(source, "<arg_key>")) return ToolFormat::kGlm;
  // The line end may be written as an escape.
  if (Has(source, "<tool_call>\\n<function=") || Has(source, "<tool_call>\n<function=")) return ToolFormat::kQwenXml;
  if (Has(source, "<|tool_calls_section_begin|>")) return ToolFormat::kKimi;
  if (Has(source, "<｜tool▁calls▁begin｜>")) return ToolFormat::kDeepSeek;
  if (Has(source, "[TOOL_CALLS]")) return ToolFormat::kMistral;
  if (Has(source, "<tool_call>")) return ToolFormat::kHermes;
  if (Has(source, "<|python_start|>")) return ToolFormat::kLlama3;
  const bool llama_words = Has(source, "<|python_tag|>") || Has(source, "\"parameters\"");
  if (llama_words && Has(source, "<|start_header_id|>")) return ToolFormat::kLlama3;
  if (Has(source, "functools[") || Has(source, "<|tool|>")) return ToolFormat::kPhi4;
  // Templates without tools are given the Hermes instructions (AdaptForTemplate).
  return ToolFormat::kHermes;
}

struct Tags {
  ReasoningFormat format;
  ReasoningTags tags;
};
constexpr Tags kTags[] = {{ReasoningFormat::kThink, {"<think>", "</think>"}},
                          {ReasoningFormat::kMistralThink, {"[THINK]", "[/THINK]"}},
                          {ReasoningFormat::kSeedThink, {"<seed:think>", "</seed:think>"}}};

std::unique_ptr<OutputParser> NewToolParser(ToolFormat format, const Json& tools) {
  switch (format) {
    case ToolFormat::kHermes: return NewHermesParser();
    case ToolFormat::kQwenXml: return NewBlockParser(QwenXmlFormat(), tools);
    case ToolFormat::kLlama3: return NewBlockParser(LlamaFormat(), tools);
    case ToolFormat::kMistral: return NewBlockParser(MistralFormat(), tools);
    case ToolFormat::kPhi4: return NewBlockParser(PhiFormat(), tools);
    case ToolFormat::kGlm: return NewBlockParser(GlmFormat(), tools);
    case ToolFormat::kDeepSeek: return NewBlockParser(DeepSeekFormat(), tools);
    case ToolFormat::kKimi: return NewBlockParser(KimiFormat(), tools);
    case ToolFormat::kMiniMax: return NewBlockParser(MiniMaxFormat(), tools);
    case ToolFormat::kPythonic: return NewBlockParser(PythonicFormat(), tools);
    case ToolFormat::kGemma: return NewBlockParser(GemmaFormat(), tools);
    case ToolFormat::kFunctionGemma: return NewBlockParser(FunctionGemmaFormat(), tools);
    case ToolFormat::kHarmony:
    case ToolFormat::kNone: break;
  }
  return NewTextParser();
}

}  // namespace

const ReasoningTags* TagsOf(ReasoningFormat format) {
  for (const Tags& tags : kTags) {
    if (tags.format == format) return &tags.tags;
  }
  return nullptr;
}

OutputFormat DetectOutputFormat(const std::string& template_source, const std::string& rendered_prompt_tail,
                                bool tools_given) {
  OutputFormat format;
  format.tool_format = DetectToolFormat(template_source);
  format.parse_tools = tools_given;
  if (format.tool_format == ToolFormat::kHarmony) return format;
  for (const auto& [reasoning, tags] : kTags) {
    if (!Has(template_source, tags.close) && !Has(template_source, tags.open)) continue;
    const size_t open = rendered_prompt_tail.rfind(tags.open);
    const size_t close = rendered_prompt_tail.rfind(tags.close);
    format.reasoning = reasoning;
    format.starts_in_reasoning = open != std::string::npos && (close == std::string::npos || close < open);
    break;
  }
  return format;
}

std::unique_ptr<OutputParser> NewOutputParser(const OutputFormat& format, const Json& tools) {
  // Harmony is more than a tool format: without its parser the channels would show.
  if (format.tool_format == ToolFormat::kHarmony) return NewHarmonyParser();
  auto parser = format.parse_tools ? NewToolParser(format.tool_format, tools) : NewTextParser();
  const ReasoningTags* tags = TagsOf(format.reasoning);
  if (tags == nullptr) return parser;
  return NewReasoningParser(tags->open, tags->close, format.starts_in_reasoning, std::move(parser));
}

}  // namespace pensieve::chat
