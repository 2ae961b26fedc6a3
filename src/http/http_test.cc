// A real server on a free port, and clients that are raw sockets: they can misbehave as no HTTP library would.
#include "http/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sstream>
#include <thread>

#include "http/service_fixture.h"
#include "http/service_metrics.h"

namespace pensieve::http {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

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
    while (Receive()) {
    }
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
      while (buffer_.size() < size && Receive()) {
      }
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
      while (buffer_.size() < size + 2 && Receive()) {
      }
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

std::string Get(const std::string& path, const std::string& headers = "") {
  return fmt::format("GET {} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", path, headers);
}
std::string Post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return fmt::format(
      "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n{}", path,
      body.size(), headers, body);
}
std::string MessageBody(const std::string& model, bool stream = false, const std::string& text = "Hi") {
  return fmt::format(R"({{"model":"{}","max_tokens":9,"stream":{},"messages":[{{"role":"user","content":"{}"}}]}})",
                     model, stream, text);
}
std::string Message(const std::string& model, bool stream = false, const std::string& headers = "") {
  return Post("/v1/messages", MessageBody(model, stream), headers);
}
std::string ChatCompletion(const std::string& model, bool stream = false) {
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

// ---- answers ----

TEST_F(HttpTest, InfoRoutes) {
  for (const char* path :
       {"/", "/api/hello", "/health", "/ready", "/metrics", "/v1/models", "/v1/v1/models", "/v1/models?limit=5"}) {
    const Answer answer = Ask(Get(path));
    EXPECT_EQ(answer.status, 200) << path;
    EXPECT_THAT(answer.head, HasSubstr("request-id: req_")) << path;
    EXPECT_THAT(answer.head, HasSubstr("date: ")) << path;
  }
  EXPECT_EQ(Ask(Get("/health")).json()["status"], "healthy");
  EXPECT_EQ(Ask(Get("/health")).json()["model_path"], "/models/tiny.gguf");
  EXPECT_EQ(Ask(Get("/ready")).json()["status"], "ready");
  EXPECT_EQ(Ask(Get("/v1/models")).json()["data"][0]["id"], "org/tiny");
  EXPECT_EQ(Ask(Get("/v1/models/org/tiny")).json()["id"], "org/tiny");
  EXPECT_EQ(Ask(Get("/v1/models/org%2Ftiny")).json()["id"], "org/tiny");
  EXPECT_EQ(Ask(Get("/v1/models/other")).status, 404);
  EXPECT_EQ(Ask(Get("/v1/models/%zz")).status, 400);
  EXPECT_EQ(Ask(Get("/v1/models?limit=0")).status, 400);
}

TEST_F(HttpTest, NotReady) {
  service_.ready = false;
  EXPECT_EQ(Ask(Get("/health")).status, 503);
  EXPECT_EQ(Ask(Get("/ready")).json()["status"], "not_ready");
}

TEST_F(HttpTest, LoadingIsHealthyAndNotReady) {
  service_.loading = service::LoadProgress{.model = "org/b", .step = "downloading", .models_loaded = 1,
                                           .models_total = 2, .done_bytes = 5, .total_bytes = 10};
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  const Answer ready = Ask(Get("/ready"));
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.json()["status"], "not_ready");
  EXPECT_EQ(ready.json()["loading"], (Json{{"model", "org/b"}, {"step", "downloading"}, {"models_loaded", 1},
                                           {"models_total", 2}, {"done_bytes", 5}, {"total_bytes", 10}}));
}

TEST_F(HttpTest, ALostModelIsNoHealth) {
  service_.lost = {"/m/a.gguf: the file was truncated"};
  const Answer health = Ask(Get("/health"));
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.json()["lost_models"][0], service_.lost[0]);
  EXPECT_EQ(Ask(Get("/ready")).status, 503);
}

TEST_F(HttpTest, HeadHasNoBody) {
  Client client(port());
  client.Send("HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n" + Get("/health"));
  const Answer head = client.Read(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_THAT(head.head, Not(HasSubstr("content-length: 0")));
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpTest, WholeMessage) {
  const Answer answer = Ask(Message("any"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json message = answer.json();
  EXPECT_EQ(message["content"][0]["text"], "echo: Hi");
  EXPECT_EQ(message["model"], "any");
  EXPECT_EQ(message["usage"]["output_tokens"], 3);
  EXPECT_THAT(answer.head, HasSubstr("content-type: application/json"));
  EXPECT_EQ(Ask(Post("/v1/messages?beta=true", MessageBody("any"))).status, 200);
  EXPECT_EQ(Ask(Post("/v1/v1/messages", MessageBody("any"))).status, 200);
}

TEST_F(HttpTest, StreamedMessageByteForByte) {
  const Answer answer = Ask(Message("any", true));
  ASSERT_EQ(answer.status, 200);
  EXPECT_THAT(answer.head, HasSubstr("content-type: text/event-stream; charset=utf-8\r\n"));
  EXPECT_THAT(answer.head, HasSubstr("cache-control: no-cache\r\n"));
  EXPECT_THAT(answer.head, HasSubstr("x-accel-buffering: no\r\n"));
  std::string names;
  for (size_t at = answer.body.find("event: "); at != std::string::npos; at = answer.body.find("event: ", at + 1))
    names += answer.body.substr(at + 7, answer.body.find('\n', at) - at - 7) + " ";
  EXPECT_EQ(
      names,
      "message_start ping content_block_start content_block_delta content_block_delta content_block_stop message_delta "
      "message_stop ");
  EXPECT_THAT(answer.body,
              HasSubstr("data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
                        "\"text\":\"echo: \"}}\n\n"));
  EXPECT_TRUE(answer.body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
}

TEST_F(HttpTest, OpenAiRoutes) {
  EXPECT_EQ(Ask(ChatCompletion("any")).json()["choices"][0]["message"]["content"], "echo: Hi");
  const Answer stream = Ask(ChatCompletion("any", true));
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n"));
  EXPECT_THAT(stream.head, HasSubstr("x-request-id: req_"));
  const Answer text = Ask(Post("/v1/completions", R"({"model":"any","prompt":"once"})"));
  EXPECT_EQ(text.json()["choices"][0]["text"], "echo: once");
  const Answer vectors = Ask(Post("/v1/embeddings", R"({"model":"m","input":["a","b"],"encoding_format":"float"})"));
  EXPECT_EQ(vectors.json()["data"][1]["embedding"][0], 1.0);
}

TEST_F(HttpTest, AkiDbRoute) {
  const Answer answer = Ask(Post("/api/v1/embed", R"({"texts":["a","b"],"model":"x"})"));
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json()["model"], "x");
  EXPECT_EQ(answer.json()["dimension"], 2);
  EXPECT_EQ(Ask(Post("/api/v1/embed", R"({"texts":[]})")).json()["error"], "texts cannot be empty");
  EXPECT_EQ(Ask(Post("/api/v1/embed", "{}")).status, 422);
  EXPECT_EQ(Ask("POST /api/v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}").status, 415);
  const Answer busy = Ask(Post("/api/v1/embed", R"({"texts":["a"],"model":"busy"})"));
  EXPECT_EQ(busy.status, 503);
  EXPECT_THAT(busy.head, HasSubstr("retry-after: 2\r\n"));
}

TEST_F(HttpTest, CountTokens) {
  const Answer answer =
      Ask(Post("/v1/messages/count_tokens", R"({"model":"m","messages":[{"role":"user","content":"x"}]})"));
  EXPECT_EQ(answer.body, R"({"input_tokens":1})");
}

TEST_F(HttpTest, EmbeddingsTurnedOff) {
  options_.embedding_enabled = false;
  EXPECT_EQ(Ask(Post("/api/v1/embed", R"({"texts":["a"]})")).status, 404);
  EXPECT_EQ(Ask(Post("/v1/embeddings", R"({"model":"m","input":"a"})")).status, 404);
}

TEST_F(HttpTest, MetricsBothWays) {
  Ask(Message("any"));
  Ask(Message("busy"));
  const std::string text = Ask(Get("/metrics")).body;
  EXPECT_THAT(text,
              HasSubstr("akidb_http_requests_total{method=\"POST\",path=\"/v1/messages\",status_code=\"200\"} 1"));
  EXPECT_THAT(text, HasSubstr("pensieve_engine_running{model=\"tiny\"} 3"));
  EXPECT_THAT(text, HasSubstr("pensieve_requests_total{model=\"tiny\",outcome=\"done\"} 1"));
  const Answer json = Ask(Get("/metrics", "accept: application/json\r\n"));
  EXPECT_EQ(json.json()["total_requests"], 1);
}

// ---- errors ----

TEST_F(HttpTest, ErrorsInTheDialectsShape) {
  const Answer unknown = Ask(Get("/nothing"));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.json()["error"]["type"], "not_found_error");
  EXPECT_EQ(unknown.json()["type"], "error");
  EXPECT_EQ(Ask(Get("/v1/files")).json()["error"]["code"], "unknown_url");
  EXPECT_TRUE(Ask(Get("/api/v1/collections")).json()["error"].is_string());
  const Answer method = Ask(Get("/v1/messages"));
  EXPECT_EQ(method.status, 405);
  EXPECT_THAT(method.head, HasSubstr("allow: post, options\r\n"));
  EXPECT_EQ(method.json()["error"]["type"], "invalid_request_error");
  EXPECT_EQ(Ask("DELETE /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 405);
  EXPECT_EQ(Ask("BREW /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 405);
  EXPECT_EQ(Ask(Post("/v1/messages", "{")).status, 400);
  EXPECT_EQ(Ask(Post("/v1/messages", "")).status, 400);
  EXPECT_EQ(Ask(Post("/v1/messages", R"({"model":"m"})")).status, 400);
}

TEST_F(HttpTest, RefusalsCarryHints) {
  const Answer busy = Ask(Message("busy", true));
  EXPECT_EQ(busy.status, 529);
  EXPECT_EQ(busy.json()["error"]["type"], "overloaded_error");
  EXPECT_THAT(busy.head, HasSubstr("retry-after: 2\r\n"));
  EXPECT_EQ(Ask(ChatCompletion("busy")).status, 429);
  const Answer memory = Ask(Message("memory"));
  EXPECT_EQ(memory.status, 503);
  EXPECT_THAT(memory.head, HasSubstr("x-memory-status: safe\r\n"));
  EXPECT_THAT(memory.head, HasSubstr("x-available-memory-gb: 1.50\r\n"));
  EXPECT_EQ(Ask(Message("broken")).status, 500);
}

TEST_F(HttpTest, FailureWhileGenerating) {
  for (const bool stream : {true, false}) {
    Client client(port());
    client.Send(Message("hold", stream));
    const auto script = service_.NextScript();
    ASSERT_NE(script, nullptr);
    script->Text("half");
    script->Fail(Internal("the device is lost"));
    const Answer answer = client.Read();
    EXPECT_EQ(answer.status, stream ? 200 : 500);
    EXPECT_THAT(answer.body, HasSubstr("the device is lost"));
    EXPECT_EQ(answer.body.find("event: error") != std::string::npos, stream);
  }
}

TEST_F(HttpTest, Malformed) {
  const std::string host = "host: localhost\r\n";
  const std::vector<std::string> requests = {
      std::string("hello\r\n\r\n"),
      std::string("GET\r\n\r\n"),
      std::string("GET / HTTP/9.9\r\n\r\n"),
      std::string("\x16\x03\x01\x02\x00\x01\x00\x01", 8) + std::string(300, '\xab'),
      "GET / HTTP/1.1\r\n" + host + "no colon\r\n\r\n",
      "GET x HTTP/1.1\r\n" + host + "\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\n" + host + host + "\r\n",
      "POST /v1/messages HTTP/1.1\r\n" + host + "content-length: ten\r\n\r\n",
      "POST /v1/messages HTTP/1.1\r\n" + host + "content-length: 1\r\ncontent-length: 2\r\n\r\nab",
      "POST /v1/messages HTTP/1.1\r\n" + host + "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST /v1/messages HTTP/1.1\r\n" + host + "transfer-encoding: gzip\r\n\r\nx",
      "POST /v1/messages HTTP/1.1\r\n" + host + "transfer-encoding: chunked\r\n\r\nzz\r\n",
      "POST /v1/messages HTTP/1.1\r\n" + host + "transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\nx"};
  for (const std::string& bytes : requests) {
    const Answer answer = Ask(bytes);
    EXPECT_EQ(answer.status, 400) << bytes;
    EXPECT_EQ(answer.json()["error"]["type"], "invalid_request_error") << bytes;
  }
  EXPECT_EQ(Ask(Get("/health")).status, 200);
}

TEST_F(HttpTest, Limits) {
  options_.body_bytes_max = 1000;
  options_.head_bytes_max = 2000;
  EXPECT_EQ(Ask(Get("/", "x: " + std::string(5000, 'y') + "\r\n")).status, 431);
  EXPECT_EQ(Ask(Get("/" + std::string(5000, 'y'))).status, 431);
  const Answer announced = Ask("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n");
  EXPECT_EQ(announced.status, 413);
  EXPECT_EQ(announced.json()["error"]["type"], "request_too_large");
  const std::string chunk = "400\r\n" + std::string(0x400, ' ') + "\r\n";
  const Answer chunked = Ask(
      "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" + chunk + chunk);
  EXPECT_EQ(chunked.status, 413);
  EXPECT_TRUE(chunked.json()["error"].contains("code"));
  EXPECT_EQ(Ask("POST /api/v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999\r\n\r\n")
                .json()["error"]
                .is_string(),
            true);
  EXPECT_EQ(Ask(Message("any")).status, 200);
}

TEST_F(HttpTest, AClientThatSendsOnSeesTheRefusal) {
  options_.body_bytes_max = 1000;
  Client client(port());
  client.Send("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000\r\n\r\n");
  client.Send(std::string(3'000'000, ' '));
  EXPECT_EQ(client.Read().status, 413);
}

TEST_F(HttpTest, BodiesTogetherAreBounded) {
  options_.bodies_bytes_max = 100'000;
  const Answer large = Ask(Post("/v1/messages", std::string(200'000, ' ')));
  EXPECT_EQ(large.status, 529);
  EXPECT_EQ(Ask(Post("/v1/messages", std::string(90'000, ' '))).status, 400);
  EXPECT_EQ(Ask(Post("/v1/messages", std::string(90'000, ' '))).status, 400);
}

TEST_F(HttpTest, WhatBodiesBecomeWhenParsedIsBounded) {
  options_.bodies_bytes_max = 1'000'000;
  std::string lists = "[";
  while (lists.size() < 90'000) lists += "[],";
  const Answer refused = Ask(Post("/v1/messages", lists + "0]"));
  EXPECT_EQ(refused.status, 413);
  EXPECT_THAT(refused.body, HasSubstr("bytes of memory"));
  // The same in a string may be parsed later: arguments of a tool call are.
  EXPECT_EQ(Ask(Post("/v1/messages", "\"" + lists + "\"")).status, 413);
  // Prose of that length is fine, also time after time.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Ask(Post("/v1/messages", std::string(90'000, ' ') + MessageBody("any"))).status, 200);
  EXPECT_EQ(Ask(Post("/v1/messages", lists)).status, 413);
}

TEST_F(HttpTest, CountlessValuesAreRefusedBeforeTheyAreBuilt) {
  std::string lists = "[";
  while (lists.size() < 2'000'000) lists += "[],";
  const Answer answer = Ask(Post("/v1/chat/completions", lists + "0]"));
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, HasSubstr("values and keys"));
  EXPECT_EQ(Ask(Post("/api/v1/embed", lists + "0]")).status, 400);
}

TEST_F(HttpTest, AnExceptionOnAWorkerIsThatRequestsError) {
  const Answer message = Ask(Message("throws"));
  EXPECT_EQ(message.status, 500);
  EXPECT_EQ(message.json()["error"]["type"], "api_error");
  EXPECT_THAT(message.body, Not(HasSubstr("secret")));
  const Answer chat = Ask(ChatCompletion("throws", true));
  EXPECT_EQ(chat.status, 500);
  EXPECT_EQ(chat.json()["error"]["type"], "server_error");
  EXPECT_EQ(Ask(Post("/v1/embeddings", R"({"model":"throws","input":"x"})")).status, 500);
  EXPECT_EQ(Ask(Post("/api/v1/embed", R"({"model":"throws","texts":["x"]})")).status, 500);
  EXPECT_EQ(Ask(Post("/v1/messages/count_tokens", MessageBody("throws"))).status, 500);
  EXPECT_EQ(Ask(Message("any")).status, 200);
  bool logged = false;
  for (const Json& line : LogLines()) logged |= line.value("exception", "") == "a secret of the library";
  EXPECT_TRUE(logged);
}

TEST_F(HttpTest, AnExceptionOnAnIoThreadIsThatRequestsError) {
  service_.health_throws = true;
  EXPECT_EQ(Ask(Get("/health")).status, 500);
  EXPECT_EQ(Ask(Get("/v1/models")).status, 200);
  service_.health_throws = false;
  EXPECT_EQ(Ask(Get("/health")).status, 200);
}

TEST_F(HttpTest, AnExceptionWhileAnsweringEndsTheAnswer) {
  Client whole(port());
  whole.Send(Message("hold"));
  service_.NextScript()->BeBroken();
  EXPECT_EQ(whole.Read().status, 500);
  Client stream(port());
  stream.Send(Message("hold", true));
  const auto script = service_.NextScript();
  script->Text("so far");
  stream.ReadUntil("so far");
  script->BeBroken();
  EXPECT_THAT(stream.ReadUntil("0\r\n\r\n"), HasSubstr("event: error"));
  EXPECT_EQ(Ask(Message("any")).status, 200);
}

TEST_F(HttpTest, UnsupportedParts) {
  EXPECT_EQ(Ask(Post("/v1/messages", "xx", "content-encoding: gzip\r\n")).status, 400);
  EXPECT_EQ(Ask(Post("/v1/messages", MessageBody("any"), "content-encoding: identity\r\n")).status, 200);
  EXPECT_EQ(Ask(Post("/v1/messages", MessageBody("any"), "expect: the-spanish-inquisition\r\n")).status, 417);
  const std::string body = MessageBody("any");
  const std::string head = fmt::format("host: localhost\r\ncontent-length: {}\r\n", body.size());
  EXPECT_EQ(Ask("POST /v1/messages HTTP/1.1\r\n" + head + "content-type: multipart/form-data\r\n\r\n" + body).status,
            415);
  EXPECT_EQ(
      Ask("POST /v1/messages HTTP/1.1\r\n" + head + "content-type: application/x-www-form-urlencoded\r\n\r\n" + body)
          .status,
      200);
}

// ---- connections ----

TEST_F(HttpTest, SlowHeadAndSlowBody) {
  options_.request_timeout_ms = 500;
  EXPECT_EQ(Ask("GET /health HT").status, 408);
  const Answer body = Ask("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{");
  EXPECT_EQ(body.status, 408);
  EXPECT_EQ(body.json()["error"]["type"], "timeout_error");
  Client hesitant(port());
  hesitant.Send("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n");
  EXPECT_EQ(hesitant.Read().status, 100);
  EXPECT_EQ(hesitant.Read().status, 408);
  Client silent(port());
  EXPECT_EQ(silent.ReadToEnd(), "");
}

TEST_F(HttpTest, DribblingDoesNotExtendTheDeadline) {
  options_.request_timeout_ms = 200;
  Client client(port());
  std::jthread reader;
  bool refused = false;
  for (int i = 0; i < 3000 && !refused; ++i) {
    refused = !client.Send("x");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(refused);
}

TEST_F(HttpTest, IdleConnectionsEnd) {
  options_.idle_timeout_ms = 50;
  Client client(port());
  client.Send(Get("/health"));
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.ReadToEnd(), "");
  EXPECT_TRUE(WaitForConnections(0));
}

TEST_F(HttpTest, PipelinedRequestsInOrder) {
  Client client(port());
  client.Send(Get("/v1/models/org/tiny") + Message("any") + Get("/nothing") + Message("any", true) + Get("/ready"));
  EXPECT_EQ(client.Read().json()["id"], "org/tiny");
  EXPECT_EQ(client.Read().json()["type"], "message");
  EXPECT_EQ(client.Read().status, 404);
  EXPECT_THAT(client.Read().body, HasSubstr("message_stop"));
  EXPECT_EQ(client.Read().json()["status"], "ready");
}

TEST_F(HttpTest, PipelinedWhileGenerating) {
  Client client(port());
  client.Send(Message("hold"));
  const auto script = service_.NextScript();
  ASSERT_NE(script, nullptr);
  client.Send(Get("/ready") + Get("/health"));
  script->Text("answer");
  script->Done();
  EXPECT_EQ(client.Read().json()["content"][0]["text"], "answer");
  EXPECT_EQ(client.Read().json()["status"], "ready");
  EXPECT_EQ(client.Read().json()["status"], "healthy");
}

TEST_F(HttpTest, KeepAliveAfterErrors) {
  Client client(port());
  for (int i = 0; i < 3; ++i) {
    client.Send(Post("/nothing", "a body that nobody wants"));
    EXPECT_EQ(client.Read().status, 404);
    client.Send(Post("/v1/messages", "not json"));
    EXPECT_EQ(client.Read().status, 400);
  }
  client.Send(Message("any"));
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpTest, ChunkedBodyAndContinue) {
  const std::string body = MessageBody("any");
  std::string chunks;
  for (size_t i = 0; i < body.size(); i += 7)
    chunks += fmt::format("{:x};ext=1\r\n{}\r\n", body.substr(i, 7).size(), body.substr(i, 7));
  EXPECT_EQ(Ask("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" + chunks +
                "0\r\nt: x\r\n\r\n")
                .status,
            200);
  Client client(port());
  client.Send(
      fmt::format("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
                  body.size()));
  EXPECT_EQ(client.Read().status, 100);
  client.Send(body);
  EXPECT_EQ(client.Read().status, 200);
}

TEST_F(HttpTest, Http10) {
  Client plain(port());
  plain.Send("GET /health HTTP/1.0\r\n\r\n");
  EXPECT_THAT(plain.ReadToEnd(), StartsWith("HTTP/1.0 200"));
  Client stream(port());
  const std::string body = MessageBody("any", true);
  stream.Send(fmt::format("POST /v1/messages HTTP/1.0\r\ncontent-length: {}\r\n\r\n{}", body.size(), body));
  const std::string bytes = stream.ReadToEnd();
  EXPECT_THAT(bytes, Not(HasSubstr("transfer-encoding")));
  EXPECT_TRUE(bytes.ends_with("{\"type\":\"message_stop\"}\n\n"));
  Client kept(port());
  for (int i = 0; i < 2; ++i) {
    kept.Send("GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    EXPECT_THAT(kept.Read().head, HasSubstr("connection: keep-alive\r\n"));
  }
}

TEST_F(HttpTest, TooManyConnections) {
  options_.connections_max = 2;
  Client first(port());
  Client second(port());
  ASSERT_TRUE(WaitForConnections(2));
  const Answer refused = Ask(Get("/health"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.head, HasSubstr("retry-after: 1\r\n"));
  first.Close();
  second.Close();
  ASSERT_TRUE(WaitForConnections(0));
  EXPECT_EQ(Ask(Get("/health")).status, 200);
}

TEST_F(HttpTest, DisconnectCancels) {
  const std::string requests[] = {Message("hold", true), Message("hold"), ChatCompletion("hold", true),
                                  Post("/v1/embeddings", R"({"model":"hold","input":"a"})"),
                                  Post("/api/v1/embed", R"({"model":"hold","texts":["a"]})")};
  for (const std::string& request : requests) {
    Client client(port());
    client.Send(request);
    const auto script = service_.NextScript();
    ASSERT_NE(script, nullptr);
    client.Close();
    EXPECT_TRUE(script->WaitCancelled()) << request;
  }
  EXPECT_TRUE(WaitForConnections(0));
  for (const Json& line : LogLines()) EXPECT_EQ(line["outcome"], "cancelled");
}

TEST_F(HttpTest, SlowReaderIsBoundedThenCutOff) {
  options_.write_timeout_ms = 200;
  Client client(port(), 4096);
  client.Send(Message("endless", true));
  const auto script = service_.NextScript();
  ASSERT_NE(script, nullptr);
  EXPECT_TRUE(script->WaitCancelled());
  // What was taken fills the two socket buffers and one write; the generation never ran ahead of that.
  EXPECT_LT(script->taken(), 1000);
}

// A byte now and then keeps the write timeout away, and would hold a sequence for ever.
TEST_F(HttpTest, AReaderThatNeverKeepsUpIsCutOff) {
  options_.write_timeout_ms = 3'600'000;
  options_.stall_timeout_ms = 300;
  Client client(port(), 4096);
  client.Send(Message("endless", true));
  const auto script = service_.NextScript();
  ASSERT_NE(script, nullptr);
  for (int i = 0; i < 60'000 && client.Receive(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(script->WaitCancelled());
}

TEST_F(HttpTest, PingsWhileNothingHappens) {
  options_.ping_interval_ms = 5;
  options_.claude_keep_alive_ms = 20;
  Client other(port());
  other.Send(Message("hold", true));
  const auto first = service_.NextScript();
  ASSERT_NE(first, nullptr);
  std::string seen;
  for (int i = 0; i < 20; ++i) seen += other.ReadUntil("event: ping");
  EXPECT_THAT(seen, Not(HasSubstr("message_delta")));
  Client claude(port());
  claude.Send(Message("hold", true, "user-agent: claude-cli/2.1.197 (external, cli)\r\n"));
  const auto second = service_.NextScript();
  ASSERT_NE(second, nullptr);
  EXPECT_THAT(claude.ReadUntil("event: message_delta"), HasSubstr("event: ping"));
  EXPECT_THAT(claude.ReadUntil("\n\n"), HasSubstr("\"stop_reason\":null"));
  second->Done();
  EXPECT_NE(claude.ReadUntil("event: message_stop"), "");
  Client openai(port());
  openai.Send(ChatCompletion("hold", true));
  const auto third = service_.NextScript();
  ASSERT_NE(third, nullptr);
  EXPECT_NE(openai.ReadUntil(": keep-alive\n\n"), "");
}

TEST_F(HttpTest, ManyStreamsAtOnce) {
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::shared_ptr<Script>> scripts;
  for (int i = 0; i < 32; ++i) {
    clients.push_back(std::make_unique<Client>(port()));
    clients.back()->Send(Message("hold", true));
    scripts.push_back(service_.NextScript());
    ASSERT_NE(scripts.back(), nullptr);
  }
  std::vector<std::jthread> feeders;
  for (int t = 0; t < 4; ++t)
    feeders.emplace_back([&scripts, t] {
      for (int n = 0; n < 50; ++n)
        for (size_t i = static_cast<size_t>(t); i < scripts.size(); i += 4) scripts[i]->Text(fmt::format("<{}>", n));
      for (size_t i = static_cast<size_t>(t); i < scripts.size(); i += 4) scripts[i]->Done();
    });
  for (auto& client : clients) {
    const Answer answer = client->Read();
    for (int n = 0; n < 50; ++n) EXPECT_THAT(answer.body, HasSubstr(fmt::format("\"<{}>\"", n)));
    EXPECT_TRUE(answer.body.ends_with("{\"type\":\"message_stop\"}\n\n"));
  }
}

// ---- who may ask ----

TEST_F(HttpTest, ApiKeys) {
  options_.api_keys = {"alpha", "beta"};
  EXPECT_EQ(Ask(Message("any", false, "x-api-key: alpha\r\n")).status, 200);
  EXPECT_EQ(Ask(Message("any", false, "authorization: Bearer beta\r\n")).status, 200);
  const Answer none = Ask(Message("any"));
  EXPECT_EQ(none.status, 401);
  EXPECT_EQ(none.json()["error"]["type"], "authentication_error");
  EXPECT_THAT(none.head, HasSubstr("www-authenticate: bearer\r\n"));
  EXPECT_EQ(Ask(Message("any", false, "x-api-key: alphabet\r\n")).status, 401);
  EXPECT_EQ(Ask(Get("/nothing")).status, 401);
  EXPECT_EQ(Ask(Get("/metrics")).status, 401);
  EXPECT_EQ(Ask(Post("/v1/embeddings", "{}")).json()["error"]["code"], "invalid_api_key");
  for (const char* open : {"/", "/health", "/ready"}) EXPECT_EQ(Ask(Get(open)).status, 200);
}

TEST_F(HttpTest, HostsAndOrigins) {
  options_.cors_origins = {"https://app.example"};
  const Answer rebound = Ask("GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n");
  EXPECT_EQ(rebound.status, 403);
  EXPECT_EQ(rebound.json()["error"]["type"], "permission_error");
  EXPECT_EQ(Ask("GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 403);
  const Answer allowed = Ask(Get("/v1/models", "origin: https://app.example\r\n"));
  EXPECT_THAT(allowed.head, HasSubstr("access-control-allow-origin: https://app.example\r\n"));
  EXPECT_THAT(allowed.head, HasSubstr("vary: origin\r\n"));
  const Answer foreign = Ask(Message("any", false, "origin: https://evil.example\r\n"));
  EXPECT_EQ(foreign.status, 403);
  EXPECT_THAT(foreign.head, Not(HasSubstr("access-control")));
  const std::string preflight =
      "OPTIONS /v1/messages HTTP/1.1\r\nhost: localhost\r\norigin: {}\r\naccess-control-request-method: POST\r\n"
      "access-control-request-headers: x-api-key, x-custom\r\n\r\n";
  const Answer yes = Ask(fmt::format(fmt::runtime(preflight), "https://app.example"));
  EXPECT_EQ(yes.status, 204);
  EXPECT_THAT(yes.head, HasSubstr("access-control-allow-headers: x-api-key, x-custom\r\n"));
  EXPECT_THAT(Ask(fmt::format(fmt::runtime(preflight), "https://evil.example")).head, Not(HasSubstr("access-control")));
  const Answer streamed = Ask(Message("any", true, "origin: https://app.example\r\n"));
  EXPECT_THAT(streamed.head, HasSubstr("access-control-allow-origin: https://app.example\r\n"));
}

// ---- start and end ----

TEST_F(HttpTest, PortInUse) {
  HttpOptions second = options_;
  second.port = port();
  const auto other = HttpServer::Start(second, {.service = service_, .logger = *logger_, .metrics = *metrics_});
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code(), StatusCode::kUnavailable);
  EXPECT_THAT(other.error().message(), HasSubstr("server.http_port"));
  EXPECT_THAT(other.error().message(), HasSubstr(fmt::format("{}", second.port)));
  second.host = "no such host";
  EXPECT_FALSE(HttpServer::Start(second, {.service = service_, .logger = *logger_, .metrics = *metrics_}).has_value());
  second.host = "192.0.2.1";
  EXPECT_FALSE(HttpServer::Start(second, {.service = service_, .logger = *logger_, .metrics = *metrics_}).has_value());
}

TEST_F(HttpTest, GracefulShutdownFinishesStreams) {
  Client idle(port());
  idle.Send(Get("/health"));
  EXPECT_EQ(idle.Read().status, 200);
  Client client(port());
  client.Send(Message("hold", true));
  const auto script = service_.NextScript();
  ASSERT_NE(script, nullptr);
  EXPECT_NE(client.ReadUntil("event: ping"), "");
  server_->StopAccepting();
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_FALSE(Client(port()).connected());
  std::jthread feeder([&] {
    script->Text("the end");
    script->Done();
  });
  EXPECT_TRUE(server_->Shutdown(60'000));
  const std::string rest = client.ReadToEnd();
  EXPECT_THAT(rest, HasSubstr("the end"));
  EXPECT_TRUE(rest.ends_with("0\r\n\r\n"));
}

TEST_F(HttpTest, WhatDoesNotFinishIsToldSo) {
  Client stream(port());
  stream.Send(Message("hold", true));
  const auto first = service_.NextScript();
  Client whole(port());
  whole.Send(ChatCompletion("hold"));
  const auto second = service_.NextScript();
  Client unread(port());
  unread.Send("POST /v1/messages HTTP/1.1\r\n");
  EXPECT_NE(stream.ReadUntil("event: ping"), "");
  EXPECT_FALSE(server_->Shutdown(10));
  EXPECT_TRUE(first->WaitCancelled());
  EXPECT_TRUE(second->WaitCancelled());
  EXPECT_THAT(stream.ReadToEnd(), HasSubstr("event: error"));
  EXPECT_EQ(whole.Read().status, 503);
  EXPECT_FALSE(server_->Shutdown(10));
}

TEST_F(HttpTest, OneLogLineARequestAndNoPrompt) {
  Ask(Post("/v1/messages", MessageBody("any", true, "a secret question")));
  Ask(Get("/nothing"));
  Ask(Get("/health"));
  const auto lines = LogLines();
  ASSERT_EQ(lines.size(), 2u);
  // An answer's line is written when its last byte is out, which the next request may overtake.
  const size_t first = lines[0]["route"] == "/v1/messages" ? 0 : 1;
  const auto& answered = lines[first];
  const auto& unmatched = lines[1 - first];
  EXPECT_EQ(answered["message"], "request");
  EXPECT_EQ(answered["route"], "/v1/messages");
  EXPECT_EQ(answered["model"], "tiny");
  EXPECT_EQ(answered["tokens_in"], 7);
  EXPECT_EQ(answered["tokens_out"], 3);
  EXPECT_EQ(answered["ttft_ms"], 250.0);
  EXPECT_EQ(answered["tokens_per_s"], 2.0);
  EXPECT_EQ(answered["outcome"], "done");
  EXPECT_EQ(unmatched["route"], "unmatched");
  EXPECT_EQ(unmatched["status"], 404);
  EXPECT_THAT(log_.str(), Not(HasSubstr("secret")));
}

TEST_F(HttpTest, PromptsAreLoggedWhenAskedFor) {
  options_.log_prompts = true;
  Ask(Post("/v1/messages", MessageBody("any", false, "a question")));
  EXPECT_THAT(LogLines()[0]["body"].get<std::string>(), HasSubstr("a question"));
}

}  // namespace
}  // namespace pensieve::http
