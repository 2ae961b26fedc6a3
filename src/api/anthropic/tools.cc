#include "api/anthropic/tools.h"

#include <fmt/format.h>

#include <string_view>
#include <vector>

#include "api/fields.h"

namespace pensieve::api::anthropic {
namespace {

constexpr size_t kToolsMax = 4096;

struct Property {
  const char* name;
  const char* type;
  const char* description;
  std::vector<const char*> choices = {};
};

Json Schema(const std::vector<Property>& properties, const std::vector<const char*>& required) {
  Json fields = Json::object();
  for (const Property& property : properties) {
    Json field = {{"type", property.type}};
    if (std::string_view(property.type) == "array") field["items"] = {{"type", "integer"}};
    field["description"] = property.description;
    if (!property.choices.empty()) field["enum"] = property.choices;
    fields[property.name] = std::move(field);
  }
  return {{"type", "object"}, {"properties", std::move(fields)}, {"required", required}};
}

Json BashSchema() {
  return Schema({{"command", "string", "The shell command to run."},
                 {"restart", "boolean", "True to restart the shell instead of running a command."}},
                {});
}

Json TextEditorSchema(bool has_undo) {
  std::vector<const char*> commands = {"view", "create", "str_replace", "insert"};
  if (has_undo) commands.push_back("undo_edit");
  return Schema({{"command", "string", "What to do.", commands},
                 {"path", "string", "Absolute path of the file or directory."},
                 {"file_text", "string", "For create: the text of the new file."},
                 {"old_str", "string", "For str_replace: the text to replace; it must occur exactly once."},
                 {"new_str", "string", "For str_replace: the new text. For insert: the text to insert."},
                 {"insert_line", "integer", "For insert: the line after which to insert, 0 for the start."},
                 {"insert_text", "string", "For insert: the text to insert."},
                 {"view_range", "array", "For view: first and last line, from 1; -1 means the end."}},
                {"command", "path"});
}

Json MemorySchema() {
  return Schema({{"command", "string", "What to do.", {"view", "create", "str_replace", "insert", "delete", "rename"}},
                 {"path", "string", "Path under /memories."},
                 {"file_text", "string", "For create: the text of the file."},
                 {"old_str", "string", "For str_replace: the text to replace."},
                 {"new_str", "string", "For str_replace: the new text."},
                 {"insert_line", "integer", "For insert: the line after which to insert."},
                 {"insert_text", "string", "For insert: the text to insert."},
                 {"old_path", "string", "For rename: the present path."},
                 {"new_path", "string", "For rename: the new path."},
                 {"view_range", "array", "For view: first and last line."}},
                {"command"});
}

Json ComputerSchema() {
  return Schema({{"action",
                  "string",
                  "What to do.",
                  {"key", "hold_key", "type", "cursor_position", "mouse_move", "left_mouse_down", "left_mouse_up",
                   "left_click", "left_click_drag", "right_click", "middle_click", "double_click", "triple_click",
                   "scroll", "wait", "screenshot", "zoom"}},
                 {"coordinate", "array", "Pixel position [x, y]."},
                 {"start_coordinate", "array", "For left_click_drag: where the drag begins, [x, y]."},
                 {"text", "string", "For type and key: the text or key names."},
                 {"scroll_direction", "string", "For scroll.", {"up", "down", "left", "right"}},
                 {"scroll_amount", "integer", "For scroll: number of clicks."},
                 {"duration", "number", "For wait and hold_key: seconds."},
                 {"region", "array", "For zoom: [x0, y0, x1, y1]."}},
                {"action"});
}

struct TypedTool {
  Json schema;
  const char* name;
  const char* description;
};

// The tools that run at the client and are named by type. Nothing for all other types.
std::optional<TypedTool> ClientTool(std::string_view type) {
  if (type.starts_with("bash_")) return TypedTool{BashSchema(), "bash", "Runs commands in a shell that stays open."};
  if (type.starts_with("text_editor_")) {
    const bool has_undo = type == "text_editor_20241022" || type == "text_editor_20250124";
    return TypedTool{TextEditorSchema(has_undo), "str_replace_based_edit_tool", "Views, creates and edits text files."};
  }
  if (type.starts_with("memory_")) return TypedTool{MemorySchema(), "memory", "Keeps notes as files under /memories."};
  if (type.starts_with("computer_2")) {
    return TypedTool{ComputerSchema(), "computer", "Controls mouse, keyboard and screen of a computer."};
  }
  return std::nullopt;
}

// Computer tools carry their screen in the definition; the model has to know it.
std::string TypedDescription(const TypedTool& typed, const Json& tool) {
  const Json* width = Find(tool, "display_width_px");
  const Json* height = Find(tool, "display_height_px");
  if (width == nullptr || height == nullptr || !width->is_number() || !height->is_number()) return typed.description;
  return fmt::format("{} The screen has {}x{} pixels.", typed.description, width->dump(), height->dump());
}

// The `function` object, or null for a tool that runs at the server and has no place here.
Result<Json> ToFunction(const Json& tool, const std::string& path) {
  FieldReader fields(tool, path);
  const std::string type = fields.String("type").value_or("custom");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (auto typed = ClientTool(type)) {
    const std::string name = fields.String("name").value_or(typed->name);
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    return Json{
        {"name", name}, {"description", TypedDescription(*typed, tool)}, {"parameters", std::move(typed->schema)}};
  }
  // A type nobody here knows is a tool of Anthropic's servers, unless it brings a schema of its own.
  if (type != "custom" && (fields.Any("input_schema") == nullptr || fields.Any("name") == nullptr))
    return Json(nullptr);
  const std::string name = fields.RequiredString("name");
  if (name.empty() || name.size() > 256) fields.Fail("name", "must have 1 to 256 characters");
  const std::string description = fields.String("description").value_or("");
  fields.Require("input_schema");
  const Json* schema = fields.Object("input_schema");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return Json{{"name", name}, {"description", description}, {"parameters", *schema}};
}

bool IsTrue(const Json* value) { return value != nullptr && value->is_boolean() && value->get<bool>(); }

}  // namespace

Result<ToolSet> FromTools(const Json* tools) {
  ToolSet set;
  if (tools == nullptr) return set;
  if (!tools->is_array()) return InvalidArgument("tools: must be an array");
  if (tools->size() > kToolsMax) return InvalidArgument(fmt::format("tools: must have at most {} entries", kToolsMax));
  // A tool search that would run at Anthropic's servers cannot load anything here, so nothing waits for it.
  bool searched_by_server = false;
  for (const Json& tool : *tools) searched_by_server |= StringOr(tool, "type").starts_with("tool_search_tool_");
  Json shown = Json::array();
  for (size_t i = 0; i < tools->size(); ++i) {
    PENSIEVE_TRY(Json function, ToFunction((*tools)[i], JoinPath("tools", i)));
    if (function.is_null()) continue;
    if (IsTrue(Find((*tools)[i], "strict"))) set.strict.push_back(function["name"].get<std::string>());
    if (IsTrue(Find((*tools)[i], "defer_loading")) && !searched_by_server) {
      set.deferred.emplace(function["name"].get<std::string>(), std::move(function));
    } else {
      shown.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
  }
  if (!shown.empty()) set.shown = std::move(shown);
  return set;
}

std::string FunctionsText(const Json& function) {
  const Json shown = {{"description", StringOr(function, "description")},
                      {"name", StringOr(function, "name")},
                      {"parameters", function.value("parameters", Json::object())}};
  return fmt::format("<functions>\n<function>{}</function>\n</functions>", DumpJson(shown));
}

}  // namespace pensieve::api::anthropic
