// Any bytes as a chat template, rendered with a conversation that has all a conversation can have: an error or a text,
// never a crash.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "chat/jinja_evaluator.h"
#include "chat/jinja_parser.h"

namespace {

constexpr std::string_view kConversation = R"([
  {"role": "system", "content": "Be brief."},
  {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]},
  {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, true, null, "x"]}}}]},
  {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "{\"ok\": true}"},
  {"role": "user", "content": "\u00e4\u4e2d\ud83d\ude00 <b>"}])";
constexpr std::string_view kTools = R"([{"type": "function", "function": {"name": "f", "description": "Does f.",
  "parameters": {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"]}}}])";

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
  context.variables = {{"messages", messages}, {"tools", tools}, {"add_generation_prompt", true}, {"bos_token", "<s>"}};
  context.limits = chat::jinja::Limits{.output_bytes_max = 1 << 20, .allocated_bytes_max = 1 << 24, .steps_max = 100'000};
  (void)chat::jinja::RenderTemplate(*block, context).has_value();
  return 0;
}
