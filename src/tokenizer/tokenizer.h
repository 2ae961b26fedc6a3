// Text <-> token ids, exactly as the Hugging Face `tokenizers` package does it for the same file.
//
//   text -> added tokens in the raw text -> normalizer -> added tokens in the normalized text -> pre-tokenizer
//        -> model (BPE, WordPiece, Unigram, WordLevel) -> post-processor -> ids
//   ids -> spellings -> decoder stages -> text
//
// Input may be any bytes: invalid UTF-8 is first replaced by U+FFFD, one for each maximal invalid subpart.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "base/text_span.h"
#include "tokenizer/gguf_vocabulary.h"

namespace pensieve::tokenizer {

struct TokenizerParts;  // tokenizer/tokenizer_parts.h
struct TokenLimits;     // tokenizer/added_tokens.h

struct EncodeOptions {
  bool add_special = true;    // run the post-processor (BOS/EOS/CLS/SEP)
  bool parse_special = true;  // recognise special tokens inside the text; false for text that a stranger wrote
};

// What the model around a tokenizer says about it.
struct TokenizerOptions {
  // Rows of the model's embedding. Added tokens with higher ids (an image's place, in a model without its image part)
  // are left out: in a text they are plain text.
  int64_t ids_end = INT64_MAX;
  // All text is lowercased first, unless the tokenizer does it (sentence-transformers' do_lower_case).
  bool lowercase = false;
};

// Two texts as one list of ids, as the tokenizer's post-processor joins them.
struct EncodedPair {
  std::vector<int32_t> ids;
  int32_t second_from = 0;  // tokens from here on are of type 1; the number of ids: none is
  int64_t tokens_seen = 0;  // with all of both texts
};

struct PairOptions {
  bool parse_special = true;  // as EncodeOptions::parse_special
  // > 0: the longer text is cut until all fits; texts of equal length lose from both. That is LongestFirst.
  int64_t tokens_max = 0;
};

// A prompt of several authors, not all of whom may write every token. Borrows what it names.
struct AuthoredText {
  std::string_view text;
  std::span<const TextSpan> spans;  // cover the text
  std::span<const size_t> marks;    // positions in the text, ascending, whose place among the tokens is wanted
  bool starts_text = true;          // false: it goes on behind other tokens
};

struct AuthoredIds {
  std::vector<int32_t> ids;
  // For each mark, how many tokens end at it or before it; -1 where that is not known (very many marks in one text
  // without any added token between them).
  std::vector<int64_t> marks;
};

struct SpecialToken {
  int32_t id = -1;
  std::string text;
};

struct SpecialTokens {
  std::optional<SpecialToken> bos, eos, unk, pad, cls, sep, mask;
  // Every token that ends a generation as far as the tokenizer's own files tell, ascending. The model's config may
  // name more.
  std::vector<int32_t> eog_ids;
  bool add_bos = false;  // Encode with add_special puts something in front
  bool add_eos = false;  // ... and behind
};

// Turns ids into text as they come. Never splits a character. Not thread-safe; its Tokenizer must outlive it.
class StreamDecoder {
 public:
  ~StreamDecoder();
  StreamDecoder(const StreamDecoder&) = delete;
  StreamDecoder& operator=(const StreamDecoder&) = delete;

  // The text that this token completes: amortized O(bytes of the token). Unknown ids add nothing.
  std::string Push(int32_t id);
  // What was held back. All pieces together are Decode(all ids). Nothing may be pushed afterwards.
  std::string Flush();

 private:
  friend class Tokenizer;
  struct State;
  explicit StreamDecoder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Immutable after loading; thread-safe.
class Tokenizer {
 public:
  // `tokenizer_json` is the text of tokenizer.json; its size is the caller's to bound. `tokenizer_config` is
  // tokenizer_config.json or null. `path` is for error messages.
  // DataLoss for malformed files, Unimplemented for component types that are not known; both name the field.
  static Result<std::unique_ptr<Tokenizer>> FromHuggingFace(std::string_view tokenizer_json,
                                                            const Json& tokenizer_config, const std::string& path,
                                                            const TokenizerOptions& options = {});
  static Result<std::unique_ptr<Tokenizer>> FromGguf(GgufVocabulary vocabulary, const std::string& path,
                                                     const TokenizerOptions& options = {});
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // O(n log n) in the bytes of the text.
  std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options = {}) const;
  // Unimplemented when the tokenizer joins pairs in an unusual way; InvalidArgument when nothing of the texts would fit.
  Result<EncodedPair> EncodePair(std::string_view first, std::string_view second,
                                 const PairOptions& options = {}) const;
  // For a text that is cut behind `tokens_max` ids: those come first as in Encode, and there are more exactly when Encode
  // gives more. What follows may be the ids of a part of the text only, closed by the post-processor as ever. Costs what
  // tokens_max tokens cost, where the text has spaces near the place to stop at, and else what Encode does.
  std::vector<int32_t> EncodeAtMost(std::string_view text, int64_t tokens_max, const EncodeOptions& options = {}) const;
  // As Encode without special tokens around, but that an added token is found only in text of those who may write it:
  // everything else of the text is normalized, split and merged as if it had one author. O(n log n), and for each mark
  // inside a text between added tokens once more what stands before it there.
  AuthoredIds EncodeAuthored(const AuthoredText& input, const TokenLimits& limits) const;
  // Who may write which added tokens, under a template whose source is given. Only the template may write what is
  // special, ends generation, or stands in `turn_borders`; template and answers what else the source names (<think>,
  // <tool_call>); anybody the rest. Runs of whitespace are nobody's.
  std::shared_ptr<const TokenLimits> Limit(std::string_view turn_borders, std::string_view template_source,
                                           std::span<const int32_t> stop_ids) const;
  // Ids outside the vocabulary add nothing.
  std::string Decode(std::span<const int32_t> ids, bool skip_special = true) const;

  int32_t vocab_size() const;  // highest id that Encode can give + 1
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // The vocabulary's own spelling ("Ġworld", "▁the", "##ing"); empty when out of range.
  std::string IdToToken(int32_t id) const;
  // The bytes that this token adds to a text it stands in the middle of (" world"); may be part of a character.
  std::string TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  const SpecialTokens& special() const;
  std::unique_ptr<StreamDecoder> NewStreamDecoder(bool skip_special) const;
  // Sentences about what was guessed while loading, for the log; usually none.
  const std::vector<std::string>& warnings() const;

 private:
  explicit Tokenizer(TokenizerParts parts);
  // The ids of a text alone, appended.
  void EncodePlain(std::string_view text, bool parse_special, std::vector<int32_t>& ids) const;

  const std::unique_ptr<const TokenizerParts> parts_;
};

}  // namespace pensieve::tokenizer
