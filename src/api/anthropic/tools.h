// The `tools` array: which tools the prompt shows, which wait until they are referenced, and the documented schemas of
// the tools that Anthropic names by type.
#pragma once

#include <map>
#include <string>

#include "base/json.h"
#include "base/status.h"

namespace pensieve::api::anthropic {

struct ToolSet {
  Json shown;                            // [{type: "function", function: {name, description, parameters}}] or null
  std::vector<std::string> strict;       // names of tools whose arguments must match their schemas
  std::map<std::string, Json> deferred;  // name -> the `function` object of a defer_loading tool
};

// `tools` is the array or null. InvalidArgument naming the entry.
Result<ToolSet> FromTools(const Json* tools);

// "<functions>\n<function>{...}</function>\n</functions>": how a tool is shown in the middle of a conversation.
std::string FunctionsText(const Json& function);

}  // namespace pensieve::api::anthropic
