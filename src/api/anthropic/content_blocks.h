// Content blocks of one message, sorted by what a chat template can show.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace pensieve::api::anthropic {

enum class Role : uint8_t { kUser, kAssistant, kSystem };

struct ToolAnswer {
  std::string call_id;
  std::string text;
};

struct MessageParts {
  std::string text;  // of all blocks that are text in some way, in order
  std::string reasoning;
  Json tool_calls = Json::array();  // [{id, type: "function", function: {name, arguments: object}}]
  std::vector<ToolAnswer> tool_answers;
  bool ends_in_text_block = false;  // `text` may be continued without a line break
};

struct BlockContext {
  Role role = Role::kUser;
  // Never null; outlives the call. A tool is taken out when it is written: only its first reference shows the schema,
  // so that many references to a large one cannot multiply it.
  std::map<std::string, Json>* deferred_tools = nullptr;
};

// `content` is what stands at `path`: a string, an array of blocks, or null for nothing. An unknown block becomes a note,
// so that the model knows that something was there. InvalidArgument for other types, entries that are no objects, blocks
// without what makes them meaningful, and empty text anywhere but in an answer.
Result<MessageParts> FromContent(const Json* content, const std::string& path, const BlockContext& context);

}  // namespace pensieve::api::anthropic
