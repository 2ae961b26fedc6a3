// Drives a tokenizer that a fuzz target has loaded.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "tokenizer/tokenizer.h"

namespace pensieve::fuzz {

inline void UseTokenizer(const tokenizer::Tokenizer& tokenizer) {
  static constexpr std::array<std::string_view, 4> kTexts = {
      "", "Hello  world, it's 12345!\n\n  def f(x):\t# DON'T\r\n",
      "\xE0\xA4\xA8\xE0\xA4\xAE <s>[INST] \xF0\x9F\x98\x80\xFF\xC3",
      "\xE2\x96\x81\xE2\x96\x81 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa <0x41>"};
  for (const std::string_view text : kTexts) {
    for (const bool special : {false, true}) {
      const std::vector<int32_t> ids = tokenizer.Encode(text, {.add_special = special, .parse_special = special});
      const std::string decoded = tokenizer.Decode(ids, special);
      const auto stream = tokenizer.NewStreamDecoder(special);
      std::string streamed;
      for (const int32_t id : ids) streamed += stream->Push(id);
      streamed += stream->Flush();
      PENSIEVE_CHECK(streamed == decoded);
    }
  }
  for (const int32_t id : {-1, 0, 1, tokenizer.vocab_size() - 1, tokenizer.vocab_size()}) {
    (void)tokenizer.TokenBytes(id);
    (void)tokenizer.IdToToken(id);
    (void)tokenizer.IsSpecial(id);
  }
}

}  // namespace pensieve::fuzz
