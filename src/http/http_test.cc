// What the server answers: routes, dialects, errors, limits.
#include "http/server_fixture.h"

namespace pensieve::http {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

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
  service_.loading = service::LoadProgress{.model = "org/b",
                                           .step = "downloading",
                                           .models_loaded = 1,
                                           .models_total = 2,
                                           .done_bytes = 5,
                                           .total_bytes = 10};
  EXPECT_EQ(Ask(Get("/health")).status, 200);
  const Answer ready = Ask(Get("/ready"));
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.json()["status"], "not_ready");
  EXPECT_EQ(ready.json()["loading"], (Json{{"model", "org/b"},
                                           {"step", "downloading"},
                                           {"models_loaded", 1},
                                           {"models_total", 2},
                                           {"done_bytes", 5},
                                           {"total_bytes", 10}}));
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

TEST_F(HttpTest, AChunkedBodyTakesTheRoomOfWhatHasCome) {
  options_.body_bytes_max = 10'000'000;
  options_.bodies_bytes_max = 1'000'000;
  const std::string head =
      "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
      "transfer-encoding: chunked\r\n\r\n";
  const auto chunks = [](int count) {
    std::string body;
    for (int i = 0; i < count; ++i) body += "10000\r\n" + std::string(0x10000, ' ') + "\r\n";
    return body;
  };
  EXPECT_EQ(Ask(head + chunks(4) + "0\r\n\r\n").status, 400);  // read whole, and no JSON
  for (int i = 0; i < 2; ++i) {
    Client client(port());
    client.Send(head + chunks(40));
    EXPECT_EQ(client.Read().status, 529);
  }
  EXPECT_EQ(Ask(head + chunks(4) + "0\r\n\r\n").status, 400);  // what was refused holds no room
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
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(Ask(Post("/v1/messages", std::string(90'000, ' ') + MessageBody("any"))).status, 200);
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

}  // namespace
}  // namespace pensieve::http
