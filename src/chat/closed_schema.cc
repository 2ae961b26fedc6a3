#include "chat/closed_schema.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

namespace pensieve::chat {
namespace {

// Deeper parts stay as they are.
constexpr int kDepthMax = 64;

bool IsOneOf(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

// Calls visit(part, key) for each schema directly inside of `schema`; other values are data.
template <typename Node, typename Visit>
void ForEachPart(Node& schema, const Visit& visit) {
  if (!schema.is_object()) return;
  for (auto it = schema.begin(); it != schema.end(); ++it) {
    const std::string_view key = it.key();
    if (IsOneOf(key, {"properties", "patternProperties", "$defs", "definitions"}) && it->is_object()) {
      for (auto& part : *it) visit(part, key);
    } else if (IsOneOf(key, {"anyOf", "oneOf", "prefixItems", "items"}) && it->is_array()) {
      for (auto& part : *it) visit(part, key);
    } else if (IsOneOf(key, {"items", "additionalProperties", "contains"}) && it->is_object()) {
      visit(*it, key);
    }
  }
}

// Whether some object's properties are told in several places.
bool HasPartsApart(const Json& schema, int depth) {
  if (!schema.is_object() || depth == kDepthMax) return false;
  for (const char* key : {"allOf", "if", "then", "else", "not", "dependentSchemas", "dependentRequired", "dependencies",
                          "unevaluatedProperties", "$dynamicRef"}) {
    if (schema.contains(key)) return true;
  }
  const bool lists = schema.contains("properties");
  if (lists && (schema.contains("$ref") || schema.contains("anyOf") || schema.contains("oneOf"))) return true;
  bool found = false;
  ForEachPart(schema, [&](const Json& part, std::string_view) { found = found || HasPartsApart(part, depth + 1); });
  return found;
}

// Whether an object with the listed properties alone can be all that is asked for.
bool CanBeClosed(const Json& schema) {
  const auto properties = schema.find("properties");
  if (properties == schema.end() || !properties->is_object() || properties->empty()) return false;
  for (const char* key : {"additionalProperties", "patternProperties", "propertyNames", "minProperties"}) {
    if (schema.contains(key)) return false;
  }
  const auto required = schema.find("required");
  if (required == schema.end()) return true;
  return required->is_array() && std::all_of(required->begin(), required->end(), [&](const Json& name) {
           return name.is_string() && properties->contains(name.get_ref<const std::string&>());
         });
}

void Close(Json& schema, int depth) {
  if (!schema.is_object() || depth == kDepthMax) return;
  ForEachPart(schema, [&](Json& part, std::string_view) { Close(part, depth + 1); });
  if (CanBeClosed(schema)) schema["additionalProperties"] = false;
}

}  // namespace

Json CloseObjects(Json schema) {
  if (!HasPartsApart(schema, 0)) Close(schema, 0);
  return schema;
}

Json CloseParameters(Json tools) {
  for (Json& tool : tools) {
    if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object()) continue;
    Json& function = tool["function"];
    if (function.contains("parameters")) function["parameters"] = CloseObjects(std::move(function["parameters"]));
  }
  return tools;
}

}  // namespace pensieve::chat
