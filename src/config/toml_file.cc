#include "config/toml_file.h"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace pensieve::config {
namespace {

// Nesting that any real configuration stays far below; toml++ itself bounds arrays and inline tables.
constexpr int kDepthMax = 16;

bool ReadScalar(const toml::node& node, std::string& text) {
  if (const auto* string = node.as_string()) {
    text = string->get();
  } else if (const auto* integer = node.as_integer()) {
    text = fmt::format("{}", integer->get());
  } else if (const auto* number = node.as_floating_point()) {
    text = fmt::format("{}", number->get());
  } else if (const auto* boolean = node.as_boolean()) {
    text = boolean->get() ? "true" : "false";
  } else {
    return false;
  }
  return true;
}

Status ReadList(const toml::array& array, FileValue& value) {
  value.is_list = true;
  for (const toml::node& item : array) {
    std::string text;
    if (!ReadScalar(item, text))
      return InvalidArgument(fmt::format("line {}: {} holds an item that is no plain value", value.line, value.key));
    value.items.push_back(std::move(text));
  }
  return OkStatus();
}

Status Collect(const toml::table& table, const std::string& prefix, int depth, std::vector<FileValue>& values) {
  if (depth > kDepthMax) return InvalidArgument(fmt::format("{} is nested too deeply", prefix));
  for (const auto& [name, node] : table) {
    const std::string key = prefix.empty() ? std::string(name.str()) : fmt::format("{}.{}", prefix, name.str());
    if (const auto* inner = node.as_table()) {
      PENSIEVE_RETURN_IF_ERROR(Collect(*inner, key, depth + 1, values));
      continue;
    }
    FileValue value{
        .key = key, .items = {}, .text = {}, .is_string = node.is_string(), .line = node.source().begin.line};
    if (const auto* array = node.as_array()) {
      PENSIEVE_RETURN_IF_ERROR(ReadList(*array, value));
    } else if (!ReadScalar(node, value.text)) {
      return InvalidArgument(fmt::format("line {}: {} is a date, which no setting is", value.line, key));
    }
    values.push_back(std::move(value));
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<FileValue>> ParseToml(std::string_view text, const std::string& path) {
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const auto& error = parsed.error();
    return InvalidArgument(fmt::format("{}: line {} column {}: {}", path, error.source().begin.line,
                                       error.source().begin.column, error.description()));
  }
  std::vector<FileValue> values;
  if (Status status = Collect(parsed.table(), "", 0, values); !status.ok()) return status.WithContext(path);
  return values;
}

Result<std::vector<std::string>> ParseTomlArray(std::string_view text) {
  const toml::parse_result parsed = toml::parse(fmt::format("list = {}", text));
  const toml::array* array = parsed ? parsed.table()["list"].as_array() : nullptr;
  if (array == nullptr || parsed.table().size() != 1)
    return InvalidArgument("must be a list such as a,b or [\"a\", \"b\"]");
  FileValue value{.key = "the list", .items = {}, .text = {}, .line = 1};
  PENSIEVE_RETURN_IF_ERROR(ReadList(*array, value));
  return std::move(value.items);
}

}  // namespace pensieve::config
