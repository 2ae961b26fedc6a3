#include "hub/hugging_face.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "base/json.h"
#include "formats/printable.h"
#include "hub/http_get.h"

namespace pensieve::hub {
namespace {

constexpr int64_t kListingBytesMax = int64_t{32} << 20;
constexpr size_t kFilesMax = 50'000;
constexpr size_t kSelectedMax = 2'000;
constexpr int64_t kFileBytesMax = int64_t{1} << 44;  // 16 TiB: sums of all selected files stay far from overflow

bool IsHex(std::string_view text, size_t length) {
  return text.size() == length && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isdigit(c) != 0 || (c >= 'a' && c <= 'f');
         });
}

// Everything but letters, digits and "-._~" as %XX; a slash too unless it is `kept`.
std::string UrlEscape(std::string_view text, bool keep_slash) {
  std::string out;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    const bool plain = std::isalnum(u) != 0 || c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slash);
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", u);
  }
  return out;
}

// A string field of an object, or "" when it is not there or something else.
std::string TextOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

int64_t SizeOf(const Json& object) {
  const auto found = object.find("size");
  if (found == object.end() || !found->is_number_unsigned()) return -1;
  const auto bytes = found->get<uint64_t>();
  return bytes <= static_cast<uint64_t>(INT64_MAX) ? static_cast<int64_t>(bytes) : INT64_MAX;
}

Result<RepoFile> ParseFile(const Json& item, const std::string& repo_id) {
  if (!item.is_object() || !item.contains("rfilename") || !item["rfilename"].is_string()) {
    return DataLoss(fmt::format("{}: the hub's answer: \"siblings\": an entry without \"rfilename\"", repo_id));
  }
  RepoFile file;
  file.name = item["rfilename"].get<std::string>();
  if (const Status safe = CheckRelativePath(file.name); !safe.ok()) {
    return DataLoss(fmt::format("{} is refused: {}", repo_id, safe.message()));
  }
  file.bytes = SizeOf(item);
  const auto lfs = item.find("lfs");
  if (lfs != item.end() && lfs->is_object()) {
    if (file.bytes < 0) file.bytes = SizeOf(*lfs);
    file.sha256 = TextOf(*lfs, "sha256");
  } else {
    file.git_sha1 = TextOf(item, "blobId");
  }
  if ((!file.sha256.empty() && !IsHex(file.sha256, 64)) || (!file.git_sha1.empty() && !IsHex(file.git_sha1, 40))) {
    return DataLoss(fmt::format("{}: the hub's answer: {}: no checksum", repo_id, formats::Printable(file.name)));
  }
  if (file.bytes > kFileBytesMax) {
    return DataLoss(fmt::format("{}: the hub's answer: {}: {} bytes are more than any model has", repo_id,
                                formats::Printable(file.name), file.bytes));
  }
  return file;
}

// Words of the server's refusal that help.
Status Explain(const Status& status, const HttpReply& reply, const HubSettings& settings, const ModelName& name) {
  const std::string repo = name.repo_id();
  const std::string token_page = fmt::format("{}/settings/tokens", settings.endpoint);
  if (reply.status == 401 && !settings.token.empty() && reply.error_code.empty()) {
    return Unauthenticated(
        fmt::format("{} refuses the token in HF_TOKEN; make a new one at {}", settings.endpoint, token_page));
  }
  if (reply.error_code == "GatedRepo" || reply.status == 403) {
    return Status(reply.status == 401 ? StatusCode::kUnauthenticated : StatusCode::kPermissionDenied,
                  fmt::format("{} is gated: accept its terms at {}/{}, then {}", repo, settings.endpoint, repo,
                              settings.token.empty()
                                  ? fmt::format("set HF_TOKEN to a token of that account (from {})", token_page)
                                  : "try again with HF_TOKEN set to a token of the account that did"));
  }
  if (reply.error_code == "RevisionNotFound" && reply.status == 404) {
    return NotFound(fmt::format("{} has no branch, tag or commit {}", repo, name.revision_or_main()));
  }
  if (reply.status == 401 || reply.status == 404) {
    return NotFound(fmt::format("{} has no model {}{}", settings.endpoint, repo,
                                settings.token.empty() ? ", or it is private and needs HF_TOKEN"
                                                       : ", or the token in HF_TOKEN may not read it"));
  }
  return status;
}

constexpr std::array kRootFiles = {"config.json",
                                   "generation_config.json",
                                   "tokenizer.json",
                                   "tokenizer_config.json",
                                   "special_tokens_map.json",
                                   "added_tokens.json",
                                   "vocab.json",
                                   "vocab.txt",
                                   "merges.txt",
                                   "tokenizer.model",
                                   "chat_template.jinja",
                                   "chat_template.json",
                                   "model.safetensors.index.json",
                                   "modules.json",
                                   "sentence_bert_config.json",
                                   "config_sentence_transformers.json"};

}  // namespace

std::string ResolveUrl(const std::string& endpoint, const std::string& repo_id, const std::string& commit,
                       std::string_view file) {
  return fmt::format("{}/{}/resolve/{}/{}", endpoint, repo_id, UrlEscape(commit, false), UrlEscape(file, true));
}

Result<RepoListing> ListRepo(const HubSettings& settings, const ModelName& name, const std::function<bool()>& stopped) {
  const std::string url = fmt::format("{}/api/models/{}/revision/{}?blobs=true", settings.endpoint, name.repo_id(),
                                      UrlEscape(name.revision_or_main(), false));
  HttpReply reply;
  const auto text = FetchText({.url = url,
                               .bearer_token = settings.token,
                               .credentials = settings.endpoint_credentials,
                               .bytes_max = kListingBytesMax,
                               .stopped = stopped},
                              reply);
  if (!text.has_value()) return Explain(text.error(), reply, settings, name);
  return ParseListing(*text, name.repo_id());
}

Result<RepoListing> ParseListing(std::string_view text, const std::string& repo_id) {
  const auto json = ParseJson(
      text,
      {.depth_max = 32, .values_max = kFileJson.values_max, .key_comparisons_max = kFileJson.key_comparisons_max});
  if (!json.has_value() || !json->is_object())
    return DataLoss(fmt::format("{}: the hub's answer is no JSON object", repo_id));
  RepoListing listing;
  listing.commit = TextOf(*json, "sha");
  if (!IsHex(listing.commit, 40) && !IsHex(listing.commit, 64)) {
    return DataLoss(fmt::format("{}: the hub's answer: \"sha\" is no commit", repo_id));
  }
  const auto siblings = json->find("siblings");
  if (siblings == json->end() || !siblings->is_array()) {
    return DataLoss(fmt::format("{}: the hub's answer: \"siblings\" is no list", repo_id));
  }
  if (siblings->size() > kFilesMax) {
    return DataLoss(
        fmt::format("{}: {} files are more than the {} that are read", repo_id, siblings->size(), kFilesMax));
  }
  for (const auto& item : *siblings) {
    PENSIEVE_TRY(auto file, ParseFile(item, repo_id));
    listing.files.push_back(std::move(file));
  }
  return listing;
}

bool IsModelDirectoryFile(std::string_view name) {
  if (std::find(kRootFiles.begin(), kRootFiles.end(), name) != kRootFiles.end()) return true;
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos) return name.starts_with("model") && name.ends_with(".safetensors");
  const std::string_view directory = name.substr(0, slash);
  const std::string_view file = name.substr(slash + 1);
  if (file.find('/') != std::string_view::npos) return false;
  if (directory == "additional_chat_templates") return file.ends_with(".jinja");
  // Modules of sentence-transformers: 1_Pooling, 2_Dense.
  const bool module =
      std::isdigit(static_cast<unsigned char>(directory[0])) != 0 && directory.find('_') != std::string_view::npos;
  return module && (file == "config.json" || file == "model.safetensors");
}

Result<std::vector<RepoFile>> SelectFiles(const RepoListing& listing, const ModelName& name) {
  std::vector<std::string> names;
  for (const auto& file : listing.files) names.push_back(file.name);
  const auto has = [&](std::string_view wanted) {
    return std::find(names.begin(), names.end(), wanted) != names.end();
  };
  const auto is_weights = [](const std::string& file) {
    return IsModelDirectoryFile(file) && file.ends_with(".safetensors") && file.find('/') == std::string::npos;
  };
  const bool has_weights = std::any_of(names.begin(), names.end(), is_weights);
  std::set<std::string> wanted;
  if (name.file.empty() && name.quant.empty() && has("config.json") && has_weights) {
    if (!has("tokenizer.json") && !has("tokenizer.model") && !has("vocab.txt")) {
      return NotFound(fmt::format("{} has no tokenizer", name.repo_id()));
    }
    std::copy_if(names.begin(), names.end(), std::inserter(wanted, wanted.end()), IsModelDirectoryFile);
  } else {
    const bool only_safetensors = GgufModels(names).empty();
    if (only_safetensors && (!name.file.empty() || !name.quant.empty())) {
      return NotFound(fmt::format("{} holds no GGUF files", name.repo_id()));
    }
    if (only_safetensors) {
      return NotFound(
          fmt::format("{} holds no model that can be served: neither a config.json with model*.safetensors nor a "
                      ".gguf file",
                      name.repo_id()));
    }
    PENSIEVE_TRY(const auto parts, ChooseGguf(names, name));
    wanted.insert(parts.begin(), parts.end());
  }
  std::vector<RepoFile> selected;
  std::set<std::string> lower;
  for (const auto& file : listing.files) {
    if (!wanted.contains(file.name)) continue;
    std::string folded = file.name;
    std::transform(folded.begin(), folded.end(), folded.begin(), [](unsigned char c) { return std::tolower(c); });
    if (!lower.insert(folded).second) {
      return DataLoss(
          fmt::format("{} is refused: two of its files are called {}", name.repo_id(), formats::Printable(folded)));
    }
    selected.push_back(file);
  }
  if (selected.size() > kSelectedMax) return DataLoss(fmt::format("{}: has {} files", name.repo_id(), selected.size()));
  return selected;
}

}  // namespace pensieve::hub
