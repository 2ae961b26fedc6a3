#include "tokenizer/decoder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/normalizer.h"

namespace pensieve::tokenizer {
namespace {

std::string ReplaceLiteral(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  size_t copied = 0;
  for (size_t at = text.find(pattern); at != std::string_view::npos; at = text.find(pattern, copied)) {
    out.append(text.substr(copied, at - copied));
    out.append(content);
    copied = at + pattern.size();
  }
  out.append(text.substr(copied));
  return out;
}

// The value of a token <0xHH>.
std::optional<char> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  std::string_view digits = token.substr(3, 2);
  if (digits[0] == '+') digits.remove_prefix(1);  // the package's integer parser takes a sign
  unsigned value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) return std::nullopt;
  return static_cast<char>(static_cast<unsigned char>(value));
}

// A step that handles token by token, knowing only whether it is the first.
class TokenwiseStage : public DecoderStage {
 public:
  std::unique_ptr<DecodeStep> Start(bool fused, DecodeStep& next) const override;
  virtual std::string Transform(std::string_view token, bool is_first) const = 0;

 private:
  class Step;
};

class TokenwiseStage::Step final : public DecodeStep {
 public:
  Step(const TokenwiseStage& stage, bool fused, DecodeStep& next) : stage_(stage), fused_(fused), next_(next) {}
  void Push(std::string_view token) override {
    if (fused_) {
      whole_.append(token);
      return;
    }
    next_.Push(stage_.Transform(token, is_first_));
    is_first_ = false;
  }
  void End() override {
    if (fused_) next_.Push(stage_.Transform(whole_, true));
    next_.End();
  }

 private:
  const TokenwiseStage& stage_;
  const bool fused_;
  DecodeStep& next_;
  bool is_first_ = true;
  std::string whole_;
};

std::unique_ptr<DecodeStep> TokenwiseStage::Start(bool fused, DecodeStep& next) const {
  return std::make_unique<Step>(*this, fused, next);
}

class ByteLevelStage final : public DecoderStage {
 public:
  std::unique_ptr<DecodeStep> Start(bool /*fused*/, DecodeStep& next) const override {
    return std::make_unique<Step>(next);
  }
  bool fuses() const override { return true; }
  std::string TokenText(std::string token) const override { return AlphabetToBytes(token); }

 private:
  class Step final : public DecodeStep {
   public:
    explicit Step(DecodeStep& next) : next_(next) {}
    void Push(std::string_view token) override {
      std::string text;
      utf8_.Push(AlphabetToBytes(token), text);
      next_.Push(text);
    }
    void End() override {
      std::string text;
      utf8_.Flush(text);
      next_.Push(text);
      next_.End();
    }

   private:
    Utf8LossyStream utf8_;
    DecodeStep& next_;
  };
};

class ReplaceStage final : public TokenwiseStage {
 public:
  ReplaceStage(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string Transform(std::string_view token, bool /*is_first*/) const override {
    return ReplaceAll(pattern_, token, content_);
  }
  std::string TokenText(std::string token) const override { return Transform(token, false); }

 private:
  const Regex pattern_;
  const std::string content_;
};

class ReplaceLiteralStage final : public DecoderStage {
 public:
  ReplaceLiteralStage(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::unique_ptr<DecodeStep> Start(bool fused, DecodeStep& next) const override {
    return std::make_unique<Step>(*this, fused, next);
  }
  std::string TokenText(std::string token) const override { return ReplaceLiteral(token, pattern_, content_); }

 private:
  class Step final : public DecodeStep {
   public:
    Step(const ReplaceLiteralStage& stage, bool fused, DecodeStep& next) : stage_(stage), fused_(fused), next_(next) {}
    void Push(std::string_view token) override {
      const std::string& pattern = stage_.pattern_;
      if (!fused_) {
        next_.Push(ReplaceLiteral(token, pattern, stage_.content_));
        return;
      }
      held_.append(token);
      const size_t last = held_.rfind(pattern);
      size_t settled = last == std::string::npos ? 0 : LastMatchEnd();
      // What may still become a match is a suffix shorter than the pattern.
      for (settled = std::max(settled, held_.size() - std::min(held_.size(), pattern.size() - 1));
           settled < held_.size() && !pattern.starts_with(std::string_view(held_).substr(settled));) {
        ++settled;
      }
      next_.Push(ReplaceLiteral(std::string_view(held_).substr(0, settled), pattern, stage_.content_));
      held_.erase(0, settled);
    }
    void End() override {
      if (!held_.empty()) next_.Push(held_);
      next_.End();
    }

   private:
    // End of the last match when matches are taken from the left, without overlap.
    size_t LastMatchEnd() const {
      size_t end = 0;
      for (size_t at = held_.find(stage_.pattern_); at != std::string::npos; at = held_.find(stage_.pattern_, end)) {
        end = at + stage_.pattern_.size();
      }
      return end;
    }
    const ReplaceLiteralStage& stage_;
    const bool fused_;
    DecodeStep& next_;
    std::string held_;
  };

  const std::string pattern_;
  const std::string content_;
};

// A run of byte tokens is text when it is valid UTF-8 as a whole, else one U+FFFD per byte: so a run is held until it
// ends, which for texts in the model's own alphabet is within one character.
class ByteFallbackStage final : public DecoderStage {
 public:
  std::unique_ptr<DecodeStep> Start(bool fused, DecodeStep& next) const override {
    return std::make_unique<Step>(fused, next);
  }
  std::string TokenText(std::string token) const override {
    const auto byte = ByteOfToken(token);
    return byte ? std::string(1, *byte) : token;
  }

 private:
  class Step final : public DecodeStep {
   public:
    Step(bool fused, DecodeStep& next) : fused_(fused), next_(next) {}
    void Push(std::string_view token) override {
      if (fused_) {
        run_.append(token);
        return;
      }
      if (const auto byte = ByteOfToken(token)) {
        run_.push_back(*byte);
        return;
      }
      EndRun();
      next_.Push(token);
    }
    void End() override {
      if (fused_) {
        const auto byte = ByteOfToken(run_);
        next_.Push(!byte ? run_ : (*byte & 0x80) != 0 ? std::string(kReplacementCharacter) : std::string(1, *byte));
      } else {
        EndRun();
      }
      next_.End();
    }

   private:
    void EndRun() {
      if (run_.empty()) return;
      if (IsValidUtf8(run_)) {
        next_.Push(run_);
      } else {
        for (size_t i = 0; i < run_.size(); ++i) next_.Push(kReplacementCharacter);
      }
      run_.clear();
    }
    const bool fused_;
    DecodeStep& next_;
    std::string run_;
  };
};

class FuseStage final : public DecoderStage {
 public:
  std::unique_ptr<DecodeStep> Start(bool /*fused*/, DecodeStep& next) const override {
    return std::make_unique<Step>(next);
  }
  bool fuses() const override { return true; }
  std::string TokenText(std::string token) const override { return token; }

 private:
  class Step final : public DecodeStep {
   public:
    explicit Step(DecodeStep& next) : next_(next) {}
    void Push(std::string_view token) override { next_.Push(token); }
    void End() override { next_.End(); }

   private:
    DecodeStep& next_;
  };
};

class StripStage final : public DecoderStage {
 public:
  StripStage(char32_t content, size_t start, size_t stop) : start_(start), stop_(stop) {
    AppendUtf8(content, content_);
  }
  std::unique_ptr<DecodeStep> Start(bool fused, DecodeStep& next) const override {
    return std::make_unique<Step>(*this, fused, next);
  }
  std::string TokenText(std::string token) const override { return token; }

 private:
  // Strips the left side at once, and holds back what the right side may lose.
  class Step final : public DecodeStep {
   public:
    Step(const StripStage& stage, bool fused, DecodeStep& next)
        : stage_(stage), fused_(fused), next_(next), left_(stage.start_) {}
    void Push(std::string_view token) override {
      Take(token);
      if (!fused_) EndToken();
    }
    void End() override {
      if (fused_) EndToken();
      next_.End();
    }

   private:
    void Take(std::string_view text) {
      const std::string& content = stage_.content_;
      while (left_ > 0 && !text.empty()) {
        left_ = text.starts_with(content) ? left_ - 1 : 0;
        if (text.starts_with(content)) text.remove_prefix(content.size());
      }
      held_.append(text);
      size_t kept = held_.size();
      for (size_t i = 0; i < stage_.stop_ && std::string_view(held_).substr(0, kept).ends_with(content); ++i) {
        kept -= content.size();
      }
      if (kept == 0) return;
      token_.append(held_, 0, kept);
      held_.erase(0, kept);
      if (fused_) {
        next_.Push(token_);
        token_.clear();
      }
    }
    void EndToken() {
      next_.Push(token_);
      token_.clear();
      held_.clear();
      left_ = stage_.start_;
    }
    const StripStage& stage_;
    const bool fused_;
    DecodeStep& next_;
    size_t left_;
    std::string held_;
    std::string token_;
  };

  std::string content_;
  const size_t start_;
  const size_t stop_;
};

class MetaspaceStage final : public TokenwiseStage {
 public:
  MetaspaceStage(std::string replacement, PrependScheme scheme)
      : replacement_(std::move(replacement)), scheme_(scheme) {}
  std::string Transform(std::string_view token, bool is_first) const override {
    return ReplaceLiteral(token, replacement_, is_first && scheme_ != PrependScheme::kNever ? "" : " ");
  }
  std::string TokenText(std::string token) const override { return Transform(token, false); }

 private:
  const std::string replacement_;
  const PrependScheme scheme_;
};

class WordPieceStage final : public TokenwiseStage {
 public:
  WordPieceStage(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  std::string Transform(std::string_view token, bool is_first) const override {
    std::string text(token);
    if (!is_first) {
      if (text.starts_with(prefix_)) {
        text.erase(0, prefix_.size());
      } else {
        text.insert(0, " ");
      }
    }
    if (!cleanup_) return text;
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kCleanups = {{
        {" .", "."},
        {" ?", "?"},
        {" !", "!"},
        {" ,", ","},
        {" ' ", "'"},
        {" n't", "n't"},
        {" 'm", "'m"},
        {" do not", " don't"},
        {" 's", "'s"},
        {" 've", "'ve"},
        {" 're", "'re"},
    }};
    for (const auto& [from, to] : kCleanups) text = ReplaceLiteral(text, from, to);
    return text;
  }
  std::string TokenText(std::string token) const override { return Transform(token, false); }

 private:
  const std::string prefix_;
  const bool cleanup_;
};

// The suffix marks the end of a word: a space, except behind the last token, so one token is held back.
class BpeStage final : public DecoderStage {
 public:
  explicit BpeStage(std::string suffix) : suffix_(std::move(suffix)) {}
  std::unique_ptr<DecodeStep> Start(bool fused, DecodeStep& next) const override {
    return std::make_unique<Step>(suffix_, fused, next);
  }
  std::string TokenText(std::string token) const override { return ReplaceLiteral(token, suffix_, " "); }

 private:
  class Step final : public DecodeStep {
   public:
    Step(const std::string& suffix, bool fused, DecodeStep& next) : suffix_(suffix), fused_(fused), next_(next) {}
    void Push(std::string_view token) override {
      if (fused_) {
        last_.append(token);
        return;
      }
      if (has_last_) next_.Push(ReplaceLiteral(last_, suffix_, " "));
      last_ = token;
      has_last_ = true;
    }
    void End() override {
      if (has_last_ || fused_) next_.Push(ReplaceLiteral(last_, suffix_, ""));
      next_.End();
    }

   private:
    const std::string& suffix_;
    const bool fused_;
    DecodeStep& next_;
    bool has_last_ = false;
    std::string last_;
  };
  const std::string suffix_;
};

class JoinStage final : public TokenwiseStage {
 public:
  std::string Transform(std::string_view token, bool is_first) const override {
    return (is_first ? "" : " ") + std::string(token);
  }
  std::string TokenText(std::string token) const override { return Transform(token, false); }
};

}  // namespace

DecoderStagePtr MakeByteLevelDecoder() { return std::make_unique<ByteLevelStage>(); }
DecoderStagePtr MakeReplaceDecoder(Regex pattern, std::string content) {
  return std::make_unique<ReplaceStage>(std::move(pattern), std::move(content));
}
DecoderStagePtr MakeReplaceLiteralDecoder(std::string pattern, std::string content) {
  return std::make_unique<ReplaceLiteralStage>(std::move(pattern), std::move(content));
}
DecoderStagePtr MakeByteFallbackDecoder() { return std::make_unique<ByteFallbackStage>(); }
DecoderStagePtr MakeFuseDecoder() { return std::make_unique<FuseStage>(); }
DecoderStagePtr MakeStripDecoder(char32_t content, size_t start, size_t stop) {
  return std::make_unique<StripStage>(content, start, stop);
}
DecoderStagePtr MakeMetaspaceDecoder(std::string replacement, PrependScheme prepend_scheme) {
  return std::make_unique<MetaspaceStage>(std::move(replacement), prepend_scheme);
}
DecoderStagePtr MakeWordPieceDecoder(std::string prefix, bool cleanup) {
  return std::make_unique<WordPieceStage>(std::move(prefix), cleanup);
}
DecoderStagePtr MakeBpeDecoder(std::string suffix) { return std::make_unique<BpeStage>(std::move(suffix)); }
DecoderStagePtr MakeJoinDecoder() { return std::make_unique<JoinStage>(); }

DecodeChain::DecodeChain(const std::vector<DecoderStagePtr>& stages) : collector_(std::make_unique<Collector>()) {
  std::vector<bool> fused(stages.size());
  for (size_t i = 1; i < stages.size(); ++i) fused[i] = fused[i - 1] || stages[i - 1]->fuses();
  DecodeStep* next = collector_.get();
  for (size_t i = stages.size(); i-- > 0;) {
    steps_.push_back(stages[i]->Start(fused[i], *next));
    next = steps_.back().get();
  }
}

std::string DecodeChain::Push(std::string_view token) {
  if (steps_.empty()) return std::string(token);
  steps_.back()->Push(token);
  return std::exchange(collector_->text, {});
}

std::string DecodeChain::Finish() {
  if (!steps_.empty()) steps_.back()->End();
  return std::exchange(collector_->text, {});
}

}  // namespace pensieve::tokenizer
