// Models on this machine: in our own cache, in Hugging Face's and in AkiDB's. Found by name without any network.
//
//   ours           CACHE/models/ORG/REPO[@REVISION]/       files as in the repo, and .pensieve.json
//                  CACHE/models/NAME/                      a default model, or AkiDB's when both share a directory
//   Hugging Face's HUB/models--ORG--REPO/refs/REVISION     names a commit
//                  HUB/models--ORG--REPO/snapshots/COMMIT/ links to blobs
//   AkiDB's        AKIDB/models/NAME/                      NAME is one of Aliases()
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "hub/model_name.h"
#include "hub/settings.h"

namespace pensieve::hub {

enum class CacheOwner : uint8_t { kPensieve, kHuggingFace, kAkidb };
// "pensieve", "huggingface", "akidb".
const char* CacheOwnerName(CacheOwner owner);

struct CachedModel {
  std::string name;     // what --model takes
  std::string repo_id;  // "" for models of no repo
  CacheOwner owner = CacheOwner::kPensieve;
  std::string path;                // what to load: a GGUF file or a directory
  std::string root;                // the repo's or model's directory in its cache
  std::vector<std::string> files;  // of the model, absolute
  int64_t bytes = 0;
  std::string format;        // "gguf", "mlx" or "safetensors"
  std::string quantization;  // "Q4_K_M", "4-bit", "bfloat16"; "" when neither name nor configuration says
};

// The model in the first cache that holds it whole: ours, Hugging Face's, AkiDB's.
std::optional<CachedModel> FindCached(const HubSettings& settings, const ModelName& name);
// A model by a name without a slash: an alias, or a directory of AkiDB's form in CACHE/models.
std::optional<CachedModel> FindCachedByShortName(const HubSettings& settings, const std::string& name);

// All whole models, ours first, by name. Unreadable directories are passed over.
std::vector<CachedModel> ListCached(const HubSettings& settings);

// Deletes a model that ListCached gave; in Hugging Face's cache the whole repo with every revision. Refuses to delete
// anything that does not lie in its cache.
Status RemoveCached(const HubSettings& settings, const CachedModel& model);

// Bytes that RemoveCached will free, and what it deletes.
std::string RemovalTarget(const CachedModel& model);

// CACHE/models/ORG/REPO[@REVISION]
std::string RepoDirectory(const HubSettings& settings, const ModelName& name);

// Has config.json, a tokenizer and every shard that the index or the shards' own names announce.
bool IsWholeModelDirectory(const std::string& directory);

// The model of `name` in a directory that holds a repo's files.
std::optional<std::string> ModelPathIn(const std::string& directory, const ModelName& name);

}  // namespace pensieve::hub
