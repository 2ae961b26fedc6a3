#include "api/anthropic/content_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "api/anthropic/tools.h"
#include "api/fields.h"

namespace pensieve::api::anthropic {
namespace {

constexpr size_t kTypeBytesMax = 64;  // of a block's type, in a note

void AppendLine(std::string& text, std::string_view line) {
  if (line.empty()) return;
  if (!text.empty()) text += '\n';
  text += line;
}

std::string Attribute(std::string_view name, const std::string& value) {
  if (value.empty()) return "";
  std::string quoted;
  for (const char c : value) quoted += c == '"' ? "&quot;" : std::string(1, c);
  return fmt::format(" {}=\"{}\"", name, quoted);
}

// A list of nested blocks or a string as plain text; a block that is not known becomes a note.
std::string NestedText(const Json* content, const BlockContext& context);

std::string DocumentText(const Json& block, const BlockContext& context) {
  std::string text;
  if (const Json* source = Find(block, "source")) {
    const std::string type = StringOr(*source, "type");
    if (type == "text") {
      text = StringOr(*source, "data");
    } else if (type == "content") {
      text = NestedText(Find(*source, "content"), context);
    } else {
      text = fmt::format("[a document that cannot be read here: {}]", StringOr(*source, "media_type", type));
    }
  }
  const std::string about = StringOr(block, "context");
  return fmt::format("<document{}{}>\n{}\n</document>", Attribute("title", StringOr(block, "title")),
                     Attribute("context", about), text);
}

std::string SearchResultText(const Json& block, const BlockContext& context) {
  return fmt::format("<search_result{}{}>\n{}\n</search_result>", Attribute("source", StringOr(block, "source")),
                     Attribute("title", StringOr(block, "title")), NestedText(Find(block, "content"), context));
}

// The schema of a deferred tool that nothing has shown yet, else `otherwise`.
std::string TakeDeferred(const std::string& name, std::string otherwise, const BlockContext& context) {
  const auto tool = context.deferred_tools->extract(name);
  return tool.empty() ? otherwise : FunctionsText(tool.mapped());
}

std::string ReferenceText(const Json& block, const BlockContext& context) {
  const std::string name = StringOr(block, "tool_name");
  return TakeDeferred(name, fmt::format("[tool {}]", name), context);
}

// tool_addition and tool_removal in system turns: the tool list in the prompt's head stays as it is, since changing it
// would recompute the whole conversation.
std::string ToolChangeText(const Json& block, bool added, const BlockContext& context) {
  std::string text;
  const auto append = [&](const Json& tool) {
    const std::string name =
        tool.is_string() ? tool.get<std::string>() : StringOr(tool, "name", StringOr(tool, "tool_name"));
    if (!added) return AppendLine(text, fmt::format("The tool {} is no longer available.", name));
    if (const Json* schema = Find(tool, "input_schema")) {
      return AppendLine(
          text,
          FunctionsText({{"name", name}, {"description", StringOr(tool, "description")}, {"parameters", *schema}}));
    }
    AppendLine(text, TakeDeferred(name, fmt::format("The tool {} is now available.", name), context));
  };
  if (const Json* tool = Find(block, "tool")) append(*tool);
  if (const Json* tools = Find(block, "tools"); tools != nullptr && tools->is_array()) {
    for (const Json& tool : *tools) append(tool);
  }
  if (text.empty() && Find(block, "tool_name") != nullptr) append(block);
  return text;
}

// Results of tools that ran at Anthropic's servers, met in histories that began there: their readable fields, one a
// line.
std::string ServerResultText(const Json* content, const BlockContext& context) {
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (content->is_array()) {
    for (const Json& entry : *content) AppendLine(text, ServerResultText(&entry, context));
    return text;
  }
  for (const char* key : {"title", "url", "text", "stdout", "stderr", "error_code", "tool_name"}) {
    AppendLine(text, StringOr(*content, key));
  }
  if (const Json* document = Find(*content, "source")) AppendLine(text, DocumentText({{"source", *document}}, context));
  if (const Json* inner = Find(*content, "content")) AppendLine(text, ServerResultText(inner, context));
  if (const Json* tools = Find(*content, "tool_references")) {
    if (tools->is_array()) {
      for (const Json& tool : *tools) AppendLine(text, ReferenceText(tool, context));
    }
  }
  return text;
}

// Blocks that are no text: they go into fields of their own, or are nobody's to read.
bool HasNoText(std::string_view type) {
  constexpr std::array<std::string_view, 5> kTypes = {"thinking", "redacted_thinking", "tool_use", "tool_result", ""};
  return std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
}

// Blocks that are shown as text wherever they stand; of a type that is not known, a note.
std::string BlockText(const Json& block, const std::string& type, const BlockContext& context) {
  if (type == "text") return StringOr(block, "text");
  if (type == "image") return "[an image that cannot be seen here]";
  if (type == "document") return DocumentText(block, context);
  if (type == "search_result") return SearchResultText(block, context);
  if (type == "tool_reference") return ReferenceText(block, context);
  if (type == "tool_addition") return ToolChangeText(block, /*added=*/true, context);
  if (type == "tool_removal") return ToolChangeText(block, /*added=*/false, context);
  if (type == "compaction") return NestedText(Find(block, "content"), context);
  if (type == "server_tool_use" || type == "mcp_tool_use") {
    const Json* input = Find(block, "input");
    return fmt::format("[{} {}]", StringOr(block, "name"), input == nullptr ? "{}" : DumpJson(*input));
  }
  if (type.ends_with("_tool_result")) return ServerResultText(Find(block, "content"), context);
  return HasNoText(type) ? "" : fmt::format("[a {} block that cannot be read here]", type.substr(0, kTypeBytesMax));
}

std::string NestedText(const Json* content, const BlockContext& context) {
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (content->is_array()) {
    for (const Json& block : *content) AppendLine(text, BlockText(block, StringOr(block, "type"), context));
  }
  return text;
}

Result<ToolAnswer> FromToolResult(const Json& block, const std::string& path, const BlockContext& context) {
  FieldReader fields(block, path);
  ToolAnswer answer;
  answer.call_id = fields.RequiredString("tool_use_id");
  const bool is_error = fields.Bool("is_error").value_or(false);
  const Json* content = fields.Any("content");
  if (content != nullptr && !content->is_string() && !content->is_array()) {
    fields.Fail("content", "must be a string or an array of content blocks");
  }
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  answer.text = NestedText(content, context);
  // Templates have no place for the flag; most clients say it in the text themselves.
  if (is_error) {
    std::string start = answer.text.substr(0, 20);
    std::transform(start.begin(), start.end(), start.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (start.find("error") == std::string::npos) answer.text = "Error: " + answer.text;
  }
  return answer;
}

Result<Json> FromToolUse(const Json& block, const std::string& path) {
  FieldReader fields(block, path);
  const std::string id = fields.RequiredString("id");
  const std::string name = fields.RequiredString("name");
  const Json* input = fields.Any("input");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  Json arguments = input == nullptr ? Json::object() : *input;
  return Json{{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", std::move(arguments)}}}};
}

Status AppendBlock(const Json& block, const std::string& path, const BlockContext& context, MessageParts& parts) {
  FieldReader fields(block, path);
  const std::string type = fields.RequiredString("type");
  // Clients send back an answer's empty block as they got it; anywhere else it is a mistake.
  if (type == "text" && fields.RequiredString("text").empty() && context.role != Role::kAssistant) {
    fields.Fail("text", "text content blocks must be non-empty");
  }
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (type == "thinking") {
    AppendLine(parts.reasoning, StringOr(block, "thinking"));
  } else if (type == "tool_use") {
    PENSIEVE_TRY(Json call, FromToolUse(block, path));
    parts.tool_calls.push_back(std::move(call));
  } else if (type == "tool_result") {
    PENSIEVE_TRY(ToolAnswer answer, FromToolResult(block, path, context));
    parts.tool_answers.push_back(std::move(answer));
  } else if (context.role == Role::kAssistant && type == "text" && parts.ends_in_text_block) {
    parts.text += StringOr(block, "text");  // pieces of one answer: nothing between them
  } else {
    parts.ends_in_text_block = type == "text";
    AppendLine(parts.text, BlockText(block, type, context));
  }
  return OkStatus();
}

}  // namespace

Result<MessageParts> FromContent(const Json* content, const std::string& path, const BlockContext& context) {
  MessageParts parts;
  if (content == nullptr) return parts;
  if (content->is_string()) {
    parts.text = content->get<std::string>();
    return parts;
  }
  if (!content->is_array()) return InvalidArgument(path + ": must be a string or an array of content blocks");
  for (size_t i = 0; i < content->size(); ++i) {
    PENSIEVE_RETURN_IF_ERROR(AppendBlock((*content)[i], JoinPath(path, i), context, parts));
  }
  return parts;
}

}  // namespace pensieve::api::anthropic
