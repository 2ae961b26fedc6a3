// A server of HTTP on loopback for tests: answers each connection with what a function makes of the request's head.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace pensieve::hub {

class LoopbackServer {
 public:
  // `respond` gives the whole reply, head and body; the connection is then closed. Called from several threads.
  using Responder = std::function<std::string(const std::string& head, int connection)>;
  explicit LoopbackServer(Responder respond)
      : respond_(std::move(respond)), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener_, 64), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Serve(); });
  }
  ~LoopbackServer() {
    stopping_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    threads_.clear();
    ::close(listener_);
  }
  std::string url(const std::string& path) const { return "http://127.0.0.1:" + std::to_string(port_) + path; }

 private:
  static constexpr int kThreads = 4;

  void Serve() {
    while (!stopping_) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      std::string head;
      char buffer[4096];
      while (head.find("\r\n\r\n") == std::string::npos) {
        const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
        if (n <= 0) break;
        head.append(buffer, static_cast<size_t>(n));
      }
      const std::string reply = respond_(head, connections_++);
      size_t sent = 0;
      while (sent < reply.size()) {
        const ssize_t n = ::send(fd, reply.data() + sent, reply.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<size_t>(n);
      }
      ::close(fd);
    }
  }

  Responder respond_;
  int listener_;
  uint16_t port_ = 0;
  std::atomic<int> connections_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::jthread> threads_;
};

inline std::string Reply(const std::string& status, const std::string& body, size_t length,
                         const std::string& extra = "") {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(length) + "\r\nConnection: close\r\n" + extra +
         "\r\n" + body;
}

// The value of a header of a request, "" when it is not there.
inline std::string HeaderOf(const std::string& head, const std::string& name) {
  const size_t at = head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 4;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

// Serves `body` as a good server of files does: whole, or the range that is asked for, if it is still the same file.
inline std::string ServeFile(const std::string& head, const std::string& body, const std::string& etag = "\"v1\"") {
  const std::string tag = "ETag: " + etag + "\r\n";
  const std::string range = HeaderOf(head, "Range");
  const std::string condition = HeaderOf(head, "If-Range");
  if (range.empty() || (!condition.empty() && condition != etag)) return Reply("200 OK", body, body.size(), tag);
  const size_t begin = std::stoull(range.substr(6));
  const size_t dash = range.find('-');
  if (begin >= body.size()) return Reply("416 Range Not Satisfiable", "", 0);
  const size_t end = dash + 1 < range.size() ? std::min<size_t>(std::stoull(range.substr(dash + 1)), body.size() - 1)
                                             : body.size() - 1;
  return Reply("206 Partial Content", body.substr(begin, end - begin + 1), end - begin + 1,
               tag + "Content-Range: bytes " + std::to_string(begin) + "-" + std::to_string(end) + "/" +
                   std::to_string(body.size()) + "\r\n");
}

}  // namespace pensieve::hub
