// What a dialect hands to a transport: a whole HTTP answer as plain values. `http/` only sends it.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace pensieve::api {

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // beyond content type and length; names in lower case
};

}  // namespace pensieve::api
