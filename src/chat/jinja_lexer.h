// Cuts a template into tokens, with Jinja's whitespace rules for trim_blocks = lstrip_blocks = true and
// keep_trailing_newline = false. Pure function.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pensieve::chat::jinja {

enum class TokenType : uint8_t {
  kText,           // literal output, whitespace control already applied
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,  // text holds the value, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  std::string text;
  int line = 1;

  bool IsOperator(std::string_view op) const { return type == TokenType::kOperator && text == op; }
  bool IsName(std::string_view name) const { return type == TokenType::kName && text == name; }
};

// Always ends with a kEnd token. InvalidArgument "line N: ..." for what Jinja cannot read either.
Result<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace pensieve::chat::jinja
