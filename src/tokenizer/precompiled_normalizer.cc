// SentencePiece's compiled normalization rules: a double-array trie (Darts) from byte strings to offsets into a list of
// NUL-terminated replacements.
#include <cstring>
#include <optional>

#include <utf8proc.h>

#include "base/utf8.h"
#include "fmt/format.h"
#include "tokenizer/normalizer.h"

namespace pensieve::tokenizer {
namespace {

class Precompiled final : public Normalizer {
 public:
  Precompiled(std::vector<uint32_t> units, std::string replacements)
      : units_(std::move(units)), replacements_(std::move(replacements)) {}

  void Apply(NormalizedText& piece) const override {
    std::string out;
    out.reserve(piece.text.size());
    const std::string_view text = piece.text;
    BorderMover borders(piece);
    for (size_t at = 0; at < text.size();) {
      borders.Reached(at, out.size());
      const size_t end = GraphemeEnd(text, at);
      AppendGrapheme(text.substr(at, end - at), out);
      at = end;
    }
    borders.Reached(text.size(), out.size());
    piece.text = std::move(out);
  }

 private:
  static size_t GraphemeEnd(std::string_view text, size_t begin) {
    size_t at = begin;
    utf8proc_int32_t state = 0;
    auto previous = static_cast<utf8proc_int32_t>(NextCodePoint(text, at));
    while (at < text.size()) {
      size_t next = at;
      const auto c = static_cast<utf8proc_int32_t>(NextCodePoint(text, next));
      if (utf8proc_grapheme_break_stateful(previous, c, &state)) break;
      previous = c;
      at = next;
    }
    return at;
  }

  // Short graphemes are looked up as a whole, then character by character.
  void AppendGrapheme(std::string_view grapheme, std::string& out) const {
    constexpr size_t kWholeBytes = 6;
    if (grapheme.size() < kWholeBytes) {
      if (const auto replacement = Find(grapheme)) {
        out.append(*replacement);
        return;
      }
    }
    for (size_t at = 0; at < grapheme.size();) {
      const std::string_view character = grapheme.substr(at, Utf8Length(grapheme[at]));
      out.append(Find(character).value_or(character));
      at += character.size();
    }
  }

  // The replacement of the shortest rule that is a prefix of `key`.
  std::optional<std::string_view> Find(std::string_view key) const {
    size_t node = 0;
    node ^= Offset(units_[0]);
    for (const char c : key) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte == 0) break;
      node ^= byte;
      if (node >= units_.size()) return std::nullopt;
      const uint32_t unit = units_[node];
      if ((unit & 0x800000FFu) != byte) return std::nullopt;
      node ^= Offset(unit);
      if (((unit >> 8) & 1) == 0) continue;
      if (node >= units_.size()) return std::nullopt;
      const size_t at = units_[node] & 0x7FFFFFFFu;
      // One that begins inside of a character would make the text invalid.
      if (at >= replacements_.size() || IsContinuationByte(replacements_[at])) return std::nullopt;
      const std::string_view rest = std::string_view(replacements_).substr(at);
      return rest.substr(0, rest.find('\0'));
    }
    return std::nullopt;
  }

  static size_t Offset(uint32_t unit) { return static_cast<size_t>(unit >> 10) << ((unit & (1u << 9)) >> 6); }

  const std::vector<uint32_t> units_;
  const std::string replacements_;
};

uint32_t ReadU32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  }
  return value;
}

}  // namespace

Result<NormalizerPtr> MakePrecompiledNormalizer(std::string_view charsmap) {
  if (charsmap.size() < 4) return DataLoss(fmt::format("is {} bytes, too short for a trie", charsmap.size()));
  const size_t trie_bytes = ReadU32(charsmap, 0);
  if (trie_bytes < 4 || trie_bytes % 4 != 0 || trie_bytes > charsmap.size() - 4) {
    return DataLoss(fmt::format("has a trie of {} bytes in {} bytes", trie_bytes, charsmap.size()));
  }
  std::vector<uint32_t> units(trie_bytes / 4);
  for (size_t i = 0; i < units.size(); ++i) units[i] = ReadU32(charsmap, 4 + 4 * i);
  std::string replacements(charsmap.substr(4 + trie_bytes));
  if (!IsValidUtf8(replacements)) return DataLoss("has replacements that are no valid UTF-8");
  return NormalizerPtr(std::make_unique<Precompiled>(std::move(units), std::move(replacements)));
}

}  // namespace pensieve::tokenizer
