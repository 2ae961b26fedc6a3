// Chat templates: messages and tools in, prompt text out.
//
// A template is a program in Jinja that comes with the model. It is rendered exactly as HF transformers would, after
// the messages have been adapted to what the template can show (see adapt_messages.h).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"
#include "chat/rendered_prompt.h"

namespace pensieve::chat {

struct RenderInputs {
  // Array of {role, content (string, null or array of parts), tool_calls?, tool_call_id?, name?, reasoning_content?}
  // in OpenAI / HF shape.
  Json messages = nullptr;
  // Array of {"type": "function", "function": {name, description, parameters}}, or null.
  Json tools = nullptr;
  bool add_generation_prompt = true;
  // The last message is the beginning of the answer: the prompt ends with its content, so that the model goes on.
  bool continue_final_message = false;
  // For a template that shows no tools: describe them in the system turn and spell out the history's calls and results as
  // text, in the Hermes form, so that the model can at least try. Else what the template leaves out is left out.
  bool spell_out_tools = false;
  // Object of further variables (enable_thinking, reasoning_effort, documents, date_string...), or null.
  Json extra_context = nullptr;
  // What strftime_now() shows, seconds since 1970; the system's clock when absent.
  std::optional<int64_t> now_s = std::nullopt;
};

// Immutable and thread-safe. Copies share the parsed tree.
class ChatTemplate {
 public:
  // `special_tokens`: bos_token, eos_token, unk_token... as strings that the template sees; absent ones are undefined.
  // InvalidArgument naming line and construct when the source is no template, or one that cannot render a user turn.
  static Result<ChatTemplate> Parse(std::string source, std::map<std::string, std::string> special_tokens);

  // InvalidArgument with the template's own words when it refuses the conversation (raise_exception), or with the
  // line of the error.
  Result<RenderedPrompt> Render(const RenderInputs& inputs) const;

  const std::string& source() const;
  // What the template writes behind an answer at the end of a conversation: in most families a token that ends turns.
  const std::string& answer_end() const;
  // What it writes between the texts of an assistant's and a user's turn, and behind the latter: markers of turns.
  const std::string& turn_borders() const;

  // What the template can do, found by rendering small conversations once.
  bool supports_tools() const;                    // renders differently when tools are given
  bool supports_system() const;                   // shows a system turn in first position
  bool supports_system_mid_conversation() const;  // shows a later system turn where it stands
  bool content_parts() const;  // iterates over content parts; else text parts are joined before rendering

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const Parsed> parsed_;
};

// A template for models that bring none, by the special tokens that their vocabulary knows: ChatML, Llama 3, Phi-3 or
// Gemma; empty when none fits.
std::string FallbackTemplate(const std::function<bool(std::string_view)>& has_token);

}  // namespace pensieve::chat
