#include "hub/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "base/mapped_file.h"
#include "hub/model_name.h"

namespace pensieve::hub {
namespace {

constexpr size_t kTokenBytesMax = 4096;

using Environment = std::map<std::string, std::string>;

// The first of the variables that is set and not empty.
std::string FirstOf(const Environment& environment, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto found = environment.find(name);
    if (found != environment.end() && !found->second.empty()) return found->second;
  }
  return "";
}

bool IsTrue(const std::string& text) {
  return text == "1" || SameIgnoringCase(text, "true") || SameIgnoringCase(text, "yes") || SameIgnoringCase(text, "on");
}

std::string WithoutSlash(std::string url) {
  while (url.ends_with("/")) url.pop_back();
  return url;
}

std::string WithoutBlanks(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  const size_t end = text.find_last_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

// "~" is the home directory, as in Hugging Face's tools.
std::string Expand(const std::string& path, const std::string& home) {
  return path == "~" || path.starts_with("~/") ? home + path.substr(1) : path;
}

Result<std::string> ReadToken(const Environment& environment, const std::string& hf_home, const std::string& home) {
  std::string token = WithoutBlanks(FirstOf(environment, {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}));
  std::string source = "HF_TOKEN";
  if (token.empty() && !IsTrue(FirstOf(environment, {"HF_HUB_DISABLE_IMPLICIT_TOKEN"}))) {
    const std::string given = FirstOf(environment, {"HF_TOKEN_PATH"});
    source = given.empty() ? hf_home + "/token" : Expand(given, home);
    const auto text = ReadFile(source, kTokenBytesMax);
    if (text.has_value()) token = WithoutBlanks(*text);
  }
  const bool fits = std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!fits) return InvalidArgument(fmt::format("{}: the token holds blanks or characters outside ASCII", source));
  return token;
}

}  // namespace

Result<HubSettings> ReadHubSettings(const Environment& environment, const std::string& cache_dir) {
  HubSettings settings;
  settings.cache_dir = cache_dir;
  const std::string home = FirstOf(environment, {"HOME"});
  const std::string xdg = FirstOf(environment, {"XDG_CACHE_HOME"});
  const std::string caches = xdg.empty() ? home + "/.cache" : Expand(xdg, home);
  std::string hf_home = Expand(FirstOf(environment, {"HF_HOME"}), home);
  if (hf_home.empty()) hf_home = caches + "/huggingface";
  settings.hf_cache = Expand(FirstOf(environment, {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}), home);
  if (settings.hf_cache.empty()) settings.hf_cache = hf_home + "/hub";
  const std::string akidb = Expand(FirstOf(environment, {"AKIDB_CACHE_DIR"}), home);
  settings.akidb_models = (akidb.empty() ? home + "/.cache/akidb" : akidb) + "/models";
  if (const std::string url = WithoutSlash(FirstOf(environment, {"HF_ENDPOINT"})); !url.empty()) {
    if (!url.starts_with("http://") && !url.starts_with("https://")) {
      return InvalidArgument(
          fmt::format("HF_ENDPOINT: \"{}\" starts with neither https:// nor http://", PublicUrl(url)));
    }
    auto parts = SplitCredentials(url);
    settings.endpoint = std::move(parts.url);
    settings.endpoint_credentials = std::move(parts.credentials);
  }
  PENSIEVE_TRY(settings.token, ReadToken(environment, hf_home, home));
  settings.offline =
      IsTrue(FirstOf(environment, {"HF_HUB_OFFLINE"})) || IsTrue(FirstOf(environment, {"TRANSFORMERS_OFFLINE"}));
  if (const std::string url = WithoutSlash(FirstOf(environment, {"PIP_INDEX_URL"})); !url.empty()) {
    auto parts = SplitCredentials(url);
    settings.pypi_index = std::move(parts.url);
    settings.pypi_credentials = std::move(parts.credentials);
  }
  return settings;
}

}  // namespace pensieve::hub
