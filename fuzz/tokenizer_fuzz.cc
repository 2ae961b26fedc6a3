// Any bytes as tokenizer.json; the part behind a NUL byte is tokenizer_config.json. What loads must encode, decode and
// stream without a crash, and streaming must give what decoding gives.
#include <algorithm>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "fuzz_text.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace pensieve;
  const std::string_view input(reinterpret_cast<const char*>(bytes), size);
  const size_t split = std::min(input.find('\0'), size);
  Json config;
  if (split < size) {
    auto parsed = ParseJson(input.substr(split + 1));
    if (parsed && parsed->is_object()) config = *std::move(parsed);
  }
  const auto tokenizer = tokenizer::Tokenizer::FromHuggingFace(input.substr(0, split), config, "tokenizer.json");
  if (tokenizer) fuzz::UseTokenizer(**tokenizer);
  return 0;
}
