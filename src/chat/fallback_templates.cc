// Templates for models that bring none. Written for this project from the formats' published descriptions.
#include "chat/chat_template.h"

namespace pensieve::chat {
namespace {

constexpr std::string_view kChatMl =
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

constexpr std::string_view kLlama3 =
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}";

constexpr std::string_view kPhi3 =
    "{%- for message in messages %}"
    "{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}";

constexpr std::string_view kGemma =
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{%- endif %}"
    "{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}"
    "{{- message.content | trim + '<end_of_turn>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}";

}  // namespace

std::string FallbackTemplate(const std::function<bool(std::string_view)>& has_token) {
  if (has_token("<|im_start|>") && has_token("<|im_end|>")) return std::string(kChatMl);
  if (has_token("<|start_header_id|>") && has_token("<|eot_id|>")) return std::string(kLlama3);
  if (has_token("<|assistant|>") && has_token("<|end|>")) return std::string(kPhi3);
  if (has_token("<start_of_turn>") && has_token("<end_of_turn>")) return std::string(kGemma);
  return "";
}

}  // namespace pensieve::chat
