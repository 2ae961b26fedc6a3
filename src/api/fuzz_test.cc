// Random changes of valid requests: every body either translates or is refused with a 4xx in the dialect's own shape.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "api/akidb/dialect.h"
#include "api/akidb/embed.h"
#include "api/anthropic/dialect.h"
#include "api/anthropic/messages_request.h"
#include "api/openai/dialect.h"
#include "api/openai/requests.h"
#include "base/mapped_file.h"

namespace pensieve::api {
namespace {

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  size_t Below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  // Replaces, removes or duplicates one value somewhere below `json`.
  void Change(Json& json) {
    const bool deeper = json.is_structured() && !json.empty() && Below(4) != 0;
    if (!deeper) {
      json = RandomValue();
      return;
    }
    auto it = json.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(Below(json.size())));
    switch (Below(12)) {
      case 0: json.erase(it); return;
      case 1:
        if (json.is_array()) json.push_back(Json(*it));
        else json[RandomKey()] = Json(*it);
        return;
      default: Change(*it); return;
    }
  }

 private:
  Json RandomValue() {
    switch (Below(12)) {
      case 0: return nullptr;
      case 1: return true;
      case 2: return -1;
      case 3: return INT64_MAX;
      case 4: return UINT64_MAX;
      case 5: return 1e308;
      case 6: return "";
      case 7: return Json::array();
      case 8: return Json::object();
      case 9: return std::string(300, 'x');
      case 10: return Json::array({Json::object(), "text", 1});
      default: return RandomKey();
    }
  }
  std::string RandomKey() {
    static const char* const kWords[] = {"type",
                                         "text",
                                         "role",
                                         "content",
                                         "tool_use",
                                         "tool_result",
                                         "thinking",
                                         "image",
                                         "document",
                                         "source",
                                         "name",
                                         "input",
                                         "system",
                                         "assistant",
                                         "function",
                                         "id",
                                         "tool_reference",
                                         "tool_addition",
                                         "web_search_tool_result",
                                         "auto",
                                         "\xF0\x9F\x98\x80"};
    return kWords[Below(std::size(kWords))];
  }

  std::mt19937 random_;
};

void ExpectRefusal(const Status& status, const Dialect& dialect, const Json& body) {
  const HttpReply reply = ErrorReply(status, dialect.errors, {.request_id = "req_1"});
  EXPECT_TRUE(reply.status >= 400 && reply.status < 500) << status.ToString() << "\n" << DumpJson(body);
  const auto json = ParseJson(reply.body);
  ASSERT_TRUE(json.has_value());
  const Json& error = json->at("error");
  EXPECT_TRUE(&dialect == &akidb::kDialect ? error.is_string()
                                           : error.at("message").is_string() && error.at("type").is_string());
}

using Translate = std::function<Status(const Json&)>;

void Mutate(const Json& valid, const Dialect& dialect, const Translate& translate) {
  ASSERT_TRUE(translate(valid).ok()) << translate(valid).ToString();
  Mutator mutator(20261123);
  for (int round = 0; round < 4000; ++round) {
    Json body = valid;
    for (size_t changes = 1 + mutator.Below(4); changes > 0; --changes) mutator.Change(body);
    const Status status = translate(body);
    if (!status.ok()) ExpectRefusal(status, dialect, body);
  }
}

TEST(Mutations, AnthropicMessages) {
  const auto text = ReadFile(PENSIEVE_SOURCE_DIR "/src/api/testdata/claude_code_turn.json", 1 << 20);
  ASSERT_TRUE(text.has_value());
  Mutate(*ParseJson(*text), anthropic::kDialect,
         [](const Json& body) { return anthropic::FromMessagesRequest(body, {}).status(); });
}

TEST(Mutations, OpenAiChat) {
  const Json valid = *ParseJson(R"json({"model":"m","messages":[{"role":"system","content":"s"},
    {"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"u"}}]},
    {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"1","content":"42"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],
    "tool_choice":{"type":"function","function":{"name":"f"}},"stop":["a"],"logit_bias":{"1":2},"stream_options":{},
    "response_format":{"type":"json_schema","json_schema":{"schema":{}}},"temperature":1,"max_tokens":5})json");
  Mutate(valid, openai::kDialect, [](const Json& body) { return openai::FromChatCompletion(body, "").status(); });
}

TEST(Mutations, OpenAiTextRequests) {
  Mutate({{"model", "m"}, {"input", {"a", "b"}}, {"dimensions", 3}, {"encoding_format", "float"}}, openai::kDialect,
         [](const Json& body) { return openai::FromEmbeddings(body, "").status(); });
  Mutate({{"model", "m"}, {"prompt", {1, 2, 3}}, {"logprobs", 3}, {"stop", "x"}}, openai::kDialect,
         [](const Json& body) { return openai::FromCompletion(body, "").status(); });
}

TEST(Mutations, AkiDbEmbed) {
  Mutate({{"texts", {"a", "b"}}, {"model", "m"}, {"pooling", "mean"}, {"normalize", true}}, akidb::kDialect,
         [](const Json& body) -> Status {
           auto fields = akidb::ParseEmbedBody(DumpJson(body));
           if (!fields.has_value()) return fields.error();
           return akidb::FromEmbedFields(*std::move(fields), "").status();
         });
}

TEST(Mutations, BrokenBytes) {
  const std::string valid = R"({"texts":["a\u00e9"],"model":"m"})";
  Mutator mutator(7);
  for (int round = 0; round < 4000; ++round) {
    std::string body = valid;
    for (int changes = 0; changes < 3; ++changes)
      body[mutator.Below(body.size())] = static_cast<char>(mutator.Below(256));
    const auto fields = akidb::ParseEmbedBody(body);
    if (!fields.has_value()) ExpectRefusal(fields.error(), akidb::kDialect, nullptr);
  }
}

// Reading it would cost a comparison for each pair of keys: hours for a body of 32 MB.
TEST(Mutations, AnObjectOfCountlessKeysIsRefused) {
  std::string body = "{";
  for (int i = 0; i < 30'000; ++i) body += fmt::format("\"{}\":0,", i);
  body += "\"texts\":[\"a\"]}";
  const auto fields = akidb::ParseEmbedBody(body);
  ASSERT_FALSE(fields.has_value());
  ExpectRefusal(fields.error(), akidb::kDialect, nullptr);
  std::string small = "[";
  for (int i = 0; i < 30'000; ++i) small += "{\"a\":0,\"b\":1},";
  EXPECT_TRUE(ParseJson(small + "0]").has_value());
}

}  // namespace
}  // namespace pensieve::api
