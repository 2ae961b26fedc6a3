#include "api/number_text.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "base/base64.h"

namespace pensieve::api {

void AppendJsonFloats(std::span<const float> values, std::string& out) {
  out += '[';
  char text[32];
  for (size_t i = 0; i < values.size(); ++i) {
    if (i != 0) out += ',';
    if (!std::isfinite(values[i])) {
      out += "null";
      continue;
    }
    const auto written = std::to_chars(text, text + sizeof(text), values[i]);
    out.append(text, static_cast<size_t>(written.ptr - text));
  }
  out += ']';
}

std::string Base64Floats(std::span<const float> values) {
  std::string bytes;
  bytes.reserve(values.size() * 4);
  for (const float value : values) {
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift & 0xff);
  }
  return EncodeBase64(bytes);
}

}  // namespace pensieve::api
