// The channels of gpt-oss: a stream of messages, header `<|message|>` content `<|end|>`. The prompt ends inside a header
// ("<|start|>assistant"), so the output begins there. Channel analysis is reasoning, a recipient makes a tool call,
// everything else is text for the user.
#include <algorithm>

#include "chat/output_parser_parts.h"
#include "chat/python_text.h"

namespace pensieve::chat {
namespace {

constexpr size_t kNone = std::string::npos;
constexpr size_t kHeaderBytesMax = 4096;
constexpr std::string_view kMessage = "<|message|>";
// What ends a message's content. A new start without an end happens too.
const std::vector<std::string> kEnds = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};

// The word behind `mark`, up to a blank or the next marker; empty when the mark is not there.
std::string WordBehind(std::string_view header, std::string_view mark) {
  const size_t at = header.find(mark);
  if (at == kNone) return "";
  const std::string_view rest = header.substr(at + mark.size());
  return std::string(rest.substr(0, std::min(rest.find_first_of(" \t\r\n<"), rest.size())));
}

class HarmonyParser final : public BufferedParser {
 protected:
  bool Advance(std::vector<Segment>& out) override {
    if (plain_) {
      EmitText(buffer_.size(), out);
      return false;
    }
    return in_content_ ? AdvanceContent(out) : AdvanceHeader(out);
  }

  void End(std::vector<Segment>& out) override {
    if (in_content_) CloseMessage(out);
    // A header that never ended: only what is no markup is worth showing.
    if (!in_content_ && buffer_.find("<|") != kNone) buffer_.clear();
    if (!StripSpace(buffer_).empty()) EmitText(buffer_.size(), out);
  }

 private:
  bool AdvanceHeader(std::vector<Segment>& out) {
    const size_t at = buffer_.find(kMessage);
    if (at == kNone || at + kMessage.size() > kHeaderBytesMax) {
      // Not the format at all: better plain text than silence.
      plain_ = buffer_.size() > kHeaderBytesMax;
      return plain_;
    }
    OpenMessage(std::string_view(buffer_).substr(0, at), out);
    Drop(at + kMessage.size());
    in_content_ = true;
    return true;
  }

  void OpenMessage(std::string_view header, std::vector<Segment>& out) {
    const std::string channel = WordBehind(header, "<|channel|>");
    std::string recipient = WordBehind(header, "to=");
    kind_ = channel == "analysis" ? SegmentKind::kReasoning : SegmentKind::kText;
    if (recipient.starts_with("functions.")) recipient.erase(0, 10);
    if (recipient.empty() || recipient == "user" || recipient == "assistant") return;
    kind_ = SegmentKind::kToolCallArguments;
    call_has_arguments_ = false;
    out.push_back(Segment{SegmentKind::kToolCallStart, "", recipient, next_call_});
  }

  void Emit(size_t bytes, std::vector<Segment>& out) {
    if (bytes == 0) return;
    const bool call = kind_ == SegmentKind::kToolCallArguments;
    out.push_back(Segment{kind_, buffer_.substr(0, bytes), "", call ? next_call_ : -1});
    call_has_arguments_ = true;
    Drop(bytes);
  }

  void CloseMessage(std::vector<Segment>& out) {
    in_content_ = false;
    if (kind_ != SegmentKind::kToolCallArguments) return;
    if (!call_has_arguments_) out.push_back(Segment{kind_, "{}", "", next_call_});
    out.push_back(Segment{SegmentKind::kToolCallEnd, "", "", next_call_});
    ++next_call_;
  }

  bool AdvanceContent(std::vector<Segment>& out) {
    size_t at = kNone;
    size_t mark_bytes = 0;
    for (const std::string& end : kEnds) {
      const size_t found = buffer_.find(end);
      if (found >= at) continue;
      at = found;
      mark_bytes = end.size();
    }
    if (at == kNone) {
      Emit(buffer_.size() - (final_ ? 0 : PartialMarkerBytes(buffer_, kEnds)), out);
      return false;
    }
    Emit(at, out);
    Drop(mark_bytes);
    CloseMessage(out);
    return true;
  }

  bool in_content_ = false;
  bool plain_ = false;
  bool call_has_arguments_ = false;
  SegmentKind kind_ = SegmentKind::kText;
};

}  // namespace

std::unique_ptr<OutputParser> NewHarmonyParser() { return std::make_unique<HarmonyParser>(); }

}  // namespace pensieve::chat
