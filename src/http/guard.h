// Who may talk to the server: Host and Origin headers, CORS, API keys. Pure functions. Private to http/.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "http/http_server.h"
#include "http/request.h"

namespace pensieve::http {

// PermissionDenied for a Host that the server does not answer to, and for an Origin that is neither configured nor the
// server itself. A loopback server answers to local names, any other one without keys to local names and IP addresses;
// both to the names that are allowed. InvalidArgument for a Host header that is missing (HTTP/1.1), repeated or malformed.
Status CheckHostAndOrigin(const Request& request, const HttpOptions& options);

// The number of the key that the request carries, as x-api-key or as "Authorization: Bearer", from 1; 0 when no keys are
// configured. Unauthenticated when it carries none of them. Takes the same time for every wrong key of one length.
Result<uint64_t> CheckApiKey(const Request& request, const std::vector<std::string>& api_keys);

// Headers that let the page of an allowed origin read the answer; none for other requests. `preflight` adds the
// permissions a browser asks for in advance.
std::vector<std::pair<std::string, std::string>> CorsHeaders(const Request& request, const HttpOptions& options,
                                                             bool preflight);

}  // namespace pensieve::http
