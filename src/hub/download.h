// Files over HTTP(S): resumed after a cut, checked, and visible under their name only when whole.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace pensieve::hub {

// Called a few times a second. `total_bytes` is 0 while unknown. Returning false aborts the download (Cancelled).
using Progress = std::function<bool(int64_t done_bytes, int64_t total_bytes)>;

struct DownloadRequest {
  std::string url;
  std::string destination;           // written as destination + ".part" until whole and checked
  std::string sha256;                // lower-case hex; "" when unknown
  int64_t bytes_max = int64_t{1} << 40;
  std::vector<std::string> headers;  // "Authorization: Bearer ..."; sent to the first host only
  int attempts = 5;                  // cuts are resumed where the bytes stop
  Progress progress;
};

// NotFound for 404, Unauthenticated/PermissionDenied for 401/403, Unavailable for a network that does not answer,
// DataLoss when size or checksum is wrong (the partial file is then removed).
Status Download(const DownloadRequest& request);

// A small document in memory.
Result<std::string> FetchText(const std::string& url, int64_t bytes_max, const std::vector<std::string>& headers = {});

}  // namespace pensieve::hub
