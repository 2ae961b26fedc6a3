// Checksums of files, for checking what came over the network.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"

namespace pensieve::hub {

// Asked now and then during long work; true ends it with Cancelled.
using StopCheck = std::function<bool()>;

// Lower-case hex. Errors: those of opening the file, and Cancelled.
Result<std::string> Sha256OfFile(const std::string& path, const StopCheck& stopped = {});
// The name git gives the file's bytes: SHA-1 of "blob SIZE\0" and the bytes. Hubs state it for files outside LFS.
Result<std::string> GitBlobSha1OfFile(const std::string& path, const StopCheck& stopped = {});

}  // namespace pensieve::hub
