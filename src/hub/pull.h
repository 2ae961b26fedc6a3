// Fetching a model from a hub into our cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"
#include "hub/cache.h"
#include "hub/model_name.h"
#include "hub/settings.h"

namespace pensieve::hub {

// What a long piece of work is at. The strings are for people.
struct FetchStep {
  std::string what;  // "7 files", "checking", "waiting for another pensieve"
  int64_t done_bytes = 0;
  int64_t total_bytes = 0;  // 0 for steps without a length
};
// Called about ten times a second; false stops: Cancelled, and what is there is kept for the next time.
using FetchProgress = std::function<bool(const FetchStep&)>;

struct PulledModel {
  CachedModel model;
  bool fetched = false;  // false: it was there already, and up to date
};

// Downloads what is missing of a model, checks it, and only then makes it visible: whole, by renames. A second pull of
// the same repo waits for the first. Bytes of a pull that was cut short are used by the next.
//
// A model that lies in Hugging Face's own cache at the wanted commit is left there and used. Offline, whatever a cache
// holds is the answer.
Result<PulledModel> Pull(const HubSettings& settings, const ModelName& name, const FetchProgress& progress);

}  // namespace pensieve::hub
