// An HTTP request as plain values, and the small grammars of its target.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pensieve::api {

struct HttpRequest {
  std::string id;      // req_..., ours
  std::string method;  // as sent
  // Percent-encoded, without the query. "/v1/v1/x" and "/v1/messages/" were already made "/v1/x" and "/v1/messages".
  std::string path;
  std::string query;                                         // without '?'
  std::string host;                                          // of the Host header, or of an absolute target
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case, in order
  std::string body;
  bool http_1_1 = true;
  bool keep_alive = true;
  uint64_t key_number = 0;  // of the API key it carries, from 1; 0: none was asked for

  // The first header of that name (lower case), or "".
  std::string_view Header(std::string_view name) const;
  size_t CountHeader(std::string_view name) const;
};

// The key that a client sent as x-api-key or as "Authorization: Bearer"; "" for none.
std::string_view ApiKeyOf(const HttpRequest& request);

// "%2F" -> "/". Nothing for broken escapes and for escaped NUL.
std::optional<std::string> PercentDecode(std::string_view text, bool plus_is_space);
// The decoded value of one query parameter.
std::optional<std::string> QueryParameter(std::string_view query, std::string_view name);

// ASCII letters only.
std::string ToLower(std::string_view text);

}  // namespace pensieve::api
