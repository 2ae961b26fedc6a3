// Any bytes as a chat template, rendered with a small conversation: an error or a text, never a crash.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "chat/jinja_evaluator.h"
#include "chat/jinja_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace pensieve;
  const std::string_view source(reinterpret_cast<const char*>(bytes), size);
  const auto block = chat::jinja::ParseTemplate(source);
  if (!block.has_value()) return 0;
  chat::jinja::RenderContext context;
  context.variables.emplace_back("messages", Json::array({Json{{"role", "user"}, {"content", "Hi"}}}));
  context.variables.emplace_back("tools", nullptr);
  context.variables.emplace_back("add_generation_prompt", true);
  context.limits = chat::jinja::Limits{.output_bytes_max = 1 << 20, .allocated_bytes_max = 1 << 24, .steps_max = 100'000};
  (void)chat::jinja::RenderTemplate(*block, context).has_value();
  return 0;
}
