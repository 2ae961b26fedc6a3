#include "api/akidb/embed.h"

#include <gtest/gtest.h>

#include "api/akidb/dialect.h"

namespace pensieve::api::akidb {
namespace {

Result<EmbedCall> Call(std::string_view body) {
  PENSIEVE_TRY(EmbedFields fields, ParseEmbedBody(body));
  return FromEmbedFields(std::move(fields), "req_1");
}

TEST(AkiDbEmbed, Defaults) {
  const auto call = Call(R"({"texts":["Hello world","Machine learning"],"unknown":{"x":1}})");
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(call->model, "qwen3-0.6b-4bit");
  EXPECT_EQ(call->request.pooling, service::PoolingChoice::kMeanForDecoders);
  EXPECT_EQ(call->request.normalize, true);
  EXPECT_TRUE(call->request.truncate);
  EXPECT_TRUE(call->request.any_model);
  EXPECT_EQ(call->request.tokens_max, 512);
  EXPECT_EQ(call->total_tokens_estimate, 2 + 4);
}

TEST(AkiDbEmbed, EstimateCountsBytesAndAtLeastOneEach) {
  EXPECT_EQ(Call(R"({"texts":["",""]})")->total_tokens_estimate, 2);
  EXPECT_EQ(Call(R"({"texts":["éééé"]})")->total_tokens_estimate, 2);  // 8 bytes
}

TEST(AkiDbEmbed, OptionsAreHonoured) {
  const auto call = Call(R"({"texts":["a"],"model":"any \"name\"","pooling":"last","normalize":false})");
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(call->model, "any \"name\"");
  EXPECT_EQ(call->request.pooling, service::PoolingChoice::kLast);
  EXPECT_EQ(call->request.normalize, false);
}

TEST(AkiDbEmbed, BadRequests) {
  std::string many = R"({"texts":[)";
  for (int i = 0; i < 33; ++i) many += i == 0 ? "\"a\"" : ",\"a\"";
  const std::pair<std::string, int> cases[] = {
      {R"({"texts":[]})", 400},
      {many + "]}", 400},
      {R"({"texts":["a"],"pooling":"best"})", 400},
      {"{", 400},
      {"", 400},
      {R"({"texts":["a"]} x)", 400},
      {"[]", 422},
      {"{}", 422},
      {R"({"texts":"a"})", 422},
      {R"({"texts":[1]})", 422},
      {R"({"texts":null})", 422},
      {R"({"texts":["a"],"model":null})", 422},
      {R"({"texts":["a"],"pooling":null})", 422},
      {R"({"texts":["a"],"normalize":null})", 422},
      {R"({"texts":["a"],"normalize":1})", 422},
      {R"({"inputs":["a"]})", 422},
  };
  for (const auto& [body, http_status] : cases) {
    const auto call = Call(body);
    ASSERT_FALSE(call.has_value()) << body;
    const HttpReply reply = ErrorReply(call.error(), kDialect.errors, {});
    EXPECT_EQ(reply.status, http_status) << body;
    EXPECT_TRUE(ParseJson(reply.body)->at("error").is_string());
  }
  EXPECT_EQ(Call(R"({"texts":[]})").error().message(), "texts cannot be empty");
  EXPECT_EQ(Call(many + "]}").error().message(), "Maximum 32 texts per request");
}

TEST(AkiDbEmbed, ReplyHasTheContractsFieldOrder) {
  const auto call = Call(R"({"texts":["a","b"],"model":"m"})");
  service::EmbedResult result;
  result.dimension = 2;
  result.embeddings = {{0.5f, -1.0f}, {0.25f, 3e-9f}};
  result.total_s = 0.0129;
  EXPECT_EQ(
      ToEmbedReply(result, *call).body,
      R"({"embeddings":[[0.5,-1],[0.25,3e-09]],"model":"m","dimension":2,"usage":{"total_tokens":2,"duration_ms":12}})");
}

}  // namespace
}  // namespace pensieve::api::akidb
