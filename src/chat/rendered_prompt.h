// What rendering a conversation gives: the text, who wrote which bytes of it, and where the assistant's turns stand.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/text_span.h"
#include "chat/jinja_text.h"

namespace pensieve::chat {

// An assistant's turn of the history: what the model would have generated itself.
struct AnswerRange {
  size_t gap_begin = 0;  // behind the last byte of the request before this turn
  size_t begin = 0;      // behind the header that opens the turn
  size_t own_begin = 0;  // of the message's own bytes; from gap_begin on, the template has written what is before
  size_t end = 0;        // of content and tool calls and what the template writes around these: before the marker that
                         // closes the turn
  bool operator==(const AnswerRange&) const = default;
};

struct RenderedPrompt {
  std::string text;
  std::vector<TextSpan> spans;
  std::vector<AnswerRange> answers;  // in order, disjoint
};

// How a template writes the borders of turns; any may be empty. Found by probing it.
struct TurnFrame {
  std::string header;                // opens an assistant's turn, generated or of the history
  std::vector<std::string> closers;  // what stands between a user's or a tool's message and that header
  std::string answer_end;            // closes an assistant's turn: one marker
};

// Origins of the strings of a request, for jinja::RenderContext: message i is kFirstMessage + i.
inline constexpr jinja::Origin kRequestOrigin = 1;
inline constexpr jinja::Origin kFirstMessage = 2;

// `is_answer` says which messages are the assistant's. Turns whose bytes do not stand in one piece, in the order of the
// messages, are left out of `answers`. O(bytes).
RenderedPrompt ToPrompt(jinja::TracedText text, const std::vector<bool>& is_answer, const TurnFrame& frame);

}  // namespace pensieve::chat
