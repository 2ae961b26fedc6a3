// What the parsers of single families share. Internal to chat/.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat/output_parser.h"

namespace pensieve::chat {

// A call that is longer than this is given as text: nothing may be held back without a bound.
inline constexpr size_t kHeldBytesMax = size_t{4} << 20;

// Length of the longest suffix of `text` that is a proper prefix of a marker.
size_t PartialMarkerBytes(std::string_view text, const std::vector<std::string>& markers);

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON of an object
};

// Keeps what has not been decided yet. Subclasses consume the front of `buffer_`.
class BufferedParser : public OutputParser {
 public:
  void Push(std::string_view text, std::vector<Segment>& out) final;
  void Finish(std::vector<Segment>& out) final;

 protected:
  // Consumes what can be decided; false when nothing could be. `final_` says that nothing follows.
  virtual bool Advance(std::vector<Segment>& out) = 0;
  // The output has ended; the buffer is what Advance left.
  virtual void End(std::vector<Segment>& out) { EmitText(buffer_.size(), out); }

  void EmitText(size_t bytes, std::vector<Segment>& out);
  void EmitCall(const ToolCall& call, std::vector<Segment>& out);
  void Drop(size_t bytes) { buffer_.erase(0, bytes); }

  std::string buffer_;
  int next_call_ = 0;
  bool final_ = false;
};

// Families whose calls are read as a whole: text up to `open`, then a block up to `close` (or the end of the output).
struct BlockFormat {
  std::vector<std::string> open = {};
  std::vector<std::string> close = {};  // of the same index as the opening; empty or absent: the block runs to the end
  std::string trailer = {};             // swallowed behind a block, blanks before it too
  bool at_start_only = false;           // the block can only open the message (leading blanks aside)
  bool keep_open = false;               // the opening marker is part of the block
  // Reads a block; false when it is no call.
  bool (*parse)(std::string_view block, const Json& tools, std::vector<ToolCall>& calls) = nullptr;
};
std::unique_ptr<OutputParser> NewBlockParser(BlockFormat format, Json tools);

// {"name": ..., "arguments" or "parameters": {...} or a JSON string}. Nothing when it is no call.
std::optional<ToolCall> CallFromJson(const Json& json);
// Bytes of the JSON value at the front of `text`; 0 when it does not end there or is broken.
size_t JsonValueBytes(std::string_view text);
// The JSON of an argument that arrived as bare text, by the schema of the tool's parameter.
Json ConvertArgument(const Json& tools, const std::string& tool_name, const std::string& key, const std::string& text);

// [f(a="x", b=2), g()] in Python's literals; false when it is anything else.
bool ParsePythonic(std::string_view text, std::vector<ToolCall>& calls);

BlockFormat QwenXmlFormat();
BlockFormat GlmFormat();
BlockFormat MiniMaxFormat();
BlockFormat LlamaFormat();
BlockFormat MistralFormat();
BlockFormat PhiFormat();
BlockFormat DeepSeekFormat();
BlockFormat KimiFormat();
BlockFormat PythonicFormat();
BlockFormat GemmaFormat();
BlockFormat FunctionGemmaFormat();
std::unique_ptr<OutputParser> NewHermesParser();
std::unique_ptr<OutputParser> NewHarmonyParser();
// Splits off reasoning between `open` and `close` at the start; the rest goes to `inner`.
std::unique_ptr<OutputParser> NewReasoningParser(std::string open, std::string close, bool starts_inside,
                                                 std::unique_ptr<OutputParser> inner);
std::unique_ptr<OutputParser> NewTextParser();

// Accepts JSON byte by byte; the value has to be an object.
class JsonScanner {
 public:
  enum class State : uint8_t { kMore, kDone, kBroken };
  State Feed(char c);

 private:
  enum class Expect : uint8_t { kValue, kValueOrEnd, kKey, kKeyOrEnd, kColon, kCommaOrEnd };
  State Broken() { return state_ = State::kBroken; }
  State Structure(char c);
  State StartValue(char c);
  State EndContainer(char c);
  bool FeedString(char c);
  bool FeedScalar(char c, bool& consumed);

  State state_ = State::kMore;
  Expect expect_ = Expect::kValue;
  std::string stack_;
  bool in_string_ = false;
  bool string_is_key_ = false;
  int escape_ = 0;      // 1 after a backslash, 2..5 inside \uXXXX
  std::string scalar_;  // number or literal being read
};

}  // namespace pensieve::chat
