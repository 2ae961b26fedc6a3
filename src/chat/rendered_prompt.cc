#include "chat/rendered_prompt.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace pensieve::chat {
namespace {

using jinja::Origin;
using jinja::OriginRun;

// Where the bytes of one message stand.
struct MessageBytes {
  size_t message = 0;
  size_t begin = 0;
  size_t end = 0;
  size_t gap_begin = 0;  // behind what other parts of the request have given before
  bool whole = true;     // nothing of another message stands in between
};

// The messages in the order of their first bytes.
std::vector<MessageBytes> MessagesOf(const std::vector<OriginRun>& runs, size_t num_messages) {
  std::vector<MessageBytes> found;
  std::vector<size_t> index(num_messages, num_messages);  // of a message in `found`
  size_t begin = 0;
  size_t request_end = 0;  // of the request's bytes so far
  for (const OriginRun& run : runs) {
    const size_t message = run.origin - kFirstMessage;
    if (run.origin >= kFirstMessage && message < num_messages) {
      if (index[message] == num_messages) {
        index[message] = found.size();
        found.push_back({message, begin, run.end, request_end});
      } else {
        MessageBytes& known = found[index[message]];
        known.whole = known.whole && index[message] + 1 == found.size();
        known.end = run.end;
      }
    }
    if (run.origin != jinja::kFromTemplate) request_end = run.end;
    begin = run.end;
  }
  return found;
}

// Behind the header that stands in the gap before the first byte of an answer.
size_t TurnBegin(std::string_view text, const MessageBytes& bytes, const TurnFrame& frame) {
  const std::string_view gap = text.substr(bytes.gap_begin, bytes.begin - bytes.gap_begin);
  if (!frame.header.empty()) {
    const size_t at = gap.rfind(frame.header);
    return at == std::string_view::npos ? bytes.begin : bytes.gap_begin + at + frame.header.size();
  }
  size_t begin = bytes.begin;
  for (const std::string& closer : frame.closers) {
    const size_t at = closer.empty() ? std::string_view::npos : gap.find(closer);
    if (at != std::string_view::npos) begin = std::min(begin, bytes.gap_begin + at + closer.size());
  }
  return begin;
}

}  // namespace

RenderedPrompt ToPrompt(jinja::TracedText text, const std::vector<bool>& is_answer, const TurnFrame& frame) {
  RenderedPrompt prompt;
  const std::vector<OriginRun> runs = text.Runs();
  const auto source = [&](Origin origin) {
    if (origin == jinja::kFromTemplate) return TextSource::kTemplate;
    const bool answer = origin >= kFirstMessage && is_answer[origin - kFirstMessage];
    return answer ? TextSource::kAnswer : TextSource::kRequest;
  };
  for (const OriginRun& run : runs) {
    if (!prompt.spans.empty() && prompt.spans.back().source == source(run.origin)) {
      prompt.spans.back().end = run.end;
    } else {
      prompt.spans.push_back({run.end, source(run.origin)});
    }
  }
  const std::vector<MessageBytes> messages = MessagesOf(runs, is_answer.size());
  prompt.text = std::move(text).TakeBytes();
  for (size_t i = 0; i < messages.size(); ++i) {
    const MessageBytes& bytes = messages[i];
    if (!is_answer[bytes.message] || !bytes.whole) continue;
    const size_t next = i + 1 < messages.size() ? messages[i + 1].begin : prompt.text.size();
    AnswerRange range{bytes.gap_begin, TurnBegin(prompt.text, bytes, frame), bytes.begin, bytes.end};
    const std::string_view behind = std::string_view(prompt.text).substr(bytes.end, next - bytes.end);
    const size_t at = frame.answer_end.empty() ? std::string_view::npos : behind.find(frame.answer_end);
    if (at != std::string_view::npos) range.end += at;
    prompt.answers.push_back(range);
  }
  return prompt;
}

}  // namespace pensieve::chat
