// Base64 (RFC 4648, standard alphabet), decoding only.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pensieve::tokenizer {

// Nothing when `text` is not base64.
std::optional<std::string> DecodeBase64(std::string_view text);

}  // namespace pensieve::tokenizer
