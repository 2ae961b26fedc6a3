#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "api/number_text.h"
#include "api/openai/dialect.h"
#include "api/openai/requests.h"
#include "api/openai/responses.h"

namespace pensieve::api::openai {
namespace {

using service::GenerationEvent;
using Kind = GenerationEvent::Kind;

Json Chat(const char* extra = "{}") {
  Json body = {{"model", "m"}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body.update(*ParseJson(extra));
  return body;
}

ChatCompletionRequest Translate(const Json& body) {
  auto request = FromChatCompletion(body, "req_1");
  EXPECT_TRUE(request.has_value()) << request.status().ToString();
  return request.has_value() ? *std::move(request) : ChatCompletionRequest{};
}

TEST(OpenAiChat, MessagesOfEveryRole) {
  const auto request = Translate(Chat(R"json({"messages":[
    {"role":"developer","content":[{"type":"text","text":"Be kind."}]},
    {"role":"user","name":"Ann","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]},
    {"role":"assistant","content":null,"reasoning_content":"hm","refusal":null,"tool_calls":[
      {"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},
      {"id":"call_2","type":"custom","custom":{"name":"c","input":"i"}}]},
    {"role":"tool","tool_call_id":"call_1","content":"42"}]})json"));
  EXPECT_EQ(request.chat.messages, *ParseJson(R"json([
    {"role":"system","content":"Be kind."},
    {"role":"user","content":"look\n[an image that cannot be seen here]","name":"Ann"},
    {"role":"assistant","content":"","reasoning_content":"hm","tool_calls":[
      {"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
    {"role":"tool","content":"42","tool_call_id":"call_1"}])json"))
      << DumpJson(request.chat.messages);
  EXPECT_FALSE(request.chat.any_model);
}

TEST(OpenAiChat, OptionsAreRead) {
  const auto request = Translate(Chat(R"json({
    "max_tokens":5,"max_completion_tokens":7,"temperature":1.5,"top_p":0.5,"top_k":-1,"min_p":0.1,"presence_penalty":-2,
    "frequency_penalty":2,"repeat_penalty":1.1,"seed":-3,"stop":"END","logit_bias":{"15":-100,"7":2.5},"logprobs":true,
    "top_logprobs":3,"stream":true,"stream_options":{"include_usage":true},"n":1,"user":"u","parallel_tool_calls":false,
    "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},
             {"type":"custom","custom":{"name":"c"}},{"type":"function","function":{"name":"g"}}],
    "tool_choice":{"type":"function","function":{"name":"f"}},"reasoning_effort":"low",
    "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"array"},"strict":true}},
    "chat_template_kwargs":{"enable_thinking":false},"web_search_options":{},"modalities":["text"]})json"));
  const auto& chat = request.chat;
  EXPECT_EQ(chat.new_tokens_max, 7);
  EXPECT_EQ(chat.sampling.temperature, 1.5f);
  EXPECT_EQ(chat.sampling.top_k, 0);
  EXPECT_EQ(chat.sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(chat.sampling.seed, static_cast<uint64_t>(-3));
  EXPECT_THAT(chat.stop_sequences, testing::ElementsAre("END"));
  EXPECT_THAT(chat.sampling.logit_bias, testing::ElementsAre(testing::Pair(15, -100.0f), testing::Pair(7, 2.5f)));
  EXPECT_TRUE(chat.sampling.logprobs);
  EXPECT_EQ(chat.sampling.top_logprobs, 3);
  EXPECT_TRUE(request.stream.stream && request.stream.include_usage);
  EXPECT_EQ(chat.tools.size(), 2u);
  EXPECT_EQ(chat.tool_choice, service::ToolChoice::kNamed);
  EXPECT_EQ(chat.tool_choice_name, "f");
  EXPECT_FALSE(chat.parallel_tool_calls);
  EXPECT_EQ(chat.effort, "low");
  EXPECT_EQ(chat.output_schema, (Json{{"type", "array"}}));
  EXPECT_THAT(chat.strict_tools, testing::ElementsAre("f"));
  EXPECT_EQ(chat.template_context, (Json{{"enable_thinking", false}}));
}

TEST(OpenAiChat, FormsOfAnAnswer) {
  const auto format = [](const std::string& text) {
    return Translate(Chat((R"({"response_format":)" + text + "}").c_str())).chat;
  };
  EXPECT_EQ(format(R"({"type":"regex","pattern":"a+"})").output_regex, "a+");
  EXPECT_EQ(format(R"({"type":"grammar","grammar":"root ::= \"a\""})").output_grammar, "root ::= \"a\"");
  EXPECT_EQ(format(R"({"type":"json_object"})").output_schema, (Json{{"type", "object"}}));
  EXPECT_EQ(format(R"({"type":"json_object","schema":{"const":1}})").output_schema, (Json{{"const", 1}}));
  EXPECT_TRUE(format(R"({"type":"text"})").output_schema.is_null());
}

TEST(OpenAiChat, OlderFunctionsAndReasoningNone) {
  const auto request = Translate(
      Chat(R"({"functions":[{"name":"f","parameters":{}}],"function_call":{"name":"f"},"reasoning_effort":"none"})"));
  EXPECT_EQ(request.chat.tools[0]["function"]["name"], "f");
  EXPECT_EQ(request.chat.tool_choice, service::ToolChoice::kNamed);
  EXPECT_EQ(request.chat.thinking, false);
}

TEST(OpenAiChat, MinusOneIsNoLimit) {
  EXPECT_EQ(Translate(Chat(R"({"max_tokens":-1})")).chat.new_tokens_max, INT64_MAX);
  EXPECT_EQ(Translate(Chat(R"({"max_completion_tokens":-1,"max_tokens":3})")).chat.new_tokens_max, INT64_MAX);
  EXPECT_EQ(Translate(Chat(R"({"max_tokens":null})")).chat.new_tokens_max, std::nullopt);
}

TEST(OpenAiChat, ToolChoicesThatAskForNothingNeedNoTools) {
  EXPECT_EQ(Translate(Chat(R"({"tool_choice":"auto"})")).chat.tool_choice, service::ToolChoice::kAuto);
  EXPECT_EQ(Translate(Chat(R"({"tool_choice":"none"})")).chat.tool_choice, service::ToolChoice::kNone);
  EXPECT_TRUE(Translate(Chat(R"({"response_format":{"type":"text"}})")).chat.output_schema.is_null());
}

TEST(OpenAiChat, ErrorsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model":null})", "model: Field required"},
      {R"({"messages":[]})", "messages: at least one message is required"},
      {R"({"messages":[{"role":"wizard","content":"x"}]})",
       "messages.0.role: must be one of system, developer, user, assistant, tool, function"},
      {R"({"messages":[{"role":"user","content":7}]})", "messages.0.content: must be a string or an array of parts"},
      {R"({"messages":[{"role":"user"}]})", "messages.0.content: Field required"},
      {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})", "messages.0.content.0.text: Field required"},
      {R"({"messages":[{"role":"tool","content":"x"}]})", "messages.0.tool_call_id: Field required"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"function":{}}]}]})",
       "messages.0.tool_calls.0.function.name: Field required"},
      {R"({"n":0})", "n: must be an integer from 1 to 128"},
      {R"({"stop":["a",2]})", "stop.1: must be a string"},
      {R"({"stop":""})", "stop: each must have 1 to 256 bytes"},
      {R"({"logit_bias":{"x":1}})", "logit_bias: keys must be token ids"},
      {R"({"logit_bias":{"1":101}})", "logit_bias: values must be numbers from -100 to 100"},
      {R"({"top_logprobs":2})", "top_logprobs: needs logprobs to be true"},
      {R"({"tools":[{"type":"function"}]})", "tools.0.function: Field required"},
      {R"({"tool_choice":"perhaps"})", "tool_choice: must be \"auto\", \"none\", \"required\" or an object"},
      {R"({"tool_choice":"required"})", "tool_choice: a call needs tools"},
      {R"({"tool_choice":"required","tools":[]})", "tool_choice: a call needs tools"},
      {R"({"tool_choice":{"function":{"name":"f"}}})", "tool_choice: a call needs tools"},
      {R"({"function_call":{"name":"f"}})", "tool_choice: a call needs tools"},
      {R"({"max_tokens":-2})", "max_tokens: must be at least -1"},
      {R"({"response_format":{"type":"json_schema"}})", "response_format.json_schema: Field required"},
      {R"({"response_format":{"type":"yaml"}})",
       "response_format.type: must be \"text\", \"json_object\", \"json_schema\", \"regex\" or \"grammar\""},
      {R"({"continue_final_message":true})", "continue_final_message: the last message must be an assistant message"},
      {R"({"stream_options":{"include_usage":1}})", "stream_options.include_usage: must be true or false"},
  };
  for (const auto& [changes, message] : cases) {
    const auto request = FromChatCompletion(Chat(changes), "");
    ASSERT_FALSE(request.has_value()) << changes;
    EXPECT_EQ(request.error().message(), message);
  }
}

GenerationEvent Piece(Kind kind, std::string text) {
  GenerationEvent event;
  event.kind = kind;
  event.text = std::move(text);
  return event;
}

std::vector<GenerationEvent> ToolAnswer() {
  GenerationEvent start;
  start.kind = Kind::kToolCallStart;
  start.call_id = "1";
  start.tool_name = "f";
  GenerationEvent done;
  done.kind = Kind::kDone;
  done.stop_reason = service::StopReason::kToolUse;
  done.usage = {.prompt_tokens = 12, .cached_prompt_tokens = 8, .completion_tokens = 5, .reasoning_tokens = 2};
  return {Piece(Kind::kReasoning, "hm"), start, Piece(Kind::kToolCallArguments, "{}"), Piece(Kind::kToolCallEnd, ""),
          done};
}

TEST(OpenAiChat, StreamIsByteExact) {
  CompletionStreamWriter writer({.id = "chatcmpl-1", .model = "m", .created_unix_s = 9, .include_usage = true});
  std::string out = writer.Start();
  for (const auto& event : ToolAnswer()) out += writer.Write(0, event);
  EXPECT_TRUE(writer.finished());
  const std::string head =
      R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":9,"model":"m","system_fingerprint":null,"choices":[)";
  EXPECT_EQ(
      out,
      head +
          R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

)" + head +
          R"({"index":0,"delta":{"reasoning_content":"hm"},"logprobs":null,"finish_reason":null}],"usage":null}

)" + head +
          R"({"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}

)" + head +
          R"({"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

)" + head +
          R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}

)" + head +
          R"(],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":2}}}

data: [DONE]

)");
}

TEST(OpenAiChat, WholeAnswer) {
  CompletionBuilder builder({.id = "chatcmpl-1", .model = "m", .created_unix_s = 9});
  for (const auto& event : ToolAnswer()) builder.Add(0, event);
  const Json answer = builder.Finish();
  EXPECT_EQ(
      DumpJson(answer["choices"][0]),
      R"({"index":0,"message":{"role":"assistant","content":null,"refusal":null,"reasoning_content":"hm","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"})");
  EXPECT_EQ(answer["usage"]["total_tokens"], 17);
}

TEST(OpenAiChat, LogprobsShowBytes) {
  GenerationEvent text = Piece(Kind::kText, "é");
  text.logprobs = {
      {.id = 1, .bytes = "\xC3", .logprob = -0.5f, .top = {{.id = 2, .bytes = "a", .logprob = -1.0f, .top = {}}}},
      {.id = 3, .bytes = "\xA9", .logprob = -0.25f, .top = {}}};
  CompletionBuilder builder({.id = "i", .model = "m", .logprobs = true});
  builder.Add(0, text);
  const Json logprobs = builder.Finish()["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["content"].size(), 2u);
  EXPECT_EQ(logprobs["content"][0]["bytes"], Json::array({0xC3}));
  EXPECT_EQ(logprobs["content"][0]["top_logprobs"][0]["token"], "a");
  EXPECT_EQ(logprobs["content"][1]["logprob"], -0.25f);
}

TEST(OpenAiChat, ErrorEndsTheStream) {
  CompletionStreamWriter writer({.id = "i", .model = "m"});
  GenerationEvent error;
  error.kind = Kind::kError;
  error.error = Internal("broken");
  EXPECT_EQ(writer.Write(0, error),
            "data: {\"error\":{\"message\":\"broken\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n");
  EXPECT_TRUE(writer.finished());
}

TEST(OpenAiCompletions, PromptForms) {
  const auto read = [](const char* prompt) {
    return FromCompletion({{"model", "m"}, {"prompt", *ParseJson(prompt)}}, "r");
  };
  EXPECT_EQ(read(R"("abc")")->completions[0].prompt, "abc");
  EXPECT_EQ(read(R"(["abc"])")->completions[0].prompt, "abc");
  EXPECT_THAT(read("[1,2]")->completions[0].prompt_ids, testing::ElementsAre(1, 2));
  EXPECT_THAT(read("[[1,2]]")->completions[0].prompt_ids, testing::ElementsAre(1, 2));
  const auto both = read(R"(["a",[1,2],"b"])");
  ASSERT_EQ(both->completions.size(), 3u);
  EXPECT_THAT(both->completions[1].prompt_ids, testing::ElementsAre(1, 2));
  EXPECT_EQ(both->completions[2].prompt, "b");
  for (const char* bad : {"null", "7", "[]", R"(["a",1])", "[-1]", "[1.5]", "[[]]", "[3000000000]", "[1,\"a\"]"}) {
    EXPECT_EQ(read(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST(OpenAiCompletions, EndAtSixteenTokensUnlessTold) {
  const auto limit = [](const Json& max_tokens) {
    return FromCompletion({{"model", "m"}, {"prompt", "p"}, {"max_tokens", max_tokens}}, "r")
        ->completions[0]
        .new_tokens_max;
  };
  EXPECT_EQ(limit(nullptr), 16);
  EXPECT_EQ(limit(0), 0);
  EXPECT_EQ(limit(100), 100);
  EXPECT_EQ(limit(-1), INT64_MAX);
}

TEST(OpenAiCompletions, ChoicesAreBounded) {
  const auto read = [](const char* changes) {
    Json body = {{"model", "m"}, {"prompt", "p"}};
    body.update(*ParseJson(changes));
    return FromCompletion(body, "r");
  };
  EXPECT_EQ(read(R"({"n":3,"best_of":3})")->n, 3u);
  EXPECT_TRUE(read(R"({"echo":true,"suffix":"s"})")->completions[0].echo);
  const std::pair<const char*, const char*> cases[] = {
      {R"({"n":0})", "n: must be an integer from 1 to 128"},
      {R"({"n":129})", "n: must be an integer from 1 to 128"},
      {R"({"n":64,"prompt":["a","b","c"]})", "prompt: prompts times `n` must be at most 128"},
      {R"({"best_of":2})", "best_of: only as many as `n` are supported"},
      {R"({"echo":true,"logprobs":1})", "echo: does not go with logprobs"},
  };
  for (const auto& [changes, message] : cases) EXPECT_EQ(read(changes).error().message(), message) << changes;
}

TEST(OpenAiChat, ChoicesAreToldApart) {
  const CompletionOptions options{
      .id = "i", .model = "m", .include_usage = true, .choices = 4, .choices_per_prompt = 2};
  CompletionBuilder builder(options);
  CompletionStreamWriter writer(options);
  std::string out = writer.Start();
  for (const size_t choice : {2, 0, 3, 1}) {
    GenerationEvent done;
    done.kind = Kind::kDone;
    done.usage = {.prompt_tokens = 10, .completion_tokens = 1};
    for (const auto& event : {Piece(Kind::kText, std::string(choice + 1, 'x')), done}) {
      EXPECT_FALSE(writer.finished());
      builder.Add(choice, event);
      out += writer.Write(choice, event);
    }
  }
  EXPECT_TRUE(writer.finished());
  EXPECT_THAT(out, testing::HasSubstr(R"({"index":3,"delta":{"content":"xxxx"})"));
  EXPECT_THAT(out, testing::EndsWith("data: [DONE]\n\n"));
  const Json answer = builder.Finish();
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["message"]["content"], std::string(i + 1, 'x'));
  }
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 20);  // two prompts, each once
  EXPECT_EQ(answer["usage"]["completion_tokens"], 4);
}

TEST(OpenAiCompletions, StreamCountsOffsets) {
  CompletionStreamWriter writer({.id = "cmpl-1", .model = "m", .logprobs = true, .chat = false});
  EXPECT_EQ(writer.Start(), "");
  GenerationEvent text = Piece(Kind::kText, "ab");
  text.logprobs = {{.id = 1, .bytes = "a", .logprob = -1, .top = {}},
                   {.id = 2, .bytes = "b", .logprob = -2, .top = {}}};
  writer.Write(0, text);
  EXPECT_NE(writer.Write(0, text).find(R"("text_offset":[2,3])"), std::string::npos);
}

TEST(OpenAiEmbeddings, InputsAndOptions) {
  const auto read = [](const char* extra) {
    Json body = {{"model", "m"}};
    body.update(*ParseJson(extra));
    return FromEmbeddings(body, "r");
  };
  EXPECT_THAT(read(R"({"input":"a"})")->embed.texts, testing::ElementsAre("a"));
  EXPECT_THAT(read(R"({"input":["a",""]})")->embed.texts, testing::ElementsAre("a", ""));
  EXPECT_EQ(read(R"({"input":[[1],[2,3]]})")->embed.token_ids.size(), 2u);
  const auto full =
      read(R"({"input":[5],"encoding_format":"base64","dimensions":64,"truncate":false,"pooling":"cls","user":"u"})");
  EXPECT_TRUE(full->base64);
  EXPECT_EQ(full->embed.dimensions, 64);
  EXPECT_FALSE(full->embed.truncate);
  EXPECT_TRUE(read(R"({"input":"a"})")->embed.truncate);
  EXPECT_EQ(full->embed.pooling, service::PoolingChoice::kCls);
  for (const char* bad :
       {R"({})", R"({"input":[]})", R"({"input":{}})", R"({"input":"a","encoding_format":"hex"})",
        R"({"input":"a","dimensions":0})", R"({"input":"a","pooling":"best"})", R"({"input":["a",[1]]})"}) {
    EXPECT_EQ(read(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST(OpenAiEmbeddings, ReplyInBothEncodings) {
  service::EmbedResult result;
  result.model_name = "m\"1";
  result.embeddings = {{0.1f, -2e-5f}, {1.0f, 0.0f}};
  result.prompt_tokens = 7;
  EXPECT_EQ(
      ToEmbeddingsReply(result, false).body,
      R"({"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2e-05]},{"object":"embedding","index":1,"embedding":[1,0]}],"model":"m\"1","usage":{"prompt_tokens":7,"total_tokens":7}})");
  EXPECT_NE(ToEmbeddingsReply(result, true).body.find(R"("embedding":"AACAPwAAAAA=")"), std::string::npos);
  result.tokens = {{.seen = 4, .used = 4}, {.seen = 9, .used = 3}};
  const Json cut = *ParseJson(ToEmbeddingsReply(result, false).body);
  EXPECT_FALSE(cut["data"][0].contains("truncated"));
  EXPECT_EQ(cut["data"][1]["truncated"], Json({{"tokens", 9}, {"used", 3}}));
}

TEST(NumberText, ShortestSpellingReadsBack) {
  std::vector<float> values = {0.0f, -0.0f, 1e-45f, 3.4028235e38f, 0.1f, 1.0f / 3, -123456.78f};
  std::string out;
  AppendJsonFloats(values, out);
  const Json read = *ParseJson(out);
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(static_cast<float>(read[i].get<double>()), values[i]);
  std::string broken;
  AppendJsonFloats(std::vector<float>{NAN, INFINITY, 1}, broken);
  EXPECT_EQ(broken, "[null,null,1]");
}

TEST(Errors, OpenAiNamesParameterAndCode) {
  EXPECT_EQ(ErrorBody(InvalidArgument("messages.0.content: bad: worse"), kDialect.errors, "")["error"]["param"],
            "messages.0.content");
  EXPECT_TRUE(ErrorBody(InvalidArgument("Something is bad: really"), kDialect.errors, "")["error"]["param"].is_null());
  EXPECT_EQ(ErrorBody(NotFound("model: no such model"), kDialect.errors, "")["error"]["code"], "model_not_found");
  EXPECT_EQ(ErrorBody(NotFound("no such route"), kDialect.errors, "")["error"]["code"], "unknown_url");
  const Status longer =
      InvalidArgument("prompt is too long: 9 tokens > 8 maximum").WithReason(ErrorReason::kPromptTooLong);
  EXPECT_EQ(ErrorBody(longer, kDialect.errors, "")["error"]["code"], "context_length_exceeded");
}

}  // namespace
}  // namespace pensieve::api::openai
