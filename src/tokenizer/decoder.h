// Decoders: from token spellings back to text, as a chain of steps that pass pieces of text on as soon as they can.
// Decoding everything at once runs the same chain, so a stream's pieces always add up to the same text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/regex.h"

namespace pensieve::tokenizer {

// One running step of one stream. Not thread-safe.
class DecodeStep {
 public:
  virtual ~DecodeStep() = default;
  // The next token; behind a stage that fuses, the next part of the one token.
  virtual void Push(std::string_view token) = 0;
  // No more tokens: passes on what was held back, and the end.
  virtual void End() = 0;
};

// One stage as the file describes it. Immutable; thread-safe.
class DecoderStage {
 public:
  virtual ~DecoderStage() = default;
  // `fused`: what is pushed are parts of a single token. `next` must outlive the step.
  virtual std::unique_ptr<DecodeStep> Start(bool fused, DecodeStep& next) const = 0;
  // Whether everything behind this stage is one token.
  virtual bool fuses() const { return false; }
  // What a token in the middle of a text becomes.
  virtual std::string TokenText(std::string token) const = 0;
};

using DecoderStagePtr = std::unique_ptr<DecoderStage>;
DecoderStagePtr MakeByteLevelDecoder();
DecoderStagePtr MakeReplaceDecoder(Regex pattern, std::string content);
// A literal pattern is found across the parts of a fused text, too, without waiting for the end.
DecoderStagePtr MakeReplaceLiteralDecoder(std::string pattern, std::string content);
DecoderStagePtr MakeByteFallbackDecoder();
DecoderStagePtr MakeFuseDecoder();
DecoderStagePtr MakeStripDecoder(char32_t content, size_t start, size_t stop);
DecoderStagePtr MakeMetaspaceDecoder(std::string replacement, PrependScheme prepend_scheme);
DecoderStagePtr MakeWordPieceDecoder(std::string prefix, bool cleanup);
DecoderStagePtr MakeBpeDecoder(std::string suffix);
DecoderStagePtr MakeJoinDecoder();  // no decoder in the file: tokens with spaces between them

// A running chain of stages. Not thread-safe; the stages must outlive it.
class DecodeChain {
 public:
  explicit DecodeChain(const std::vector<DecoderStagePtr>& stages);
  // The text that this token completes.
  std::string Push(std::string_view token);
  // The rest of the text. The chain is used up.
  std::string Finish();

 private:
  class Collector final : public DecodeStep {
   public:
    void Push(std::string_view token) override { text.append(token); }
    void End() override {}
    std::string text;
  };
  std::unique_ptr<Collector> collector_;
  std::vector<std::unique_ptr<DecodeStep>> steps_;  // last stage first
};

}  // namespace pensieve::tokenizer
