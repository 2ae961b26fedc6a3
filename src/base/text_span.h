// Who wrote which bytes of a prompt. What only the template may do (open and close turns) depends on it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pensieve {

enum class TextSource : uint8_t {
  kTemplate,  // the model's chat template and its own constants
  kAnswer,    // an assistant's message of the request
  kRequest,   // everything else of the request: other messages, tool results, tools, template variables
};

// Bytes up to `end` of a text. Spans of one text ascend and cover it.
struct TextSpan {
  size_t end = 0;
  TextSource source = TextSource::kTemplate;
  bool operator==(const TextSpan&) const = default;
};

}  // namespace pensieve
