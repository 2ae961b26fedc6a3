// Base64 (RFC 4648, standard alphabet, with padding).
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace pensieve {

std::string EncodeBase64(std::string_view bytes);
// InvalidArgument for a character outside the alphabet or a length that no encoder produces. Padding may be missing.
Result<std::string> DecodeBase64(std::string_view text);

}  // namespace pensieve
