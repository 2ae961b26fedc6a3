// One HTTP(S) GET at a time over libcurl. Redirects are followed here and not by libcurl, so that a token never leaves
// the host it is meant for and https never becomes http.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "hub/url.h"

namespace pensieve::hub {

struct HttpRequest {
  std::string url;
  std::string bearer_token;  // sent only to the scheme, host and port of `url`
  Credentials credentials;   // as the token, which goes instead of them where both are given
  int64_t range_begin = -1;  // -1: the whole document
  int64_t range_end = -1;    // inclusive; -1: to the end
  std::string if_range;      // a strong ETag: the whole document comes when it has changed since
};

// The head of the last reply, after redirects. Numbers that the server did not give are -1.
struct HttpReply {
  int status = 0;  // 0: none came
  int64_t content_length = -1;
  int64_t range_begin = -1;  // of a 206
  int64_t range_total = -1;  // size of the whole document, of a 206
  std::string etag;
  std::string error_code;  // X-Error-Code, the hub's own word: "GatedRepo", "RepoNotFound", "RevisionNotFound", ...
  int64_t retry_after_ms = 0;
};

// What becomes of the body. A Status that is not OK ends the transfer with it. `stopped` is asked several times a
// second.
struct HttpBody {
  std::function<Status(const HttpReply&)> on_head;  // once, before the body of a 2xx
  std::function<Status(std::string_view)> on_bytes;
  std::function<bool()> stopped;
};

// Keeps its connection open between requests. Thread-compatible: one per thread.
class HttpSession {
 public:
  HttpSession();
  ~HttpSession();
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  // NotFound for 404 and 410, Unauthenticated for 401, PermissionDenied for 403, OutOfRange for 416, Unavailable for
  // what may go better later (other answers of 408, 425, 429 and 5xx, cut connections, no network), FailedPrecondition
  // for everything else, as redirects that are refused. Messages name the URL as PublicUrl does. `reply` holds the head also when the answer was an error.
  Status Get(const HttpRequest& request, const HttpBody& body, HttpReply& reply);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Whether both have the same scheme, host and port. False for what is no URL.
bool SameOrigin(const std::string& url, const std::string& other_url);

// Whether a redirect may be followed: only to http and https, and never from https to http.
Status CheckRedirect(const std::string& from_url, const std::string& to_url);

struct TextRequest {
  std::string url;
  std::string bearer_token;
  Credentials credentials;
  int64_t bytes_max = int64_t{1} << 20;
  int attempts = 4;
  std::function<bool()> stopped;
};

// A small document in memory; tries again when that may help. `reply` is that of the last attempt.
Result<std::string> FetchText(const TextRequest& request, HttpReply& reply);

// Waits before attempt number `attempt` (1 is the second): longer each time, as long as the server asked for within
// reason. False when stopped meanwhile.
bool WaitBeforeRetry(int attempt, int64_t retry_after_ms, const std::function<bool()>& stopped);

}  // namespace pensieve::hub
