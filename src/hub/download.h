// Files over HTTP(S), several at a time and large ones in pieces: resumed after a cut or a stop, checked, and visible
// under their names only when whole.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "hub/url.h"

namespace pensieve::hub {

struct FileRequest {
  std::string url;
  std::string destination;  // DESTINATION.part and DESTINATION.part.json until whole and checked
  int64_t bytes = -1;       // exact; -1 when unknown
  std::string sha256;       // lower-case hex; "" when unknown
  std::string git_sha1;     // the same for git's name of the bytes; looked at when there is no sha256
  // A file whose size nobody declares may not be larger: it could go on for ever.
  int64_t undeclared_bytes_max = int64_t{64} << 20;
};

struct DownloadProgress {
  int64_t done_bytes = 0;
  int64_t total_bytes = 0;  // of the files whose size is known by now
  bool checking = false;    // all bytes are there; checksums are being computed
};

struct DownloadOptions {
  std::string bearer_token;  // see HttpRequest
  Credentials credentials;   // the same
  int connections = 8;
  int64_t segment_bytes =
      int64_t{64} << 20;  // files of more than two segments come in pieces, where the server allows it
  int attempts = 6;       // in a row without a single new byte, before a file is given up
  // Called about ten times a second, on the caller's thread. False stops: Cancelled, and the next call goes on from
  // there.
  std::function<bool(const DownloadProgress&)> progress;
};

// Fetches all files or returns the first error; what is complete stays, what is not can be resumed. Directories of the
// destinations must exist, and nobody else may write there.
//
// NotFound, Unauthenticated, PermissionDenied by the server's answer; Unavailable for a network that does not answer;
// DataLoss when sizes or checksums are wrong (the partial file is then removed); ResourceExhausted for a full disk,
// found out before the first byte where sizes are known.
Status Download(std::vector<FileRequest> files, const DownloadOptions& options);

}  // namespace pensieve::hub
