#include "service/model_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace pensieve::service {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

bool IsDigits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// "q4_k_m", "iq2_xxs", "q8_0", "4bit", "8-bit" without its dash, "bf16", "w4a16", "mxfp4", "gguf", ...
bool TellsOfNumbers(std::string_view word) {
  static constexpr std::array<std::string_view, 25> kWords = {
      "gguf", "mlx",  "dwq",   "awq",  "gptq",  "exl2",      "fp8",    "int4",  "int8",
      "bnb",  "f16",  "bf16",  "fp16", "f32",   "fp32",      "mxfp4",  "mxfp8", "nvfp4",
      "4bit", "8bit", "w4a16", "w8a8", "w8a16", "quantized", "imatrix"};
  if (std::find(kWords.begin(), kWords.end(), word) != kWords.end()) return true;
  if (word.size() > 3 && word.ends_with("bit") && IsDigits(word.substr(0, word.size() - 3))) return true;
  if (word.starts_with("iq") || word.starts_with("tq")) word.remove_prefix(1);
  // A 'q', a digit, then nothing or '_' and more: "q4", "q4_k_m", "q8_0". "q" alone or "qwen" are names.
  const bool is_code = word.size() >= 2 && word[0] == 'q' && word[1] >= '1' && word[1] <= '8';
  return is_code && (word.size() == 2 || word[2] == '_');
}

std::string_view WithoutOwner(std::string_view name) { return name.substr(name.rfind('/') + 1); }

}  // namespace

Result<ModelAlias> ParseModelAlias(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size())
    return InvalidArgument(fmt::format("\"{}\" is no alias: write name=model", text));
  return ModelAlias{.name = std::string(text.substr(0, equals)), .model = std::string(text.substr(equals + 1))};
}

std::string PlainModelName(std::string_view name) {
  std::string plain = Lower(name);
  while (true) {
    if (plain.ends_with(":latest")) plain.resize(plain.size() - 7);
    if (plain.ends_with(".gguf")) plain.resize(plain.size() - 5);
    const size_t separator = plain.find_last_of("-.:@");
    const bool inside_name = separator != std::string::npos && separator > 0 && plain[separator - 1] != '/';
    if (!inside_name || !TellsOfNumbers(std::string_view(plain).substr(separator + 1))) break;
    plain.resize(separator);
  }
  std::replace(plain.begin(), plain.end(), ':', '-');
  return plain;
}

bool IsSameModelName(std::string_view one, std::string_view other) {
  const std::string a = PlainModelName(one);
  const std::string b = PlainModelName(other);
  const bool both_have_owners = a.find('/') != std::string::npos && b.find('/') != std::string::npos;
  return both_have_owners ? a == b : WithoutOwner(a) == WithoutOwner(b);
}

std::string_view FindAlias(const std::vector<ModelAlias>& aliases, std::string_view name) {
  for (const ModelAlias& alias : aliases)
    if (alias.name == name) return alias.model;
  const std::string lower = Lower(name);
  for (const ModelAlias& alias : aliases)
    if (Lower(alias.name) == lower) return alias.model;
  for (const ModelAlias& alias : aliases) {
    if (!alias.name.ends_with('*')) continue;
    if (lower.starts_with(Lower(alias.name.substr(0, alias.name.size() - 1)))) return alias.model;
  }
  return {};
}

}  // namespace pensieve::service
