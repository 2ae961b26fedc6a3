#include "http/response.h"

#include <fmt/format.h>

#include <ctime>

namespace pensieve::http {
namespace {

const char* Reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 529: return "Overloaded";
    default: return "Status";
  }
}

// "Sun, 06 Nov 1994 08:49:37 GMT", which strftime would spell in the locale's language.
std::string HttpDate() {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday, kMonths[utc.tm_mon],
                     utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

// Header values come from our own code, and in part from what clients sent: a line break must never pass.
void AppendHeader(std::string_view name, std::string_view value, std::string& head) {
  head += name;
  head += ": ";
  for (const char c : value)
    if (c != '\r' && c != '\n' && c != '\0') head += c;
  head += "\r\n";
}

std::string Head(int status, const HeadOptions& options) {
  std::string head = fmt::format("HTTP/{} {} {}\r\n", options.http_1_1 ? "1.1" : "1.0", status, Reason(status));
  AppendHeader("date", HttpDate(), head);
  AppendHeader("request-id", options.request_id, head);
  if (options.x_request_id) AppendHeader("x-request-id", options.request_id, head);
  for (const auto& [name, value] : options.headers) AppendHeader(name, value, head);
  if (options.close) AppendHeader("connection", "close", head);
  else if (options.keep_alive) AppendHeader("connection", "keep-alive", head);
  return head;
}

}  // namespace

std::string FormatReply(const api::HttpReply& reply, const HeadOptions& options) {
  std::string bytes = Head(reply.status, options);
  for (const auto& [name, value] : reply.headers) AppendHeader(name, value, bytes);
  // 204 has neither body nor length (RFC 9110, 8.6).
  if (reply.status != 204) {
    if (!reply.content_type.empty()) AppendHeader("content-type", reply.content_type, bytes);
    AppendHeader("content-length", fmt::format("{}", reply.body.size()), bytes);
  }
  bytes += "\r\n";
  if (!options.head_only && reply.status != 204) bytes += reply.body;
  return bytes;
}

std::string FormatStreamHead(const HeadOptions& options, std::string_view content_type) {
  std::string bytes = Head(200, options);
  AppendHeader("content-type", content_type, bytes);
  AppendHeader("cache-control", "no-cache", bytes);
  AppendHeader("x-accel-buffering", "no", bytes);
  if (options.http_1_1) AppendHeader("transfer-encoding", "chunked", bytes);
  return bytes + "\r\n";
}

std::string FormatChunk(std::string_view bytes) {
  if (bytes.empty()) return "";
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

}  // namespace pensieve::http
