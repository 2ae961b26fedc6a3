// Answers as bytes. Private to http/.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/reply.h"

namespace pensieve::http {

struct HeadOptions {
  bool http_1_1 = true;
  bool close = false;       // the connection ends after this answer
  bool keep_alive = false;  // say so: HTTP/1.0 clients need it
  bool head_only = false;   // an answer to HEAD: the length of a body that is not sent
  std::string request_id;
  bool x_request_id = false;  // OpenAI's name for it, in addition
  std::vector<std::pair<std::string, std::string>> headers;
};

// Status line, headers and body.
std::string FormatReply(const api::HttpReply& reply, const HeadOptions& options);
// Status line and headers of a stream of that type, chunked in HTTP/1.1 and ended by closing before that.
std::string FormatStreamHead(const HeadOptions& options, std::string_view content_type);
// One chunk; "" for no bytes, since an empty chunk would end the body.
std::string FormatChunk(std::string_view bytes);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace pensieve::http
