// <think>...</think> and its relatives: reasoning stands at the front of the output, or the prompt has opened it.
#include "chat/output_parser_parts.h"
#include "chat/python_text.h"

namespace pensieve::chat {
namespace {

class ReasoningParser final : public BufferedParser {
 public:
  ReasoningParser(std::string open, std::string close, bool starts_inside, std::unique_ptr<OutputParser> inner)
      : open_{std::move(open)},
        close_{std::move(close)},
        inner_(std::move(inner)),
        state_(starts_inside ? State::kOpened : State::kStart) {}

 protected:
  bool Advance(std::vector<Segment>& out) override {
    switch (state_) {
      case State::kStart: return AdvanceStart();
      case State::kOpened: return AdvanceOpened();
      case State::kInside: return AdvanceInside(out);
      case State::kClosed: return AdvanceClosed();
      case State::kRest: break;
    }
    if (buffer_.empty()) return false;
    inner_->Push(std::exchange(buffer_, {}), out);
    return false;
  }

  void End(std::vector<Segment>& out) override {
    if (state_ == State::kInside) {
      EmitReasoning(StripSpaceRight(buffer_).size(), out);
    } else if (!buffer_.empty() && state_ != State::kClosed) {
      inner_->Push(buffer_, out);
    }
    inner_->Finish(out);
  }

 private:
  // kOpened: just behind the open tag. kClosed: just behind the close tag.
  enum class State { kStart, kOpened, kInside, kClosed, kRest };

  bool AdvanceStart() {
    const std::string_view front = StripSpaceLeft(buffer_);
    const std::string& open = open_[0];
    if (front.starts_with(open)) {
      Drop(buffer_.size() - front.size() + open.size());
      state_ = State::kOpened;
      return true;
    }
    if (!final_ && open.starts_with(front)) return false;
    state_ = State::kRest;
    return !buffer_.empty();
  }

  bool AdvanceOpened() {
    // The prompt has opened the tag, and some models open it once more.
    const std::string_view front = StripSpaceLeft(buffer_);
    if (!final_ && open_[0].starts_with(front) && front.size() < open_[0].size()) return false;
    if (front.starts_with(open_[0])) {
      Drop(buffer_.size() - front.size() + open_[0].size());
      return true;
    }
    if (buffer_.starts_with('\n')) Drop(1);
    state_ = State::kInside;
    return true;
  }

  bool AdvanceInside(std::vector<Segment>& out) {
    const size_t at = buffer_.find(close_[0]);
    if (at != std::string::npos) {
      size_t reasoning = at;
      if (reasoning > 0 && buffer_[reasoning - 1] == '\n') --reasoning;
      EmitReasoning(reasoning, out);
      Drop(at - reasoning + close_[0].size());
      state_ = State::kClosed;
      return true;
    }
    // A line end may turn out to stand before the close tag.
    size_t sure = buffer_.size() - PartialMarkerBytes(buffer_, close_);
    if (sure > 0 && buffer_[sure - 1] == '\n') --sure;
    if (!final_) EmitReasoning(sure, out);
    return false;
  }

  bool AdvanceClosed() {
    const size_t text = buffer_.find_first_not_of('\n');
    if (text == std::string::npos) {
      buffer_.clear();
      return false;
    }
    Drop(text);
    state_ = State::kRest;
    return true;
  }

  void EmitReasoning(size_t bytes, std::vector<Segment>& out) {
    if (bytes == 0) return;
    out.push_back(Segment{SegmentKind::kReasoning, buffer_.substr(0, bytes), "", -1});
    Drop(bytes);
  }

  const std::vector<std::string> open_;
  const std::vector<std::string> close_;
  const std::unique_ptr<OutputParser> inner_;
  State state_;
};

}  // namespace

std::unique_ptr<OutputParser> NewReasoningParser(std::string open, std::string close, bool starts_inside,
                                                 std::unique_ptr<OutputParser> inner) {
  return std::make_unique<ReasoningParser>(std::move(open), std::move(close), starts_inside, std::move(inner));
}

}  // namespace pensieve::chat
