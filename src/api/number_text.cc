#include "api/number_text.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <cstdint>

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

std::string Base64(std::string_view bytes) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = bytes.size() - i;
    const auto byte = [&](size_t k) { return k < left ? static_cast<uint32_t>(static_cast<uint8_t>(bytes[i + k])) : 0; };
    const uint32_t group = byte(0) << 16 | byte(1) << 8 | byte(2);
    out += kAlphabet[group >> 18];
    out += kAlphabet[group >> 12 & 63];
    out += left > 1 ? kAlphabet[group >> 6 & 63] : '=';
    out += left > 2 ? kAlphabet[group & 63] : '=';
  }
  return out;
}

std::string Base64Floats(std::span<const float> values) {
  std::string bytes;
  bytes.reserve(values.size() * 4);
  for (const float value : values) {
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift & 0xff);
  }
  return Base64(bytes);
}

}  // namespace pensieve::api
