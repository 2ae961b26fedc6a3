// A request as plain values, and the small grammars of its parts. Private to http/.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pensieve::http {

struct Request {
  std::string id;      // req_..., ours
  std::string method;  // as sent
  std::string
      path;  // percent-encoded, without query; "/v1/v1/x" and "/v1/messages/" already made "/v1/x" and "/v1/messages"
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

// Splits a request target: "/p?q", "http://host/p?q" or "*". False for anything else.
bool ParseTarget(std::string_view target, Request& request);

// "%2F" -> "/". Nothing for broken escapes and for escaped NUL.
std::optional<std::string> PercentDecode(std::string_view text, bool plus_is_space);
// The decoded value of one query parameter.
std::optional<std::string> QueryParameter(std::string_view query, std::string_view name);

// The lower-case name or address in "Name:80" or "[::1]:80"; nothing for what is no host.
std::optional<std::string> HostName(std::string_view host);

std::string ToLower(std::string_view text);

}  // namespace pensieve::http
