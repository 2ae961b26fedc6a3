#include <gtest/gtest.h>

#include "api/pensieve1/dialect.h"

namespace pensieve::api::pensieve1 {
namespace {

using Kind = service::GenerationEvent::Kind;

TEST(PensieveGenerate, DefaultsAndLimits) {
  const auto request = FromGenerate({{"prompt", "p"}}, "r");
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->completion.prompt, "p");
  EXPECT_EQ(request->completion.new_tokens_max, 100);
  EXPECT_EQ(request->completion.sampling.temperature, 0.7f);
  EXPECT_FALSE(request->stream);
  const Json bad[] = {Json::object(),
                      {{"prompt", 1}},
                      {{"prompt", "p"}, {"max_tokens", 2049}},
                      {{"prompt", "p"}, {"temperature", 2.1}},
                      {{"prompt", "p"}, {"stream", "yes"}},
                      Json::array()};
  for (const Json& body : bad) {
    const auto refused = FromGenerate(body, "r");
    ASSERT_FALSE(refused.has_value()) << DumpJson(body);
    EXPECT_EQ(HttpStatus(refused.error(), kDialect.errors), 422);
    EXPECT_TRUE(ErrorBody(refused.error(), kDialect.errors, "")["detail"].is_string());
  }
}

TEST(PensieveGenerate, WholeAndLines) {
  service::GenerationEvent text;
  text.text = "hi";
  service::GenerationEvent done;
  done.kind = Kind::kDone;
  done.usage = {.completion_tokens = 3, .total_s = 1.5};
  GenerateFormat format("safe");
  format.Add(0, text);
  format.Add(0, done);
  EXPECT_EQ(format.Finish(), *ParseJson(R"({"text":"hi","tokens":3,"elapsed_seconds":1.5,"tokens_per_second":2.0,
    "memory_status":"safe"})"));
  EXPECT_EQ(format.Write(0, text), "{\"type\":\"chunk\",\"text\":\"hi\"}\n");
  EXPECT_EQ(format.Write(0, done), "{\"type\":\"complete\"}\n");
  service::GenerationEvent failed;
  failed.kind = Kind::kError;
  failed.error = Internal("lost");
  EXPECT_EQ(format.Write(0, failed), "{\"type\":\"error\",\"error\":\"lost\"}\n");
}

}  // namespace
}  // namespace pensieve::api::pensieve1
