// The steps between a text and its ids that all ways of encoding share. Pure functions of immutable parts.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer_parts.h"

namespace pensieve::tokenizer {

// Pre-tokenizes `text`, which holds no added token any more, and appends its ids.
void EncodeText(const TokenizerParts& parts, std::string_view text, bool starts_text, std::vector<int32_t>& ids);

// Normalizes a piece between two added tokens of the raw text and appends its ids. `authors`, whose spans are those of
// the piece, may be null: all may write all tokens.
void EncodePiece(const TokenizerParts& parts, NormalizedText piece, bool parse_special, const Authors* authors,
                 std::vector<int32_t>& ids);

}  // namespace pensieve::tokenizer
