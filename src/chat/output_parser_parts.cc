#include "chat/output_parser_parts.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "chat/python_text.h"

namespace pensieve::chat {

size_t PartialMarkerBytes(std::string_view text, const std::vector<std::string>& markers) {
  size_t held = 0;
  for (const std::string& marker : markers) {
    size_t length = std::min(marker.size() - 1, text.size());
    while (length > held && !std::string_view(marker).starts_with(text.substr(text.size() - length))) --length;
    held = std::max(held, length);
  }
  return held;
}

void BufferedParser::Push(std::string_view text, std::vector<Segment>& out) {
  buffer_ += text;
  while (Advance(out)) {}
}

void BufferedParser::Finish(std::vector<Segment>& out) {
  final_ = true;
  while (Advance(out)) {}
  End(out);
  buffer_.clear();
}

void BufferedParser::EmitText(size_t bytes, std::vector<Segment>& out) {
  if (bytes == 0) return;
  out.push_back(Segment{SegmentKind::kText, buffer_.substr(0, bytes), "", -1});
  Drop(bytes);
}

void BufferedParser::EmitCall(const ToolCall& call, std::vector<Segment>& out) {
  out.push_back(Segment{SegmentKind::kToolCallStart, "", call.name, next_call_});
  out.push_back(Segment{SegmentKind::kToolCallArguments, call.arguments, "", next_call_});
  out.push_back(Segment{SegmentKind::kToolCallEnd, "", "", next_call_});
  ++next_call_;
}

namespace {

class TextParser final : public OutputParser {
 public:
  void Push(std::string_view text, std::vector<Segment>& out) override {
    if (!text.empty()) out.push_back(Segment{SegmentKind::kText, std::string(text), "", -1});
  }
  void Finish(std::vector<Segment>&) override {}
};

class BlockParser final : public BufferedParser {
 public:
  BlockParser(BlockFormat format, Json tools) : format_(std::move(format)), tools_(std::move(tools)) {}

 protected:
  bool Advance(std::vector<Segment>& out) override { return inside_ ? AdvanceBlock(out) : AdvanceText(out); }

  void End(std::vector<Segment>& out) override {
    if (inside_) {
      // The closing marker is missing, as when generation stopped at it: the block may be whole all the same.
      CloseBlock(buffer_.size(), 0, out);
    }
    EmitText(buffer_.size(), out);
  }

 private:
  // Right behind a block: its trailer, if there is one. False while that cannot be told.
  bool SkipTrailer() {
    const std::string_view rest = StripSpaceLeft(buffer_);
    const bool undecided = rest.size() < format_.trailer.size() && format_.trailer.starts_with(rest);
    if (undecided && !final_) return false;
    if (rest.starts_with(format_.trailer)) Drop(buffer_.size() - rest.size() + format_.trailer.size());
    after_block_ = false;
    return true;
  }

  bool AdvanceText(std::vector<Segment>& out) {
    if (after_block_ && !format_.trailer.empty() && !SkipTrailer()) return false;
    if (buffer_.empty() || text_only_) {
      const bool any = !buffer_.empty();
      EmitText(buffer_.size(), out);
      return any;
    }
    size_t at = std::string::npos;
    for (size_t i = 0; i < format_.open.size(); ++i) {
      const size_t found = buffer_.find(format_.open[i]);
      if (found >= at) continue;
      at = found;
      opened_ = i;
    }
    const size_t blanks = buffer_.find_first_not_of(" \t\r\n");
    if (format_.at_start_only && at != blanks) {
      const std::string_view front = blanks == std::string::npos ? "" : std::string_view(buffer_).substr(blanks);
      const bool may_open = !final_ && (front.empty() || PartialMarkerBytes(front, format_.open) == front.size());
      text_only_ = !may_open;
      return text_only_;
    }
    if (at != std::string::npos) {
      const std::string_view before = StripSpaceRight(std::string_view(buffer_).substr(0, at));
      blanks_ = buffer_.substr(before.size(), at - before.size());
      EmitText(before.size(), out);
      Drop(blanks_.size() + (format_.keep_open ? 0 : format_.open[opened_].size()));
      inside_ = true;
      searched_ = 0;
      return true;
    }
    // Blanks before a call belong to the markup, so they wait too.
    size_t sure = buffer_.size() - (final_ ? 0 : PartialMarkerBytes(buffer_, format_.open));
    if (!final_) sure = StripSpaceRight(std::string_view(buffer_).substr(0, sure)).size();
    EmitText(sure, out);
    return false;
  }

  bool AdvanceBlock(std::vector<Segment>& out) {
    if (buffer_.size() > kHeldBytesMax) {
      GiveUp(buffer_.size(), 0, out);
      text_only_ = true;
      return true;
    }
    const std::string close = format_.close.empty() ? "" : format_.close[opened_];
    if (close.empty()) return false;  // End closes it
    const size_t at = buffer_.find(close, searched_);
    if (at == std::string::npos) {
      searched_ = buffer_.size() > close.size() ? buffer_.size() - close.size() : 0;
      return false;
    }
    CloseBlock(at, close.size(), out);
    return true;
  }

  void CloseBlock(size_t block_bytes, size_t close_bytes, std::vector<Segment>& out) {
    std::vector<ToolCall> calls;
    if (!format_.parse(std::string_view(buffer_).substr(0, block_bytes), tools_, calls) || calls.empty()) {
      GiveUp(block_bytes, close_bytes, out);
      return;
    }
    for (const ToolCall& call : calls) EmitCall(call, out);
    Drop(block_bytes + close_bytes);
    inside_ = false;
    after_block_ = true;
  }

  // The block is no call: it is shown as it was written.
  void GiveUp(size_t block_bytes, size_t close_bytes, std::vector<Segment>& out) {
    std::string text = blanks_ + (format_.keep_open ? "" : format_.open[opened_]);
    text += buffer_.substr(0, block_bytes + close_bytes);
    out.push_back(Segment{SegmentKind::kText, std::move(text), "", -1});
    Drop(block_bytes + close_bytes);
    inside_ = false;
  }

  const BlockFormat format_;
  const Json tools_;
  bool inside_ = false;
  bool text_only_ = false;
  bool after_block_ = false;
  size_t opened_ = 0;
  size_t searched_ = 0;
  std::string blanks_;  // in front of the open marker
};

const Json* ParameterSchema(const Json& tools, const std::string& tool_name, const std::string& key) {
  if (!tools.is_array()) return nullptr;
  for (const Json& tool : tools) {
    const Json& function = tool.is_object() && tool.contains("function") ? tool["function"] : tool;
    if (!function.is_object() || !function.contains("name") || function["name"] != tool_name) continue;
    const Json::json_pointer path = Json::json_pointer("/parameters/properties");
    if (!function.contains(path) || !function[path].is_object()) return nullptr;
    const auto found = function[path].find(key);
    return found == function[path].end() ? nullptr : &*found;
  }
  return nullptr;
}

std::string SchemaType(const Json* schema) {
  if (schema == nullptr || !schema->is_object()) return "";
  const auto type = schema->find("type");
  if (type == schema->end()) return "";
  if (type->is_string()) return type->get<std::string>();
  if (!type->is_array()) return "";
  for (const Json& option : *type) {
    if (option.is_string() && option != "null") return option.get<std::string>();
  }
  return "";
}

}  // namespace

std::unique_ptr<OutputParser> NewTextParser() { return std::make_unique<TextParser>(); }
std::unique_ptr<OutputParser> NewBlockParser(BlockFormat format, Json tools) {
  return std::make_unique<BlockParser>(std::move(format), std::move(tools));
}

std::optional<ToolCall> CallFromJson(const Json& json) {
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return std::nullopt;
  ToolCall call{json["name"].get<std::string>(), "{}"};
  if (call.name.empty()) return std::nullopt;
  for (const char* key : {"arguments", "parameters"}) {
    if (!json.contains(key)) continue;
    const Json& arguments = json[key];
    if (arguments.is_object()) {
      call.arguments = DumpJson(arguments);
      return call;
    }
    if (arguments.is_null()) return call;
    if (!arguments.is_string()) return std::nullopt;
    const auto parsed = ParseJson(arguments.get<std::string>());
    if (!parsed.has_value() || !parsed->is_object()) return std::nullopt;
    call.arguments = DumpJson(*parsed);
    return call;
  }
  return call;
}

size_t JsonValueBytes(std::string_view text) {
  if (text.empty() || (text[0] != '{' && text[0] != '[')) return 0;
  std::string open;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') open += c == '{' ? '}' : ']';
    if (c != '}' && c != ']') continue;
    if (open.empty() || open.back() != c) return 0;
    open.pop_back();
    if (open.empty()) return i + 1;
  }
  return 0;
}

Json ConvertArgument(const Json& tools, const std::string& tool_name, const std::string& key, const std::string& text) {
  const Json* schema = ParameterSchema(tools, tool_name, key);
  const std::string type = SchemaType(schema);
  if (type == "string") return text;
  const std::string trimmed(StripSpace(text));
  if (trimmed == "null") return nullptr;
  if (type == "boolean" || type == "bool") return ToLower(trimmed) == "true";
  const auto parsed = ParseJson(trimmed);
  if (parsed.has_value()) {
    const bool number = type == "number" || type.starts_with("num") || type.starts_with("float") || type == "integer";
    const double value = parsed->is_number_float() ? parsed->get<double>() : 0.5;
    if (number && value == std::floor(value) && std::abs(value) < 9e15) return static_cast<int64_t>(value);
    // Without a schema, text that happens to be a number or a word of JSON is still meant as what it reads as.
    return *parsed;
  }
  return text;
}

// --- JsonScanner ---------------------------------------------------------------------------------------------------

bool JsonScanner::FeedString(char c) {
  if (static_cast<unsigned char>(c) < 0x20) return false;
  if (escape_ == 1) {
    escape_ = c == 'u' ? 2 : 0;
    return std::string_view("\"\\/bfnrtu").find(c) != std::string_view::npos;
  }
  if (escape_ > 1) {
    escape_ = escape_ == 5 ? 0 : escape_ + 1;
    return std::isxdigit(static_cast<unsigned char>(c)) != 0;
  }
  if (c == '\\') escape_ = 1;
  if (c != '"') return true;
  in_string_ = false;
  expect_ = string_is_key_ ? Expect::kColon : Expect::kCommaOrEnd;
  return true;
}

bool JsonScanner::FeedScalar(char c, bool& consumed) {
  consumed = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '+' || c == '-' || c == '.';
  if (consumed) {
    scalar_ += c;
    return scalar_.size() < 400;
  }
  const auto parsed = ParseJson(scalar_);
  scalar_.clear();
  expect_ = Expect::kCommaOrEnd;
  return parsed.has_value();
}

JsonScanner::State JsonScanner::StartValue(char c) {
  if (c == '{' || c == '[') {
    if (stack_.size() >= 128) return Broken();
    stack_ += c == '{' ? '}' : ']';
    expect_ = c == '{' ? Expect::kKeyOrEnd : Expect::kValueOrEnd;
  } else if (stack_.empty()) {
    return Broken();
  } else if (c == '"') {
    in_string_ = true;
    string_is_key_ = false;
  } else if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-') {
    scalar_ = c;
  } else {
    return Broken();
  }
  return State::kMore;
}

JsonScanner::State JsonScanner::EndContainer(char c) {
  if (stack_.empty() || stack_.back() != c) return Broken();
  stack_.pop_back();
  expect_ = Expect::kCommaOrEnd;
  return state_ = stack_.empty() ? State::kDone : State::kMore;
}

JsonScanner::State JsonScanner::Structure(char c) {
  if (c == ' ' || c == '\t' || c == '\n' || c == '\r') return State::kMore;
  const bool closes = c == '}' || c == ']';
  switch (expect_) {
    case Expect::kValueOrEnd: return closes ? EndContainer(c) : StartValue(c);
    case Expect::kValue: return StartValue(c);
    case Expect::kKeyOrEnd:
      if (closes) return EndContainer(c);
      [[fallthrough]];
    case Expect::kKey:
      if (c != '"') return Broken();
      in_string_ = string_is_key_ = true;
      return State::kMore;
    case Expect::kColon:
      if (c != ':') return Broken();
      expect_ = Expect::kValue;
      return State::kMore;
    case Expect::kCommaOrEnd:
      if (closes) return EndContainer(c);
      if (c != ',' || stack_.empty()) return Broken();
      expect_ = stack_.back() == '}' ? Expect::kKey : Expect::kValue;
      return State::kMore;
  }
  return Broken();
}

JsonScanner::State JsonScanner::Feed(char c) {
  if (state_ != State::kMore) return Broken();
  if (stack_.empty() && c != '{') return Broken();
  if (in_string_) return FeedString(c) ? State::kMore : Broken();
  if (!scalar_.empty()) {
    bool consumed = false;
    if (!FeedScalar(c, consumed)) return Broken();
    if (consumed) return State::kMore;
  }
  return Structure(c);
}

}  // namespace pensieve::chat
