#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/mapped_file.h"
#include "config/keys.h"
#include "config/parse_value.h"
#include "config/server_config.h"
#include "config/toml_file.h"

extern "C" char** environ;

namespace pensieve::config {
namespace {

constexpr size_t kFileBytesMax = 1 << 20;
constexpr const char* kDefaultFile = "config.toml";

const Key* FindKey(const std::string& name) {
  for (const Key& key : AllKeys())
    if (key.name == name) return &key;
  return nullptr;
}

const Key* FindFileKey(const std::string& name) {
  for (const Key& key : AllKeys()) {
    if (key.name == name) return &key;
    for (const std::string& alias : key.file_aliases)
      if (alias == name) return &key;
  }
  return nullptr;
}

// "server.http_port = 99999 (flag --port): must be ..."
Status Describe(const Status& error, const Key& key, const std::string& value, const std::string& source) {
  const std::string shown = key.secret ? "***" : value;
  return InvalidArgument(fmt::format("{} = {} ({}): {}", key.name, shown, source, error.message()));
}

// "~" and "~/x" with the home directory put in.
std::string ExpandHome(const std::string& path, const std::string& home) {
  return !home.empty() && (path == "~" || path.rfind("~/", 0) == 0) ? home + path.substr(1) : path;
}

std::string DefaultCacheDirectory(const std::string& home) {
  return home.empty() ? ".cache/pensieve" : home + "/.cache/pensieve";
}

bool Exists(const std::string& path) {
  std::error_code error;
  return !path.empty() && std::filesystem::exists(path, error);
}

std::string WithoutBlanks(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// Items of a list of paths. File names may hold commas and brackets: from each place on, the longest text up to a comma
// that exists is one item; what does not exist ends at the first comma.
Result<std::vector<std::string>> SplitPaths(const std::string& text, const std::string& home) {
  constexpr size_t kCommasMax = 1024;
  const auto exists = [&](const std::string& path) { return Exists(ExpandHome(path, home)); };
  const std::string whole = WithoutBlanks(text);
  if (whole.starts_with('[') && whole.ends_with(']') && !exists(whole)) return ParseList(whole);
  if (static_cast<size_t>(std::count(text.begin(), text.end(), ',')) > kCommasMax) return ParseList(text);
  std::vector<std::string> items;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find(',', begin), text.size());
    for (size_t comma = end; comma < text.size();) {
      comma = std::min(text.find(',', comma + 1), text.size());
      if (exists(WithoutBlanks(text.substr(begin, comma - begin)))) end = comma;
    }
    std::string item = WithoutBlanks(text.substr(begin, end - begin));
    if (!item.empty()) items.push_back(std::move(item));
    begin = end + 1;
  }
  return items;
}

// "server" of "server.http_port".
std::set<std::string> TablesOfOurs() {
  std::set<std::string> tables;
  for (const Key& key : AllKeys()) tables.insert(key.name.substr(0, key.name.find('.')));
  return tables;
}

// For a file that is no valid TOML: whether a line begins like a table of ours.
bool NamesOurTable(const std::string& text) {
  const auto tables = TablesOfOurs();
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const size_t open = text.find_first_not_of(" \t", begin);
    if (open < end && text[open] == '[') {
      const size_t close = std::min(text.find_first_of("].\r\n", open), end);
      if (tables.contains(text.substr(open + 1, close - open - 1))) return true;
    }
    begin = end + 1;
  }
  return false;
}

// Merges the sources, lowest first, and remembers who set what.
class Loader {
 public:
  explicit Loader(const ConfigSources& sources) : sources_(sources) {}

  Result<LoadedConfig> Load() {
    SetCacheDefault();
    PENSIEVE_RETURN_IF_ERROR(ApplyFile());
    PENSIEVE_RETURN_IF_ERROR(ApplyEnvironment());
    PENSIEVE_RETURN_IF_ERROR(ApplyFlags());
    ExpandPaths();
    PENSIEVE_RETURN_IF_ERROR(Validate());
    for (const Key& key : AllKeys())
      loaded_.settings.push_back({.key = key.name, .value = FormatValue(key, config()), .source = SourceOf(key.name)});
    return std::move(loaded_);
  }

 private:
  ServerConfig& config() { return loaded_.config; }

  std::string SourceOf(const std::string& name) const {
    const auto found = source_of_.find(name);
    return found == source_of_.end() ? "default" : found->second;
  }

  std::string Environment(const std::string& name) const {
    const auto found = sources_.environment.find(name);
    return found == sources_.environment.end() ? "" : found->second;
  }

  void Warn(std::string sentence) { loaded_.warnings.push_back(std::move(sentence)); }
  void Note(std::string sentence) { loaded_.notes.push_back(std::move(sentence)); }

  void SetCacheDefault() {
    const std::string home = Environment("HOME");
    if (home.empty()) Warn("HOME is not set, so models are kept in .cache/pensieve of the working directory");
    config().cache_dir = DefaultCacheDirectory(home);
  }

  Status ApplyFile() {
    if (sources_.file.empty()) return ApplyDefaultFile();
    PENSIEVE_TRY(const std::string text, ReadFile(sources_.file, kFileBytesMax));
    PENSIEVE_TRY(const auto values, ParseToml(text, sources_.file));
    return ApplyFileValues(values, sources_.file);
  }

  // ./config.toml may belong to another program. Only a file that shows itself to be ours can be wrong.
  Status ApplyDefaultFile() {
    if (access(kDefaultFile, F_OK) != 0) return OkStatus();
    const auto ignore = [this](const std::string& why) {
      Note(fmt::format("./{} is ignored: {}; --config names a file of settings", kDefaultFile, why));
      return OkStatus();
    };
    const auto text = ReadFile(kDefaultFile, kFileBytesMax);
    if (!text.has_value()) return ignore(text.error().message());
    const auto values = ParseToml(*text, kDefaultFile);
    const std::string no_table = fmt::format("it has none of the tables {}", fmt::join(TablesOfOurs(), ", "));
    if (!values.has_value()) return NamesOurTable(*text) ? values.error() : ignore(no_table);
    const auto tables = TablesOfOurs();
    const bool ours = std::any_of(values->begin(), values->end(), [&](const FileValue& value) {
      const size_t dot = value.key.find('.');
      return dot != std::string::npos && tables.contains(value.key.substr(0, dot));
    });
    if (!ours) return ignore(no_table);
    Note(fmt::format("settings are read from ./{}", kDefaultFile));
    return ApplyFileValues(*values, kDefaultFile);
  }

  Status ApplyFileValues(const std::vector<FileValue>& values, const std::string& path) {
    std::map<std::string, std::string> seen;  // key -> spelling, to find two spellings of one key
    for (const FileValue& value : values) PENSIEVE_RETURN_IF_ERROR(ApplyFileValue(value, path, seen));
    return OkStatus();
  }

  Status ApplyFileValue(const FileValue& value, const std::string& path, std::map<std::string, std::string>& seen) {
    const Key* key = FindFileKey(value.key);
    if (key == nullptr) {
      if (!IsToleratedFileKey(value.key))
        Warn(fmt::format("{}: line {}: unknown key {} is ignored", path, value.line, value.key));
      return OkStatus();
    }
    if (const auto [other, fresh] = seen.emplace(key->name, value.key); !fresh)
      return InvalidArgument(fmt::format("{}: line {}: {} and {} are the same setting, keep one", path, value.line,
                                         other->second, value.key));
    Status status = StoreFileValue(*key, value);
    if (!status.ok()) {
      const std::string shown = value.is_list ? fmt::format("[{}]", fmt::join(value.items, ", ")) : value.text;
      return Describe(status, *key, shown, fmt::format("{} line {}", path, value.line));
    }
    source_of_[key->name] = path;
    return OkStatus();
  }

  Status StoreFileValue(const Key& key, const FileValue& value) {
    if (key.type == ValueType::kList) {
      // A single string is a list of one, commas and all.
      return StoreList(key, value.is_list ? value.items : std::vector<std::string>{value.text}, config());
    }
    if (value.is_list) return InvalidArgument("must not be a list");
    const bool wants_string = key.type == ValueType::kString || key.type == ValueType::kChoice;
    if (wants_string && !value.is_string) return InvalidArgument("must be a string in quotes");
    return StoreValue(key, value.text, config());
  }

  Status ApplyEnvironment() {
    std::set<std::string> known;
    for (const Key& key : AllKeys()) {
      known.insert(key.environment.begin(), key.environment.end());
      PENSIEVE_RETURN_IF_ERROR(ApplyVariablesOf(key));
    }
    for (const auto& [name, value] : sources_.environment)
      if (name.rfind("PENSIEVE_", 0) == 0 && known.count(name) == 0 && !IsForeignPensieveVariable(name))
        Warn(fmt::format("environment {} names no setting and is ignored", name));
    return OkStatus();
  }

  // The first variable that is set and readable wins. An empty one counts as unset, as in most shells' use, but not
  // where a secret was meant.
  Status ApplyVariablesOf(const Key& key) {
    for (const std::string& name : key.environment) {
      const std::string text = Environment(name);
      if (text.empty() && !(key.secret && sources_.environment.contains(name))) continue;
      const Status status = StoreVariable(key, name, text);
      if (status.ok()) {
        source_of_[key.name] = "environment " + name;
        return OkStatus();
      }
      const Status described = Describe(status, key, text, "environment " + name);
      if (name.rfind("PENSIEVE_", 0) == 0) return described;
      Warn(described.message() + "; it is ignored");
    }
    return OkStatus();
  }

  Status StoreVariable(const Key& key, const std::string& name, const std::string& text) {
    // One path, which may hold a comma.
    if (name == "MODEL_PATH") return StoreList(key, {text}, config());
    return StoreTexts(key, {text});
  }

  // What flags and variables say: lists item by item, everything else by the last text.
  Status StoreTexts(const Key& key, const std::vector<std::string>& texts) {
    if (key.type != ValueType::kList) return StoreValue(key, texts.back(), config());
    std::vector<std::string> all;
    for (const std::string& text : texts) {
      std::vector<std::string> items;
      if (key.is_path) {
        PENSIEVE_TRY(items, SplitPaths(text, Environment("HOME")));
      } else {
        ServerConfig one;
        PENSIEVE_RETURN_IF_ERROR(StoreValue(key, text, one));
        items = one.*std::get<std::vector<std::string> ServerConfig::*>(key.field);
      }
      all.insert(all.end(), items.begin(), items.end());
    }
    return StoreList(key, std::move(all), config());
  }

  Status ApplyFlags() {
    for (const auto& [name, flag] : sources_.flags) {
      const Key* key = FindKey(name);
      if (key == nullptr) return InvalidArgument(fmt::format("flag {}: there is no setting {}", flag.spelling, name));
      const std::string source = "flag " + flag.spelling;
      if (flag.values.empty()) continue;
      if (Status status = StoreTexts(*key, flag.values); !status.ok())
        return Describe(status, *key, fmt::format("{}", fmt::join(flag.values, ",")), source);
      source_of_[key->name] = source;
    }
    return OkStatus();
  }

  void ExpandPaths() {
    const std::string home = Environment("HOME");
    const auto expand = [&](std::string& path) { path = ExpandHome(path, home); };
    for (const Key& key : AllKeys()) {
      if (!key.is_path) continue;
      if (const auto* text = std::get_if<std::string ServerConfig::*>(&key.field)) expand(config().**text);
      if (const auto* list = std::get_if<std::vector<std::string> ServerConfig::*>(&key.field))
        for (std::string& path : config().**list) expand(path);
    }
  }

  // "server.host = x (default)", for errors that involve two settings.
  std::string Cite(const std::string& name) {
    const Key* key = FindKey(name);
    return fmt::format("{} = {} ({})", name, FormatValue(*key, config()), SourceOf(name));
  }

  Status Validate() {
    const ServerConfig& c = config();
    if (c.host.empty()) return InvalidArgument(Cite("server.host") + ": must not be empty");
    if (c.cache_dir.empty()) return InvalidArgument(Cite("model.cache_dir") + ": must not be empty");
    if (c.http_port > 0 && c.http_port == c.grpc_port)
      return InvalidArgument(fmt::format("{} and {} must differ", Cite("server.http_port"), Cite("server.grpc_port")));
    if (c.memory_emergency_gb > c.memory_critical_gb)
      return InvalidArgument(
          fmt::format("{} must not be above {}", Cite("memory.emergency_gb"), Cite("memory.critical_gb")));
    for (const std::string& origin : c.cors_origins)
      if (origin != "*" && (origin.find("://") == std::string::npos || origin.back() == '/'))
        return InvalidArgument(
            fmt::format("{}: \"{}\" is no origin such as https://app.example", Cite("server.cors_origins"), origin));
    if (!IsLoopbackHost(c.host) && c.api_keys.empty())
      Warn(fmt::format(
          "{} is reachable from other machines and server.api_keys is empty: anyone there can use the server",
          Cite("server.host")));
    return OkStatus();
  }

  const ConfigSources& sources_;
  LoadedConfig loaded_;
  std::map<std::string, std::string> source_of_;  // key -> source, where not the default
};

}  // namespace

std::string CacheDirectory(const std::map<std::string, std::string>& environment) {
  const auto variable = [&](const std::string& name) {
    const auto found = environment.find(name);
    return found == environment.end() ? "" : found->second;
  };
  const std::string home = variable("HOME");
  for (const std::string& name : FindKey("model.cache_dir")->environment) {
    if (const std::string path = variable(name); !path.empty()) return ExpandHome(path, home);
  }
  return DefaultCacheDirectory(home);
}

bool IsLoopbackHost(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.rfind("127.", 0) == 0;
}

std::map<std::string, std::string> ProcessEnvironment() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos) variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

std::string ForcedIsa(const std::map<std::string, std::string>& environment) {
  const auto found = environment.find(kIsaVariable);
  return found == environment.end() ? "" : found->second;
}

Result<LoadedConfig> LoadConfig(const ConfigSources& sources) { return Loader(sources).Load(); }

}  // namespace pensieve::config
