// For tests: a real server on a free port, and clients that are raw sockets: they can misbehave as no HTTP library would.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "http/http_server.h"
#include "http/service_fixture.h"
#include "http/service_metrics.h"

namespace pensieve::http {

struct Answer {
  int status = 0;
  std::string head;  // lower case
  std::string body;  // chunks joined
  Json json() const {
    auto parsed = ParseJson(body);
    return parsed.has_value() ? *std::move(parsed) : Json();
  }
};

class Client {
 public:
  explicit Client(uint16_t port, int receive_buffer = 0) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};  // only a hanging server needs it
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { Close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  // False when the server has closed: some tests go on sending past its refusal.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  bool Receive() {
    char piece[16384];
    const ssize_t size = recv(fd_, piece, sizeof piece, 0);
    if (size > 0) buffer_.append(piece, static_cast<size_t>(size));
    return size > 0;
  }
  // Everything up to and with `end`.
  std::string ReadUntil(const std::string& end) {
    size_t at = buffer_.find(end);
    while (at == std::string::npos && Receive()) at = buffer_.find(end);
    if (at == std::string::npos) return "";
    return Take(at + end.size());
  }
  std::string ReadToEnd() {
    while (Receive()) {}
    return Take(buffer_.size());
  }
  Answer Read(bool head_only = false) {
    Answer answer;
    const std::string head = ReadUntil("\r\n\r\n");
    if (head.size() < 12) return answer;
    answer.status = atoi(head.c_str() + 9);
    for (const char c : head) answer.head += static_cast<char>(tolower(c));
    if (answer.status == 100 || answer.status == 204 || head_only) return answer;
    const size_t length = answer.head.find("content-length: ");
    if (length != std::string::npos) {
      const auto size = static_cast<size_t>(atoll(answer.head.c_str() + length + 16));
      while (buffer_.size() < size && Receive()) {}
      answer.body = Take(size);
    } else if (answer.head.find("transfer-encoding: chunked") != std::string::npos) {
      answer.body = ReadChunks();
    } else {
      answer.body = ReadToEnd();
    }
    return answer;
  }
  std::string ReadChunks() {
    std::string body;
    while (true) {
      const std::string line = ReadUntil("\r\n");
      const size_t size = strtoull(line.c_str(), nullptr, 16);
      while (buffer_.size() < size + 2 && Receive()) {}
      const std::string chunk = Take(size + 2);
      if (size == 0) return body;
      body += chunk.substr(0, size);
    }
  }

 private:
  std::string Take(size_t size) {
    std::string taken = buffer_.substr(0, size);
    buffer_.erase(0, taken.size());
    return taken;
  }

  int fd_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

inline std::string Get(const std::string& path, const std::string& headers = "") {
  return fmt::format("GET {} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", path, headers);
}
inline std::string Post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return fmt::format(
      "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n{}", path,
      body.size(), headers, body);
}
inline std::string MessageBody(const std::string& model, bool stream = false, const std::string& text = "Hi") {
  return fmt::format(R"({{"model":"{}","max_tokens":9,"stream":{},"messages":[{{"role":"user","content":"{}"}}]}})",
                     model, stream, text);
}
inline std::string Message(const std::string& model, bool stream = false, const std::string& headers = "") {
  return Post("/v1/messages", MessageBody(model, stream), headers);
}
inline std::string ChatCompletion(const std::string& model, bool stream = false) {
  return Post(
      "/v1/chat/completions",
      fmt::format(R"({{"model":"{}","stream":{},"messages":[{{"role":"user","content":"Hi"}}]}})", model, stream));
}

class HttpTest : public ::testing::Test {
 protected:
  HttpTest() { options_.port = 0; }
  ~HttpTest() override { server_.reset(); }

  void Start() {
    logger_ = *Logger::Create({.level = "info", .format = "json", .stream = &log_});
    metrics_ = Metrics::Create("9", [this] { return CollectServiceMetrics(service_); });
    auto server = HttpServer::Start(options_, {.service = service_, .logger = *logger_, .metrics = *metrics_});
    ASSERT_TRUE(server.has_value()) << server.error().ToString();
    server_ = *std::move(server);
  }
  uint16_t port() {
    if (!server_) Start();
    return server_->port();
  }
  Answer Ask(const std::string& bytes) {
    Client client(port());
    client.Send(bytes);
    return client.Read(bytes.rfind("HEAD", 0) == 0);
  }
  // Waits until the server has noticed that clients left.
  bool WaitForConnections(int64_t count) {
    for (int i = 0; i < 6000 && server_->connections() != count; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return server_->connections() == count;
  }
  // The log's lines; only after the server has ended.
  std::vector<Json> LogLines() {
    server_.reset();
    std::vector<Json> lines;
    std::istringstream text(log_.str());
    for (std::string line; std::getline(text, line);) lines.push_back(*ParseJson(line));
    return lines;
  }

  HttpOptions options_;
  FixtureService service_;
  std::ostringstream log_;
  std::unique_ptr<Logger> logger_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace pensieve::http
