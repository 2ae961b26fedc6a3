// How the server behaves over time: slow clients, many of them, keys and hosts, its end and its log.
#include "http/server_fixture.h"

namespace pensieve::http {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

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
