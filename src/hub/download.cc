#include "hub/download.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "hub/sha256.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;

using CurlHandle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using FileHandle = std::unique_ptr<std::FILE, decltype(&std::fclose)>;

struct HeaderList {
  curl_slist* list = nullptr;
  ~HeaderList() { curl_slist_free_all(list); }
};

// What the write and progress callbacks of one transfer share.
struct Transfer {
  CURL* curl = nullptr;
  std::FILE* file = nullptr;    // or
  std::string* text = nullptr;
  int64_t offset = 0;           // bytes that were there before this transfer
  int64_t written = 0;
  int64_t bytes_max = 0;
  const Progress* progress = nullptr;
  bool too_large = false;
  bool cancelled = false;
};

size_t OnBytes(char* bytes, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t length = size * count;
  transfer.written += static_cast<int64_t>(length);
  if (transfer.offset + transfer.written > transfer.bytes_max) {
    transfer.too_large = true;
    return 0;
  }
  if (transfer.text != nullptr) {
    transfer.text->append(bytes, length);
    return length;
  }
  return std::fwrite(bytes, 1, length, transfer.file);
}

int OnProgress(void* user, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (transfer.progress == nullptr || !*transfer.progress) return 0;
  const int64_t whole = total > 0 ? total + transfer.offset : 0;
  transfer.cancelled = !(*transfer.progress)(now + transfer.offset, whole);
  return transfer.cancelled ? 1 : 0;
}

void Configure(CURL* curl, const std::string& url, const HeaderList& headers, Transfer& transfer) {
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "pensieve");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 10L);
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 20L);
  // Stalled means slower than 1 kB/s for half a minute.
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1000L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 30L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.list);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &OnBytes);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &OnProgress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  if (transfer.offset > 0) curl_easy_setopt(curl, CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(transfer.offset));
}

Status TransferStatus(CURLcode code, const Transfer& transfer, const std::string& url) {
  if (code == CURLE_OK) return OkStatus();
  if (transfer.cancelled) return Cancelled(fmt::format("{}: download stopped", url));
  if (transfer.too_large) return DataLoss(fmt::format("{}: more than the {} bytes expected", url, transfer.bytes_max));
  long http = 0;
  curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &http);
  if (code == CURLE_RANGE_ERROR || http == 416) {
    return {StatusCode::kOutOfRange, fmt::format("{}: the server cannot resume", url)};
  }
  if (code == CURLE_HTTP_RETURNED_ERROR) {
    auto message = fmt::format("{}: the server answered {}", url, http);
    if (http == 404 || http == 410) return NotFound(std::move(message));
    if (http == 401) return Unauthenticated(std::move(message));
    if (http == 403) return {StatusCode::kPermissionDenied, std::move(message)};
    return Unavailable(std::move(message));
  }
  if (code == CURLE_WRITE_ERROR) return ResourceExhausted(fmt::format("{}: cannot write to disk", url));
  return Unavailable(fmt::format("{}: {}", url, curl_easy_strerror(code)));
}

Status RunTransfer(const std::string& url, const std::vector<std::string>& header_lines, Transfer& transfer) {
  static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (global != CURLE_OK) return Internal("libcurl cannot start");
  const CurlHandle curl(curl_easy_init(), &curl_easy_cleanup);
  if (!curl) return Internal("libcurl cannot start");
  HeaderList headers;
  for (const auto& line : header_lines) headers.list = curl_slist_append(headers.list, line.c_str());
  transfer.curl = curl.get();
  Configure(curl.get(), url, headers, transfer);
  return TransferStatus(curl_easy_perform(curl.get()), transfer, url);
}

Status DownloadOnce(const DownloadRequest& request, const std::string& part) {
  std::error_code error;
  const auto existing = fs::file_size(part, error);
  Transfer transfer{.offset = error ? 0 : static_cast<int64_t>(existing), .bytes_max = request.bytes_max, .progress = &request.progress};
  const FileHandle file(std::fopen(part.c_str(), transfer.offset > 0 ? "r+b" : "wb"), &std::fclose);
  if (!file) return {StatusCode::kPermissionDenied, fmt::format("{}: cannot write", part)};
  std::fseek(file.get(), 0, SEEK_END);
  transfer.file = file.get();
  const Status status = RunTransfer(request.url, request.headers, transfer);
  const bool flushed = std::fflush(file.get()) == 0;
  if (status.ok() && !flushed) return ResourceExhausted(fmt::format("{}: cannot write to disk", part));
  // What is there does not continue the server's file: start over with the next attempt.
  if (status.code() == StatusCode::kOutOfRange) fs::remove(part, error);
  return status;
}

bool WorthAnotherTry(const Status& status) { return status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kOutOfRange; }

}  // namespace

Status Download(const DownloadRequest& request) {
  const std::string part = request.destination + ".part";
  Status status;
  for (int attempt = 0; attempt < request.attempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(250) * (1 << attempt));
    status = DownloadOnce(request, part);
    if (!WorthAnotherTry(status)) break;
  }
  std::error_code error;
  if (status.code() == StatusCode::kDataLoss) fs::remove(part, error);
  PENSIEVE_RETURN_IF_ERROR(status);
  if (!request.sha256.empty()) {
    PENSIEVE_TRY(const auto digest, Sha256OfFile(part));
    if (digest != request.sha256) {
      fs::remove(part, error);
      return DataLoss(fmt::format("{}: SHA-256 is {}, expected {}", request.url, digest, request.sha256));
    }
  }
  fs::rename(part, request.destination, error);
  if (error) return Internal(fmt::format("{}: cannot rename: {}", part, error.message()));
  return OkStatus();
}

Result<std::string> FetchText(const std::string& url, int64_t bytes_max, const std::vector<std::string>& headers) {
  std::string text;
  Transfer transfer{.text = &text, .bytes_max = bytes_max};
  PENSIEVE_RETURN_IF_ERROR(RunTransfer(url, headers, transfer));
  return text;
}

}  // namespace pensieve::hub
