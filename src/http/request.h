// The small grammars of a request's parts. Private to http/.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api/http_request.h"

namespace pensieve::http {

using Request = api::HttpRequest;
using api::ToLower;

// Splits a request target: "/p?q", "http://host/p?q" or "*". False for anything else.
bool ParseTarget(std::string_view target, Request& request);

// The lower-case name or address in "Name:80" or "[::1]:80"; nothing for what is no host.
std::optional<std::string> HostName(std::string_view host);

}  // namespace pensieve::http
