// Where models come from and where they lie, from the environment: the variables of Hugging Face's own tools and of
// AkiDB.
#pragma once

#include <map>
#include <string>

#include "base/status.h"
#include "hub/url.h"

namespace pensieve::hub {

struct HubSettings {
  std::string cache_dir;     // ours: models/ORG/REPO, models/NAME, downloads/
  std::string hf_cache;      // Hugging Face's: models--ORG--REPO/snapshots/COMMIT. HF_HUB_CACHE, HF_HOME/hub
  std::string akidb_models;  // AkiDB's: NAME/. AKIDB_CACHE_DIR/models
  std::string endpoint = "https://huggingface.co";  // HF_ENDPOINT
  Credentials endpoint_credentials;                 // of HF_ENDPOINT; the endpoint itself holds none
  std::string token;                                // HF_TOKEN, else the file that `hf auth login` writes; "" for none
  bool offline = false;  // HF_HUB_OFFLINE: only what is in a cache, nothing is fetched from anywhere
  std::string pypi_index = "https://pypi.org/simple";  // PIP_INDEX_URL, for the default models
  Credentials pypi_credentials;                        // of PIP_INDEX_URL; the index itself holds none
};

// `environment` is that of the process. InvalidArgument for an endpoint that is no URL and a token that fits no header.
Result<HubSettings> ReadHubSettings(const std::map<std::string, std::string>& environment,
                                    const std::string& cache_dir);

}  // namespace pensieve::hub
