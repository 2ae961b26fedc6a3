// <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call> of Hermes, Qwen and SmolLM models. The arguments are
// passed on as they arrive: once the name is known, nothing is held back.
#include <algorithm>

#include "chat/output_parser_parts.h"
#include "chat/python_text.h"

namespace pensieve::chat {
namespace {

const std::vector<std::string> kOpen = {"<tool_call>"};
constexpr std::string_view kClose = "</tool_call>";
constexpr size_t kNone = std::string::npos;

size_t SkipBlanks(std::string_view text, size_t at) {
  while (at < text.size() && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')) ++at;
  return at;
}

// Behind the closing quote of the JSON string at `at`; kNone while it is open.
size_t StringEnd(std::string_view text, size_t at) {
  for (++at; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at + 1;
    }
  }
  return kNone;
}

enum class HeaderState { kMore, kStream, kWhole };

// What can be said about the front of a call: more is needed, its arguments can be streamed from `arguments_at`, or
// its keys are in an order (or a form) that needs the whole block.
struct Header {
  HeaderState state = HeaderState::kMore;
  std::string name;
  size_t arguments_at = 0;
};

Header ReadHeader(std::string_view text) {
  Header header;
  const auto whole = [&] {
    header.state = HeaderState::kWhole;
    return header;
  };
  size_t at = SkipBlanks(text, 0);
  if (at == text.size()) return header;
  if (text[at] != '{') return whole();
  ++at;
  while (true) {
    at = SkipBlanks(text, at);
    if (at == text.size()) return header;
    if (text[at] != '"') return whole();
    const size_t key_end = StringEnd(text, at);
    if (key_end == kNone) return header;
    const std::string_view key = text.substr(at + 1, key_end - at - 2);
    at = SkipBlanks(text, key_end);
    if (at == text.size()) return header;
    if (text[at] != ':') return whole();
    at = SkipBlanks(text, at + 1);
    if (at == text.size()) return header;
    const bool is_arguments = key == "arguments" || key == "parameters";
    if (is_arguments && text[at] == '{' && !header.name.empty()) {
      header.state = HeaderState::kStream;
      header.arguments_at = at;
      return header;
    }
    if (is_arguments || text[at] != '"') return whole();
    const size_t value_end = StringEnd(text, at);
    if (value_end == kNone) return header;
    if (key == "name") {
      const auto name = ParseJson(text.substr(at, value_end - at));
      if (!name.has_value()) return whole();
      header.name = name->get<std::string>();
    }
    at = SkipBlanks(text, value_end);
    if (at == text.size()) return header;
    if (text[at] != ',') return whole();
    ++at;
  }
}

class HermesParser final : public BufferedParser {
 protected:
  bool Advance(std::vector<Segment>& out) override {
    switch (state_) {
      case State::kText: return AdvanceText(out);
      case State::kHeader: return AdvanceHeader(out);
      case State::kWhole: return AdvanceWhole(out);
      case State::kArguments: return AdvanceArguments(out);
      case State::kTail: return AdvanceTail();
    }
    return false;
  }

  void End(std::vector<Segment>& out) override {
    if (state_ == State::kHeader || state_ == State::kWhole) CloseWhole(buffer_.size(), 0, out);
    if (state_ == State::kArguments) EndCall(out);
    EmitText(buffer_.size(), out);
  }

 private:
  enum class State { kText, kHeader, kWhole, kArguments, kTail };

  bool AdvanceText(std::vector<Segment>& out) {
    const size_t at = buffer_.find(kOpen[0]);
    if (at == kNone) {
      size_t sure = buffer_.size() - (final_ ? 0 : PartialMarkerBytes(buffer_, kOpen));
      if (!final_) sure = StripSpaceRight(std::string_view(buffer_).substr(0, sure)).size();
      EmitText(sure, out);
      return false;
    }
    const size_t sure = StripSpaceRight(std::string_view(buffer_).substr(0, at)).size();
    blanks_ = buffer_.substr(sure, at - sure);
    EmitText(sure, out);
    Drop(blanks_.size() + kOpen[0].size());
    state_ = State::kHeader;
    return true;
  }

  bool AdvanceHeader(std::vector<Segment>& out) {
    // A closing tag here ends a broken call, also inside of a string, whatever came behind it in the same push; so does a
    // header without end.
    const size_t close = buffer_.find(kClose);
    Header header = ReadHeader(std::string_view(buffer_).substr(0, close));
    if (header.state == HeaderState::kMore) {
      if (close == kNone && buffer_.size() <= kHeldBytesMax) return false;
      header.state = HeaderState::kWhole;
    }
    if (header.state == HeaderState::kWhole) {
      state_ = State::kWhole;
      searched_ = 0;
      return true;
    }
    out.push_back(Segment{SegmentKind::kToolCallStart, "", header.name, next_call_});
    Drop(header.arguments_at);
    scanner_ = JsonScanner();
    state_ = State::kArguments;
    return true;
  }

  bool AdvanceWhole(std::vector<Segment>& out) {
    const size_t at = buffer_.find(kClose, searched_);
    if (at != kNone) {
      CloseWhole(at, kClose.size(), out);
      return true;
    }
    if (buffer_.size() > kHeldBytesMax) {
      CloseWhole(buffer_.size(), 0, out);
      return true;
    }
    searched_ = buffer_.size() > kClose.size() ? buffer_.size() - kClose.size() : 0;
    return false;
  }

  void CloseWhole(size_t block_bytes, size_t close_bytes, std::vector<Segment>& out) {
    const auto json = ParseJson(StripSpace(std::string_view(buffer_).substr(0, block_bytes)));
    const auto call = json.has_value() ? CallFromJson(*json) : std::nullopt;
    state_ = State::kText;
    if (call.has_value()) {
      EmitCall(*call, out);
    } else {
      std::string text = blanks_ + kOpen[0] + buffer_.substr(0, block_bytes + close_bytes);
      out.push_back(Segment{SegmentKind::kText, std::move(text), "", -1});
    }
    Drop(block_bytes + close_bytes);
  }

  bool AdvanceArguments(std::vector<Segment>& out) {
    size_t accepted = 0;
    auto scanned = JsonScanner::State::kMore;
    while (accepted < buffer_.size() && scanned == JsonScanner::State::kMore) {
      scanned = scanner_.Feed(buffer_[accepted]);
      if (scanned != JsonScanner::State::kBroken) ++accepted;
    }
    if (accepted > 0) {
      out.push_back(Segment{SegmentKind::kToolCallArguments, buffer_.substr(0, accepted), "", next_call_});
      Drop(accepted);
    }
    if (scanned == JsonScanner::State::kMore) return false;
    EndCall(out);
    state_ = scanned == JsonScanner::State::kDone ? State::kTail : State::kText;
    return true;
  }

  void EndCall(std::vector<Segment>& out) {
    out.push_back(Segment{SegmentKind::kToolCallEnd, "", "", next_call_});
    ++next_call_;
    state_ = State::kText;
  }

  // Behind the arguments: the closing brace, perhaps further keys, and the closing tag, which may be missing.
  bool AdvanceTail() {
    const size_t close = buffer_.find(kClose);
    const size_t at = std::min(buffer_.find_first_not_of(" \t\r\n}"), buffer_.size());
    const std::string_view rest = std::string_view(buffer_).substr(at);
    if (close != kNone && (close == at || (!rest.empty() && rest[0] == ','))) {
      Drop(close + kClose.size());
      state_ = State::kText;
      return true;
    }
    const bool undecided = rest.empty() || kClose.starts_with(rest) || rest[0] == ',';
    if (undecided && !final_ && buffer_.size() <= kHeldBytesMax) return false;
    Drop(undecided ? buffer_.size() : at);
    state_ = State::kText;
    return true;
  }

  State state_ = State::kText;
  JsonScanner scanner_;
  std::string blanks_;  // in front of the open tag
  size_t searched_ = 0;
};

}  // namespace

std::unique_ptr<OutputParser> NewHermesParser() { return std::make_unique<HermesParser>(); }

}  // namespace pensieve::chat
