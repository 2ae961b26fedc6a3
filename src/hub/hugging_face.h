// The part of Hugging Face's protocol that fetching a model needs: the list of a repo's files at a revision, and the
// address of each. Any server that speaks it will do (HF_ENDPOINT).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "hub/model_name.h"
#include "hub/settings.h"

namespace pensieve::hub {

struct RepoFile {
  std::string name;      // relative path; safe to write, see CheckRelativePath
  int64_t bytes = -1;    // -1: the hub does not say
  std::string sha256;    // of large (LFS) files
  std::string git_sha1;  // of the others
};

struct RepoListing {
  std::string commit;  // lower-case hex
  std::vector<RepoFile> files;
};

// Asks the endpoint. NotFound, Unauthenticated and PermissionDenied say what to do (HF_TOKEN, the licence to accept).
Result<RepoListing> ListRepo(const HubSettings& settings, const ModelName& name, const std::function<bool()>& stopped);

// The hub's JSON answer; `text` is from a stranger. DataLoss names the field. A name that would leave its directory
// condemns the whole repo.
Result<RepoListing> ParseListing(std::string_view text, const std::string& repo_id);

// The files that serving needs: the parts of one GGUF model, or configuration, tokenizer, templates, pooling modules
// and safetensors. NotFound or InvalidArgument when there is no such model in the repo.
Result<std::vector<RepoFile>> SelectFiles(const RepoListing& listing, const ModelName& name);

// True for the files of a model directory (not GGUF) that serving reads, by name alone.
bool IsModelDirectoryFile(std::string_view name);

std::string ResolveUrl(const std::string& endpoint, const std::string& repo_id, const std::string& commit,
                       std::string_view file);

}  // namespace pensieve::hub
