// The small grammars and guards, without a socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/constant_time.h"
#include "http/guard.h"
#include "http/request.h"
#include "http/response.h"
#include "http/routes.h"

namespace pensieve::http {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Request WithHost(const std::string& host) {
  Request request;
  request.host = host;
  request.headers = {{"host", host}};
  return request;
}

TEST(Target, Forms) {
  Request request;
  ASSERT_TRUE(ParseTarget("/v1/messages?beta=true", request));
  EXPECT_EQ(request.path, "/v1/messages");
  EXPECT_EQ(request.query, "beta=true");
  ASSERT_TRUE(ParseTarget("/v1/v1/v1/models/", request));
  EXPECT_EQ(request.path, "/v1/models");
  ASSERT_TRUE(ParseTarget("HTTP://Other:8/x", request));
  EXPECT_EQ(request.path, "/x");
  EXPECT_EQ(request.host, "Other:8");
  ASSERT_TRUE(ParseTarget("http://h?q", request));
  EXPECT_EQ(request.path, "/");
  ASSERT_TRUE(ParseTarget("*", request));
  EXPECT_FALSE(ParseTarget("x", request));
  EXPECT_FALSE(ParseTarget("ftp://h/", request));
}

TEST(Percent, Decoding) {
  EXPECT_EQ(api::PercentDecode("a%2Fb+c", false), "a/b+c");
  EXPECT_EQ(api::PercentDecode("a+b", true), "a b");
  for (const char* bad : {"%", "%2", "%zz", "%00", "a%"})
    EXPECT_EQ(api::PercentDecode(bad, false), std::nullopt) << bad;
  EXPECT_EQ(api::QueryParameter("a=1&limit=20&limit=3", "limit"), "20");
  EXPECT_EQ(api::QueryParameter("li%6Dit=5", "limit"), "5");
  EXPECT_EQ(api::QueryParameter("limit", "limit"), "");
  EXPECT_EQ(api::QueryParameter("&&=&x", "limit"), std::nullopt);
}

TEST(Host, Names) {
  EXPECT_EQ(HostName("LocalHost:80"), "localhost");
  EXPECT_EQ(HostName("[::1]:80"), "::1");
  EXPECT_EQ(HostName("a.example."), "a.example");
  for (const char* bad : {"", ":80", "[::1", "a:b", "a b", "user@localhost", "localhost/x", "[::1]x", "[evil.example]"})
    EXPECT_EQ(HostName(bad), std::nullopt) << bad;
}

TEST(Host, LoopbackServersAnswerToLocalNamesOnly) {
  HttpOptions options;
  for (const char* host : {"localhost", "localhost:1", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "web.localhost"})
    EXPECT_TRUE(CheckHostAndOrigin(WithHost(host), options).ok()) << host;
  for (const char* host :
       {"evil.example", "127.0.0.1.evil.example", "127.evil.example", "localhost.evil.example", "10.0.0.1"})
    EXPECT_EQ(CheckHostAndOrigin(WithHost(host), options).code(), StatusCode::kPermissionDenied) << host;
  EXPECT_EQ(CheckHostAndOrigin(WithHost(""), options).code(), StatusCode::kInvalidArgument);
  options.allowed_hosts = {"box.example"};
  EXPECT_TRUE(CheckHostAndOrigin(WithHost("BOX.example:8080"), options).ok());
  Request twice = WithHost("localhost");
  twice.headers.emplace_back("host", "localhost");
  EXPECT_FALSE(CheckHostAndOrigin(twice, options).ok());
}

TEST(Host, OtherServersAnswerToAddressesAndAllowedNamesUnlessTheyHaveKeys) {
  HttpOptions options;
  options.host = "0.0.0.0";
  for (const char* host : {"192.168.1.5:8080", "[2001:db8::1]:8080", "localhost", "127.0.0.1"})
    EXPECT_TRUE(CheckHostAndOrigin(WithHost(host), options).ok()) << host;
  // Names that look like addresses are names, and so are the short forms that browsers read as addresses.
  for (const char* host : {"evil.example", "10.0.0.1.evil.example", "10.0.0.256", "1.2.3", "gpu-box", "gpu-box.local"})
    EXPECT_EQ(CheckHostAndOrigin(WithHost(host), options).code(), StatusCode::kPermissionDenied) << host;
  options.allowed_hosts = {"gpu-box"};
  EXPECT_TRUE(CheckHostAndOrigin(WithHost("GPU-box:8080"), options).ok());
  options.allowed_hosts = {};
  options.api_keys = {"k"};
  EXPECT_TRUE(CheckHostAndOrigin(WithHost("gpu-box"), options).ok());
}

TEST(Origin, OnlyConfiguredOnesAndTheServerItself) {
  HttpOptions options;
  Request request = WithHost("localhost:8080");
  request.headers.emplace_back("origin", "http://localhost:8080");
  EXPECT_TRUE(CheckHostAndOrigin(request, options).ok());
  EXPECT_THAT(CorsHeaders(request, options, false), IsEmpty());
  for (const char* origin : {"https://app.example", "null", "http://localhost:3000", "http://localhost"}) {
    request.headers.back().second = origin;
    options.cors_origins = {};
    EXPECT_FALSE(CheckHostAndOrigin(request, options).ok()) << origin;
    options.cors_origins = {origin};
    EXPECT_TRUE(CheckHostAndOrigin(request, options).ok()) << origin;
    EXPECT_EQ(CorsHeaders(request, options, false).front().second, origin);
    options.cors_origins = {"*"};
    EXPECT_TRUE(CheckHostAndOrigin(request, options).ok()) << origin;
  }
}

TEST(ApiKey, EitherHeader) {
  Request request;
  EXPECT_EQ(*CheckApiKey(request, {}), 0u);
  EXPECT_EQ(CheckApiKey(request, {"k1"}).error().code(), StatusCode::kUnauthenticated);
  request.headers = {{"x-api-key", "k2"}};
  EXPECT_EQ(*CheckApiKey(request, {"k1", "k2"}), 2u);
  request.headers = {{"authorization", "bearer k1"}};
  EXPECT_EQ(*CheckApiKey(request, {"k1", "k2"}), 1u);
  for (const char* wrong : {"k", "k11", "K1", ""}) {
    request.headers = {{"x-api-key", wrong}};
    EXPECT_FALSE(CheckApiKey(request, {"k1", "k2"}).has_value()) << wrong;
  }
  request.headers = {{"authorization", "Basic k1"}};
  EXPECT_FALSE(CheckApiKey(request, {"k1"}).has_value());
  EXPECT_TRUE(EqualInConstantTime("", ""));
  EXPECT_FALSE(EqualInConstantTime("a", ""));
}

TEST(Routes, DialectsOfPrefixes) {
  const auto dialect = [](const std::string& path, bool anthropic) {
    Request request;
    request.path = path;
    if (anthropic) request.headers = {{"anthropic-version", "2023-06-01"}};
    return std::string(MatchRoute(request).dialect->name);
  };
  EXPECT_EQ(dialect("/v1/files", true), "anthropic");
  EXPECT_EQ(dialect("/v1/files", false), "openai");
  EXPECT_EQ(dialect("/v1/messages/batches", false), "anthropic");
  EXPECT_EQ(dialect("/api/v1/collections", false), "akidb");
  EXPECT_EQ(dialect("/nothing", false), "anthropic");
  Request request;
  request.path = "/v1/models/org/tiny";
  for (const char* wrong : {"POST", "GE", ""}) {
    request.method = wrong;
    EXPECT_TRUE(MatchRoute(request).known()) << wrong;
    EXPECT_FALSE(MatchRoute(request).found()) << wrong;
  }
  request.method = "GET";
  const Route route = MatchRoute(request);
  EXPECT_TRUE(route.found());
  EXPECT_EQ(route.parameter, "org/tiny");
  EXPECT_EQ(route.allow, "GET, HEAD, OPTIONS");
}

TEST(Response, HeadersCannotBeSplit) {
  api::HttpReply reply;
  reply.body = "body";
  reply.headers = {{"x", "a\r\nset-cookie: b"}};
  const std::string bytes = FormatReply(reply, {.request_id = "req_1", .headers = {}});
  EXPECT_THAT(bytes, HasSubstr("x: aset-cookie: b\r\n"));
  EXPECT_THAT(bytes, HasSubstr("content-length: 4\r\n\r\nbody"));
  EXPECT_THAT(FormatReply(reply, {.head_only = true, .request_id = "", .headers = {}}), Not(HasSubstr("body")));
  EXPECT_EQ(FormatChunk(""), "");
  EXPECT_EQ(FormatChunk("0123456789abcdef"), "10\r\n0123456789abcdef\r\n");
}

}  // namespace
}  // namespace pensieve::http
