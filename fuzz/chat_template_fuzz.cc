// Any bytes as a chat template, rendered with a conversation that has all a conversation can have: an error or a text,
// never a crash, and never a word of the conversation that passes for the template's own.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "chat/jinja_evaluator.h"
#include "chat/jinja_parser.h"

namespace {

constexpr std::string_view kConversation = R"([
  {"role": "system", "content": "\u2603Be brief.\u2603"},
  {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]},
  {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, true, null, "\u2603x"]}}}]},
  {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "{\"ok\": \"\u2603\"}"},
  {"role": "user", "content": "\u00e4\u4e2d\ud83d\ude00 <b>"}])";
constexpr std::string_view kTools = R"([{"type": "function", "function": {"name": "f", "description": "Does \u2603f.",
  "parameters": {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"]}}}])";

// Stands in strings of the conversation alone.
constexpr std::string_view kMark = "\u2603";

bool Has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

pensieve::Json Parsed(std::string_view text) {
  auto json = pensieve::ParseJson(text);
  PENSIEVE_CHECK(json.has_value());
  return *std::move(json);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace pensieve;
  static const Json messages = Parsed(kConversation);
  static const Json tools = Parsed(kTools);
  const std::string_view source(reinterpret_cast<const char*>(bytes), size);
  const auto block = chat::jinja::ParseTemplate(source);
  if (!block.has_value()) return 0;
  chat::jinja::RenderContext context;
  context.variables = {
      {"messages", messages, 2, true}, {"tools", tools, 1}, {"add_generation_prompt", true}, {"bos_token", "<s>"}};
  context.limits =
      chat::jinja::Limits{.output_bytes_max = 1 << 20, .allocated_bytes_max = 1 << 24, .steps_max = 100'000};
  const auto text = chat::jinja::RenderTemplate(*block, context);
  if (!text.has_value() || Has(source, kMark) || Has(source, "2603")) return 0;
  size_t begin = 0;
  for (const chat::jinja::OriginRun& run : text->Runs()) {
    PENSIEVE_CHECK(run.end > begin);
    const std::string_view part = std::string_view(text->bytes()).substr(begin, run.end - begin);
    PENSIEVE_CHECK(run.origin != chat::jinja::kFromTemplate || !Has(part, kMark));
    begin = run.end;
  }
  PENSIEVE_CHECK(begin == text->size());
  return 0;
}
