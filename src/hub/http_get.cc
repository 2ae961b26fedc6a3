#include "hub/http_get.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <thread>

#include "formats/printable.h"

namespace pensieve::hub {
namespace {

constexpr int kRedirectsMax = 10;
// Of an answer that nobody reads (a redirect's, an error's) this much is taken to keep the connection; then it is cut.
constexpr int64_t kIgnoredBytesMax = 64 << 10;
constexpr size_t kHeaderValueMax = 512;

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return lower;
}

int64_t ParseCount(std::string_view text) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 ? value : -1;
}

// "bytes 100-199/1000": 100 and 1000; -1 for what is not there.
void ParseContentRange(std::string_view value, HttpReply& reply) {
  if (!value.starts_with("bytes ")) return;
  value.remove_prefix(6);
  const size_t dash = value.find('-');
  const size_t slash = value.find('/');
  if (dash != std::string_view::npos && dash < slash) reply.range_begin = ParseCount(value.substr(0, dash));
  if (slash != std::string_view::npos) reply.range_total = ParseCount(value.substr(slash + 1));
}

void ReadHeader(std::string_view line, HttpReply& reply) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return;
  const std::string name = Lower(line.substr(0, colon));
  std::string_view value = line.substr(colon + 1, kHeaderValueMax);
  while (!value.empty() && std::isspace(static_cast<unsigned char>(value.front()))) value.remove_prefix(1);
  while (!value.empty() && std::isspace(static_cast<unsigned char>(value.back()))) value.remove_suffix(1);
  if (name == "content-length") reply.content_length = ParseCount(value);
  if (name == "content-range") ParseContentRange(value, reply);
  if (name == "etag") reply.etag = value;
  if (name == "x-error-code") reply.error_code = value;
}

// What the callbacks of one transfer share.
struct Transfer {
  CURL* curl = nullptr;
  const HttpBody* body = nullptr;
  HttpReply* reply = nullptr;
  bool head_done = false;
  int64_t ignored_bytes = 0;
  Status status;  // why a callback ended the transfer
};

bool IsSuccess(int status) { return status >= 200 && status < 300; }

bool EnsureHead(Transfer& transfer) {
  if (transfer.head_done) return true;
  transfer.head_done = true;
  if (transfer.body->on_head) transfer.status = transfer.body->on_head(*transfer.reply);
  return transfer.status.ok();
}

size_t OnBytes(char* bytes, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t length = size * count;
  if (!IsSuccess(transfer.reply->status)) {
    transfer.ignored_bytes += static_cast<int64_t>(length);
    return transfer.ignored_bytes > kIgnoredBytesMax ? 0 : length;
  }
  if (!EnsureHead(transfer)) return 0;
  transfer.status = transfer.body->on_bytes({bytes, length});
  return transfer.status.ok() ? length : 0;
}

size_t OnHeader(char* bytes, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::string_view line(bytes, size * count);
  if (line.starts_with("HTTP/")) {
    // A new head: of an interim answer before, or of the final one.
    *transfer.reply = HttpReply();
    const size_t space = line.find(' ');
    if (space != std::string_view::npos) {
      transfer.reply->status = static_cast<int>(ParseCount(line.substr(space + 1, 3)));
    }
  } else {
    ReadHeader(line, *transfer.reply);
  }
  return size * count;
}

int OnProgress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (!transfer.body->stopped || !transfer.body->stopped()) return 0;
  transfer.status = Cancelled("stopped");
  return 1;
}

struct Origin {
  std::string scheme;
  std::string host;
  std::string port;
  bool operator==(const Origin&) const = default;
};

Result<Origin> OriginOf(const std::string& url) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), &curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) {
    return InvalidArgument(fmt::format("{}: not a URL", PublicUrl(url)));
  }
  const auto part = [&](CURLUPart which) {
    char* text = nullptr;
    std::string value;
    if (curl_url_get(parsed.get(), which, &text, CURLU_DEFAULT_PORT) == CURLUE_OK) value = Lower(text);
    curl_free(text);
    return value;
  };
  Origin origin{part(CURLUPART_SCHEME), part(CURLUPART_HOST), part(CURLUPART_PORT)};
  if (origin.scheme != "http" && origin.scheme != "https") {
    return InvalidArgument(fmt::format("{}: neither http nor https", PublicUrl(url)));
  }
  return origin;
}

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

Status AnswerStatus(const std::string& place, const HttpReply& reply) {
  if (IsSuccess(reply.status)) return OkStatus();
  std::string message = fmt::format("{}: the server answered {}", place, reply.status);
  switch (reply.status) {
    case 401: return Unauthenticated(std::move(message));
    case 403: return {StatusCode::kPermissionDenied, std::move(message)};
    case 404:
    case 410: return NotFound(std::move(message));
    case 416: return {StatusCode::kOutOfRange, std::move(message)};
    case 408:
    case 425:
    case 429: return Unavailable(std::move(message)).WithRetryAfterMs(reply.retry_after_ms);
    default: break;
  }
  if (reply.status >= 500) return Unavailable(std::move(message)).WithRetryAfterMs(reply.retry_after_ms);
  return FailedPrecondition(std::move(message));
}

}  // namespace

struct HttpSession::State {
  CURL* curl = nullptr;

  Status Perform(const HttpRequest& request, const std::string& place, const HttpBody& body, HttpReply& reply);
  std::string RedirectTarget() const {
    char* target = nullptr;
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &target);
    return target == nullptr ? "" : target;
  }
};

// A single exchange, without following anywhere. `place` is the URL as errors name it.
Status HttpSession::State::Perform(const HttpRequest& request, const std::string& place, const HttpBody& body,
                                   HttpReply& reply) {
  curl_easy_reset(curl);
  Transfer transfer{.curl = curl, .body = &body, .reply = &reply, .head_done = false, .ignored_bytes = 0, .status = {}};
  // Checksums are of the file's own bytes.
  curl_slist* headers = curl_slist_append(nullptr, "Accept-Encoding: identity");
  if (!request.bearer_token.empty()) {
    headers = curl_slist_append(headers, fmt::format("Authorization: Bearer {}", request.bearer_token).c_str());
  }
  if (!request.credentials.empty() && request.bearer_token.empty()) {
    curl_easy_setopt(curl, CURLOPT_USERNAME, request.credentials.user.c_str());
    curl_easy_setopt(curl, CURLOPT_PASSWORD, request.credentials.password.c_str());
  }
  if (!request.if_range.empty())
    headers = curl_slist_append(headers, fmt::format("If-Range: {}", request.if_range).c_str());
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> owner(headers, &curl_slist_free_all);
  const std::string range = request.range_end >= 0 ? fmt::format("{}-{}", request.range_begin, request.range_end)
                                                   : fmt::format("{}-", request.range_begin);
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "pensieve");
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 20L);
  // Stalled means slower than 1 kB/s for half a minute.
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1000L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 30L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  if (request.range_begin >= 0) curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &OnBytes);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &OnHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &OnProgress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  const CURLcode code = curl_easy_perform(curl);
  if (!transfer.status.ok()) return transfer.status;
  curl_off_t retry_after_s = 0;
  curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after_s);
  reply.retry_after_ms = 1000 * std::clamp<int64_t>(retry_after_s, 0, 86'400);
  // An answer that is no success ends with its head, however its body went.
  if (reply.status != 0 && !IsSuccess(reply.status)) return OkStatus();
  if (code != CURLE_OK) return Unavailable(fmt::format("{}: {}", place, curl_easy_strerror(code)));
  return EnsureHead(transfer) ? OkStatus() : transfer.status;
}

HttpSession::HttpSession() : state_(std::make_unique<State>()) {
  static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
  PENSIEVE_CHECK(global == CURLE_OK);
  state_->curl = curl_easy_init();
  PENSIEVE_CHECK(state_->curl != nullptr);
}

HttpSession::~HttpSession() { curl_easy_cleanup(state_->curl); }

Status HttpSession::Get(const HttpRequest& request, const HttpBody& body, HttpReply& reply) {
  PENSIEVE_TRY(const Origin first, OriginOf(request.url));
  HttpRequest hop = request;
  const std::string shown = PublicUrl(request.url);
  std::string place = shown;  // the target of a redirect may hold a signature, so only its host is named
  for (int redirects = 0;; ++redirects) {
    reply = HttpReply();
    PENSIEVE_RETURN_IF_ERROR(state_->Perform(hop, place, body, reply));
    if (!IsRedirect(reply.status)) return AnswerStatus(place, reply);
    if (redirects == kRedirectsMax) {
      return FailedPrecondition(fmt::format("{}: more than {} redirects", shown, kRedirectsMax));
    }
    const std::string target = state_->RedirectTarget();
    if (target.empty()) return FailedPrecondition(fmt::format("{}: a redirect without a target", place));
    if (const Status allowed = CheckRedirect(hop.url, target); !allowed.ok()) return allowed.WithContext(place);
    PENSIEVE_TRY(const Origin next, OriginOf(target));
    hop.url = target;
    hop.bearer_token = next == first ? request.bearer_token : "";
    hop.credentials = next == first ? request.credentials : Credentials();
    place = fmt::format("{} (redirected to {})", shown, formats::Printable(next.host));
  }
}

bool SameOrigin(const std::string& url, const std::string& other_url) {
  const auto origin = OriginOf(url);
  const auto other = OriginOf(other_url);
  return origin.has_value() && other.has_value() && *origin == *other;
}

Status CheckRedirect(const std::string& from_url, const std::string& to_url) {
  PENSIEVE_TRY(const Origin from, OriginOf(from_url));
  const auto to = OriginOf(to_url);
  // A target that is a good address may hold a signature, so it is not shown.
  if (!to.has_value()) return FailedPrecondition(fmt::format("redirects to {}", to.error().message()));
  if (from.scheme == "https" && to->scheme != "https")
    return FailedPrecondition("redirects from https to http, which is refused");
  return OkStatus();
}

bool WaitBeforeRetry(int attempt, int64_t retry_after_ms, const std::function<bool()>& stopped) {
  constexpr int64_t kWaitMsMax = 60'000;
  const int64_t own = int64_t{250} << std::min(attempt, 6);
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(std::clamp(retry_after_ms, own, kWaitMsMax));
  while (std::chrono::steady_clock::now() < until) {
    if (stopped && stopped()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

Result<std::string> FetchText(const TextRequest& request, HttpReply& reply) {
  HttpSession session;
  for (int attempt = 1;; ++attempt) {
    std::string text;
    const auto append = [&](std::string_view bytes) {
      if (text.size() + bytes.size() > static_cast<size_t>(request.bytes_max)) {
        return DataLoss(fmt::format("{}: longer than {} bytes", PublicUrl(request.url), request.bytes_max));
      }
      text.append(bytes);
      return OkStatus();
    };
    const Status status = session.Get(
        {.url = request.url, .bearer_token = request.bearer_token, .credentials = request.credentials, .if_range = ""},
        {.on_head = {}, .on_bytes = append, .stopped = request.stopped}, reply);
    if (status.ok()) return text;
    if (status.code() != StatusCode::kUnavailable || attempt >= request.attempts) return status;
    if (!WaitBeforeRetry(attempt, status.retry_after_ms(), request.stopped)) return Cancelled("stopped");
  }
}

}  // namespace pensieve::hub
