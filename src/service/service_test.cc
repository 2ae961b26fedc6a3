#include "base/system_memory.h"
#include "service/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <regex>
#include <thread>

#include "service/memory_gate.h"
#include "service/preparing.h"
#include "service/service_fixture.h"

namespace pensieve::service {
namespace {

using Kind = GenerationEvent::Kind;
using testing::HasSubstr;

ServiceOptions Options() {
  ServiceOptions options;
  options.memory_gate = false;
  options.engine.kv_block_len = 16;
  options.engine.kv_bytes_max = 1 << 20;
  options.engine.step_rows_max = 64;
  return options;
}

class ServiceTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(service_->AddModel("small", {"smaller"}, ScriptedLoadedModel(script_)).ok()); }

  static ChatRequest Ask(const std::string& text = "hi") {
    ChatRequest request;
    request.model = "small";
    request.messages = {{{"role", "user"}, {"content", text}}};
    return request;
  }
  static Json Tools() {
    return {{{"type", "function"},
             {"function", {{"name", "look"}, {"description", "d"}, {"parameters", {{"type", "object"}}}}}}};
  }

  std::unique_ptr<Generation> Chat(ChatRequest request) {
    auto generation = service_->Chat(std::move(request));
    EXPECT_TRUE(generation.has_value()) << generation.status().ToString();
    return generation.has_value() ? *std::move(generation) : nullptr;
  }

  struct Answer {
    std::string text;
    std::string reasoning;
    std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
    std::vector<TokenLogprob> logprobs;
    int terminals = 0;
    GenerationEvent last;
  };

  static Answer Collect(Generation& generation) {
    Answer answer;
    while (auto event = generation.Next()) {
      answer.logprobs.insert(answer.logprobs.end(), event->logprobs.begin(), event->logprobs.end());
      switch (event->kind) {
        case Kind::kProgress: break;
        case Kind::kText: answer.text += event->text; break;
        case Kind::kReasoning: answer.reasoning += event->text; break;
        case Kind::kToolCallStart:
          EXPECT_FALSE(event->call_id.empty());
          answer.calls.emplace_back(event->tool_name, "");
          break;
        case Kind::kToolCallArguments: answer.calls.back().second += event->text; break;
        case Kind::kToolCallEnd: break;
        default: ++answer.terminals; answer.last = *event;
      }
    }
    EXPECT_EQ(answer.terminals, 1);
    EXPECT_FALSE(generation.TryNext().has_value());
    return answer;
  }
  Answer AnswerTo(ChatRequest request) {
    auto generation = Chat(std::move(request));
    return generation == nullptr ? Answer{} : Collect(*generation);
  }

  void WaitForFreeBlocks() {
    while (service_->GetMetrics().front().engine.kv_blocks_used != 0) std::this_thread::yield();
  }

  std::shared_ptr<Script> script_ = std::make_shared<Script>();
  std::unique_ptr<Service> service_ = Service::Create(Options());
};

TEST_F(ServiceTest, TextArrivesInWholeCharacters) {
  script_->Set("Grüße, 世界 🙂!");
  auto generation = Chat(Ask());
  EXPECT_EQ(generation->model_name(), "small");
  std::string text;
  std::optional<GenerationEvent> last;
  while (auto event = generation->Next()) {
    if (event->kind == Kind::kText) {
      EXPECT_TRUE(ParseJson("\"" + event->text + "\"").has_value()) << "a cut character";
      text += event->text;
    }
    last = std::move(event);
  }
  EXPECT_EQ(text, "Grüße, 世界 🙂!");
  EXPECT_EQ(last->kind, Kind::kDone);
  EXPECT_EQ(last->stop_reason, StopReason::kEnd);
  EXPECT_EQ(last->usage.completion_tokens, static_cast<int64_t>(text.size()));
  EXPECT_EQ(last->usage.prompt_tokens, generation->prompt_tokens());
  EXPECT_EQ(generation->generated_ids().size(), text.size());
}

TEST_F(ServiceTest, RendersAndCounts) {
  const ChatRequest request = Ask("hi");
  EXPECT_EQ(*service_->Render(request), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  // Markers are one token each, all else one token a byte.
  EXPECT_EQ(*service_->CountTokens(request), 1 + 7 + 1 + 1 + 1 + 10);
  script_->Set("ok");
  EXPECT_EQ(Chat(request)->prompt_tokens(), *service_->CountTokens(request));
}

TEST_F(ServiceTest, ContinuesAnAssistantTurn) {
  ChatRequest request = Ask();
  request.messages.push_back({{"role", "assistant"}, {"content", "It is"}});
  request.continue_final_message = true;
  EXPECT_THAT(*service_->Render(request), testing::EndsWith("<|im_start|>assistant\nIt is"));
}

TEST_F(ServiceTest, AnAnswerThatComesBackGoesOnWhereItEnded) {
  script_->Set("yes~~, yes");
  auto first = Chat(Ask());
  Collect(*first);
  ChatRequest request = Ask();
  request.messages.push_back({{"role", "assistant"}, {"content", "yes~~, yes"}});
  request.messages.push_back({{"role", "user"}, {"content", "more"}});
  auto next = Chat(request);
  std::vector<int32_t> begin = first->prompt_ids();
  begin.insert(begin.end(), first->generated_ids().begin(), first->generated_ids().end());
  ASSERT_GT(next->prompt_ids().size(), begin.size());
  EXPECT_TRUE(std::equal(begin.begin(), begin.end(), next->prompt_ids().begin()));
  EXPECT_EQ(next->prompt_tokens(), *service_->CountTokens(request));
  // Whole blocks of 16; the last token that was drawn has no keys and values yet.
  EXPECT_GE(Collect(*next).last.usage.cached_prompt_tokens, static_cast<int64_t>(begin.size() - 1) / 16 * 16);
  // Another cache partition knows nothing of it.
  request.cache_partition = 1;
  EXPECT_EQ(*service_->CountTokens(request), next->prompt_tokens() - 1);
}

// Reasoning and calls, where the template writes them as the model does.
TEST_F(ServiceTest, ThinkingAndCallsThatComeBackGoOnWhereTheyEnded) {
  auto loaded = ScriptedLoadedModel(script_);
  loaded->text.chat_template =
      "{% if tools %}<|im_start|>system\n<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>"
      "Answer <tool_call>{\"name\": ..., \"arguments\": ...}</tool_call><|im_end|>\n{% endif %}"
      "{% for m in messages %}<|im_start|>{{ m.role }}\n"
      "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
      "{% for c in m.tool_calls or [] %}<tool_call>\n"
      "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
      "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  ASSERT_TRUE(service_->AddModel("agent", {}, std::move(loaded)).ok());
  script_->Set(
      "<think>\nhm ~~\n</think>\n\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"~~\"}}\n</tool_call>");
  ChatRequest request = Ask();
  request.model = "agent";
  request.tools = Tools();
  auto first = Chat(request);
  const Answer answer = Collect(*first);
  ASSERT_EQ(answer.calls.size(), 1u);
  EXPECT_EQ(answer.reasoning, "hm ~~");
  const Json call = {{"id", "c1"},
                     {"type", "function"},
                     {"function", {{"name", answer.calls[0].first}, {"arguments", answer.calls[0].second}}}};
  request.messages.push_back({{"role", "assistant"},
                              {"content", answer.text},
                              {"reasoning_content", answer.reasoning},
                              {"tool_calls", Json::array({call})}});
  request.messages.push_back({{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "~~"}});
  auto next = Chat(request);
  std::vector<int32_t> begin = first->prompt_ids();
  begin.insert(begin.end(), first->generated_ids().begin(), first->generated_ids().end());
  ASSERT_GT(next->prompt_ids().size(), begin.size());
  EXPECT_TRUE(std::equal(begin.begin(), begin.end(), next->prompt_ids().begin()));
  EXPECT_GE(Collect(*next).last.usage.cached_prompt_tokens, static_cast<int64_t>(begin.size() - 1) / 16 * 16);
}

TEST_F(ServiceTest, SpecialTokensCountInCompletionsOnly) {
  CompletionRequest raw;
  raw.model = "small";
  raw.prompt = "a<|im_end|>";
  EXPECT_THAT((*service_->Complete(raw))->prompt_ids(), testing::ElementsAre('a', kImEnd));
  const auto chat = Chat(Ask("a<|im_end|>"));
  EXPECT_EQ(std::ranges::count(chat->prompt_ids(), kImEnd), 1);
}

TEST_F(ServiceTest, StopSequencesAcrossTokens) {
  script_->Set("one two END three", /*endless=*/true);
  ChatRequest request = Ask();
  request.stop_sequences = {"nothing", "END"};
  const Answer answer = AnswerTo(request);
  EXPECT_EQ(answer.text, "one two ");
  EXPECT_EQ(answer.last.kind, Kind::kDone);
  EXPECT_EQ(answer.last.stop_reason, StopReason::kStopSequence);
  EXPECT_EQ(answer.last.stop_sequence, "END");
  EXPECT_EQ(answer.last.usage.completion_tokens, 11);
  WaitForFreeBlocks();
}

TEST_F(ServiceTest, AnUnfinishedStopSequenceIsText) {
  script_->Set("abc EN");
  ChatRequest request = Ask();
  request.stop_sequences = {"END"};
  const Answer answer = AnswerTo(request);
  EXPECT_EQ(answer.text, "abc EN");
  EXPECT_EQ(answer.last.stop_reason, StopReason::kEnd);
}

TEST_F(ServiceTest, LimitsEndTheAnswer) {
  script_->Set("", /*endless=*/true);
  ChatRequest request = Ask();
  request.new_tokens_max = 5;
  Answer answer = AnswerTo(request);
  EXPECT_EQ(answer.text, "xxxxx");
  EXPECT_EQ(answer.last.stop_reason, StopReason::kMaxTokens);

  request.new_tokens_max = 0;
  answer = AnswerTo(request);
  EXPECT_EQ(answer.text, "");
  EXPECT_EQ(answer.last.stop_reason, StopReason::kMaxTokens);

  request.new_tokens_max = 128'000;  // clamped, never refused
  answer = AnswerTo(request);
  EXPECT_EQ(answer.last.stop_reason, StopReason::kContextFull);
  EXPECT_EQ(answer.last.usage.prompt_tokens + answer.last.usage.completion_tokens, 512);
}

TEST_F(ServiceTest, ALongPromptIsRefusedInTheWordsClientsKnow) {
  const auto generation = service_->Chat(Ask(std::string(600, 'a')));
  ASSERT_FALSE(generation.has_value());
  EXPECT_EQ(generation.error().reason(), ErrorReason::kPromptTooLong);
  EXPECT_EQ(generation.error().message(), "prompt is too long: 619 tokens > 511 maximum");
  EXPECT_TRUE(service_->CountTokens(Ask(std::string(600, 'a'))).has_value());
}

// The number is an estimate then: only a part of the text was tokenized.
TEST_F(ServiceTest, AVeryLongPromptIsRefusedByItsFirstPart) {
  const std::string text(5'000'000, 'a');
  CompletionRequest raw;
  raw.model = "small";
  raw.prompt = text;
  for (const Status& status : {service_->Chat(Ask(text)).status(), service_->Complete(raw).status()}) {
    EXPECT_EQ(status.reason(), ErrorReason::kPromptTooLong);
    EXPECT_TRUE(
        std::regex_match(status.message(), std::regex("prompt is too long: (49|50)\\d{5} tokens > 511 maximum")))
        << status.message();
  }
}

TEST_F(ServiceTest, ThinkingIsSplitFromText) {
  script_->Set("Let me see.\n</think>\n\nFour.");
  ChatRequest request = Ask();
  request.thinking = true;
  const Answer answer = AnswerTo(request);
  EXPECT_THAT(answer.reasoning, HasSubstr("Let me see."));
  EXPECT_THAT(answer.text, HasSubstr("Four."));
  EXPECT_THAT(answer.text + answer.reasoning, testing::Not(HasSubstr("think>")));
  EXPECT_GE(answer.last.usage.reasoning_tokens, 11);
  EXPECT_LT(answer.last.usage.reasoning_tokens, answer.last.usage.completion_tokens);
}

TEST_F(ServiceTest, StopSequencesAreNotLookedForInThinking) {
  script_->Set("END END</think>text END more");
  ChatRequest request = Ask();
  request.thinking = true;
  request.stop_sequences = {"END"};
  const Answer answer = AnswerTo(request);
  EXPECT_EQ(answer.reasoning, "END END");
  EXPECT_EQ(answer.text, "text ");
}

constexpr char kTwoCalls[] =
    "I look.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"é\"}}\n</tool_call>\n"
    "<tool_call>\n{\"name\": \"look\", \"arguments\": {}}\n</tool_call>";

TEST_F(ServiceTest, ToolCalls) {
  script_->Set(kTwoCalls);
  ChatRequest request = Ask();
  request.tools = Tools();
  const Answer answer = AnswerTo(request);
  EXPECT_THAT(answer.text, testing::StartsWith("I look."));
  ASSERT_EQ(answer.calls.size(), 2u);
  EXPECT_EQ(answer.calls[0].first, "look");
  EXPECT_EQ(*ParseJson(answer.calls[0].second), (Json{{"at", "é"}}));
  EXPECT_EQ(*ParseJson(answer.calls[1].second), Json::object());
  EXPECT_EQ(answer.last.stop_reason, StopReason::kToolUse);
}

TEST_F(ServiceTest, OneCallWhenParallelCallsAreForbidden) {
  script_->Set(kTwoCalls);
  ChatRequest request = Ask();
  request.tools = Tools();
  request.parallel_tool_calls = false;
  const Answer answer = AnswerTo(request);
  EXPECT_EQ(answer.calls.size(), 1u);
  EXPECT_EQ(answer.last.kind, Kind::kDone);
  EXPECT_EQ(answer.last.stop_reason, StopReason::kToolUse);
}

TEST_F(ServiceTest, ToolChoice) {
  ChatRequest request = Ask();
  request.tools = Tools();
  EXPECT_THAT(*service_->Render(request), HasSubstr("<tools>"));
  request.tool_choice = ToolChoice::kNone;
  EXPECT_THAT(*service_->Render(request), testing::Not(HasSubstr("<tools>")));
  script_->Set(kTwoCalls);
  EXPECT_EQ(AnswerTo(request).calls.size(), 0u);
  request.tool_choice = ToolChoice::kAny;
  EXPECT_THAT(*service_->Render(request), HasSubstr("hi\n\nAnswer with a call of one of the tools."));
  request.tool_choice = ToolChoice::kNamed;
  request.tool_choice_name = "look";
  EXPECT_THAT(*service_->Render(request), HasSubstr("Answer with a call of the tool look."));
  request.tool_choice_name = "jump";
  EXPECT_EQ(service_->Render(request).status().message(), "tool_choice.name: there is no tool \"jump\"");
  request.tools = Json::array({1, {{"function", 2}}, {{"function", {{"name", 3}}}}});
  EXPECT_EQ(service_->Render(request).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ServiceTest, AnOutputSchemaReachesThePrompt) {
  ChatRequest request = Ask();
  request.output_schema = {{"type", "object"}};
  EXPECT_THAT(*service_->Render(request), HasSubstr("{\"type\":\"object\"}<|im_end|>"));
}

TEST_F(ServiceTest, AnAnswerHasTheFormThatIsAsked) {
  // The model would go on with a number that is too large, and with words.
  script_->Set("77 and more");
  ChatRequest request = Ask();
  request.sampling.temperature = 0.0f;
  request.output_schema = {{"type", "integer"}, {"minimum", 7}, {"maximum", 99}};
  const Answer answer = AnswerTo(request);
  EXPECT_EQ(answer.text, "77");
  EXPECT_EQ(answer.last.stop_reason, StopReason::kEnd);
  request.output_schema = nullptr;
  request.output_regex = "7+ or";
  EXPECT_THAT(AnswerTo(request).text, testing::StartsWith("77"));
  request.output_regex = "";
  request.output_grammar = "root ::= \"7\" root | \" and\"";
  EXPECT_EQ(AnswerTo(request).text, "77 and");
}

TEST_F(ServiceTest, ADemandedCallComes) {
  script_->Set("<tool_call>");  // rather than reasoning, which may come first
  ChatRequest request = Ask();
  request.tools = Json::array({{{"type", "function"},
                                {"function",
                                 {{"name", "look"},
                                  {"parameters",
                                   {{"type", "object"},
                                    {"properties", {{"n", {{"const", 5}}}}},
                                    {"required", {"n"}},
                                    {"additionalProperties", false}}}}}}});
  request.tool_choice = ToolChoice::kAny;
  request.parallel_tool_calls = false;
  const Answer answer = AnswerTo(request);
  EXPECT_EQ(answer.text, "");
  ASSERT_EQ(answer.calls.size(), 1u);
  EXPECT_EQ(answer.calls[0].first, "look");
  EXPECT_EQ(*ParseJson(answer.calls[0].second), (Json{{"n", 5}}));
  EXPECT_EQ(answer.last.stop_reason, StopReason::kToolUse);
}

TEST_F(ServiceTest, WhatCannotBeEnforcedIsRefused) {
  ChatRequest request = Ask();
  request.output_schema = {{"contains", Json::object()}};
  EXPECT_THAT(service_->Chat(request).status().message(), testing::StartsWith("schema: contains:"));
  EXPECT_EQ(service_->Chat(request).status().code(), StatusCode::kInvalidArgument);
  request.output_regex = "a";
  EXPECT_THAT(service_->Chat(request).status().message(), HasSubstr("not two of them"));
  request = Ask();
  request.output_regex = "abc";
  request.messages.push_back({{"role", "assistant"}, {"content", "x"}});
  request.continue_final_message = true;
  EXPECT_THAT(service_->Chat(request).status().message(), HasSubstr("no beginning of an answer"));
  request.messages.back()["content"] = "ab";
  script_->Set("c");
  EXPECT_EQ(AnswerTo(request).text, "c");
}

TEST_F(ServiceTest, LogprobsBelongToTheText) {
  script_->Set("né END");
  ChatRequest request = Ask();
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 2;
  const Answer answer = AnswerTo(request);
  ASSERT_EQ(answer.logprobs.size(), 7u);
  std::string bytes;
  for (const auto& token : answer.logprobs) {
    bytes += token.bytes;
    EXPECT_LE(token.logprob, 0.0f);
    ASSERT_EQ(token.top.size(), 2u);
    EXPECT_EQ(token.top[0].id, token.id);
  }
  EXPECT_EQ(bytes, answer.text);
}

TEST_F(ServiceTest, ASeedRepeats) {
  script_->Set("same");
  ChatRequest request = Ask();
  request.sampling.seed = 7;
  request.sampling.temperature = 2.0f;
  EXPECT_EQ(AnswerTo(request).text, AnswerTo(request).text);
}

TEST_F(ServiceTest, OutOfRangeSamplingIsRefused) {
  const std::function<void(SamplingRequest&)> changes[] = {[](SamplingRequest& s) { s.temperature = -1.0f; },
                                                           [](SamplingRequest& s) { s.top_p = 1.5f; },
                                                           [](SamplingRequest& s) { s.repetition_penalty = 0.0f; },
                                                           [](SamplingRequest& s) {
                                                             s.logit_bias = {{999'999, 1.0f}};
                                                           },
                                                           [](SamplingRequest& s) {
                                                             s.top_logprobs = 21;
                                                             s.logprobs = true;
                                                           }};
  for (const auto& change : changes) {
    ChatRequest request = Ask();
    change(request.sampling);
    EXPECT_EQ(service_->Chat(request).status().code(), StatusCode::kInvalidArgument);
  }
  ChatRequest request = Ask();
  request.sampling.top_p = 0.0f;  // only the most likely token
  script_->Set("ok");
  EXPECT_EQ(AnswerTo(request).text, "ok");
}

TEST_F(ServiceTest, BadRequestsAreRefused) {
  ChatRequest request = Ask();
  request.messages = Json::array();
  EXPECT_EQ(service_->Chat(request).status().code(), StatusCode::kInvalidArgument);
  request.messages = {1};
  EXPECT_EQ(service_->Chat(request).status().code(), StatusCode::kInvalidArgument);
  request = Ask();
  request.stop_sequences = {""};
  EXPECT_EQ(service_->Chat(request).status().code(), StatusCode::kInvalidArgument);
  request.stop_sequences = std::vector<std::string>(65, "a");
  EXPECT_EQ(service_->Chat(request).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ServiceTest, Completions) {
  script_->Set("raw");
  CompletionRequest request;
  request.model = "small";
  request.prompt = "ab";
  auto generation = *service_->Complete(request);
  EXPECT_THAT(generation->prompt_ids(), testing::ElementsAre('a', 'b'));
  EXPECT_EQ(Collect(*generation).text, "raw");
  request.prompt_ids = {1, 2, 3};
  EXPECT_EQ((*service_->Complete(request))->prompt_tokens(), 3);
  request.prompt_ids = {static_cast<int32_t>(kScriptVocab)};
  EXPECT_EQ(service_->Complete(request).status().code(), StatusCode::kInvalidArgument);
  request.prompt_ids.clear();
  request.prompt.clear();
  EXPECT_EQ(service_->Complete(request).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ServiceTest, NamesResolve) {
  script_->Set("ok");
  for (const char* name :
       {"small", "smaller", "", "claude-haiku-4-5-20251001", "SMALL-q4_k_m", "org/Smaller", "gpt-9"}) {
    ChatRequest request = Ask();
    request.model = name;
    EXPECT_EQ(AnswerTo(request).text, "ok") << name;
  }
  ChatRequest request = Ask();
  // One of two is no longer meant by every name.
  ASSERT_TRUE(service_->AddModel("second", {}, ScriptedLoadedModel(script_)).ok());
  request.model = "gpt-9";
  const Status missing = service_->Chat(request).status();
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_EQ(missing.message(), "model: \"gpt-9\" is not loaded");
  request.any_model = true;
  EXPECT_EQ((*service_->Chat(request))->model_name(), "small");
  request.any_model = false;
  request.model = "SECOND:latest";
  EXPECT_EQ((*service_->Chat(request))->model_name(), "second");
  EXPECT_EQ(service_->FindModel("", /*embedding=*/false)->name, "small");
  EXPECT_EQ(service_->FindModel("", /*embedding=*/true).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(service_->FindModel("nope", /*embedding=*/false).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(service_->AddModel("small", {}, ScriptedLoadedModel(script_)).code(), StatusCode::kAlreadyExists);
}

TEST_F(ServiceTest, AliasesAndStrictNames) {
  script_->Set("ok");
  ServiceOptions options = Options();
  options.aliases = {{"gpt-*", "second-q8_0"}, {"small", "second"}, {"broken", "nothing"}};
  options.strict_names = true;
  const auto service = Service::Create(options);
  ASSERT_TRUE(service->AddModel("small", {}, ScriptedLoadedModel(script_)).ok());
  const auto answers = [&](const std::string& name) {
    ChatRequest request = Ask();
    request.model = name;
    auto generation = service->Chat(request);
    return generation.has_value() ? (*generation)->model_name() : "";
  };
  EXPECT_EQ(answers("whatever"), "");  // strict, although there is only one
  EXPECT_EQ(answers("claude-x"), "small");
  ASSERT_TRUE(service->AddModel("second", {}, ScriptedLoadedModel(script_)).ok());
  EXPECT_EQ(answers("GPT-5"), "second");
  EXPECT_EQ(answers("small"), "small");  // a model's own name comes before an alias
  EXPECT_EQ(answers("broken"), "");
  EXPECT_TRUE(service->FindModel("gpt-5", false).has_value());
}

TEST_F(ServiceTest, EchoAndSuffix) {
  script_->Set("ok");
  CompletionRequest request;
  request.model = "small";
  request.prompt = "say: ";
  request.echo = true;
  auto generation = service_->Complete(request);
  ASSERT_TRUE(generation.has_value()) << generation.status().ToString();
  EXPECT_EQ(Collect(**generation).text, "say: ok");
  request.echo = false;
  request.suffix = "end";
  EXPECT_THAT(service_->Complete(request).status().message(), HasSubstr("suffix: "));
}

TEST_F(ServiceTest, DescribesItsModels) {
  const ModelDescription model = service_->Models().front();
  EXPECT_EQ(model.display_name, "Test Model");
  EXPECT_TRUE(model.generates);
  EXPECT_FALSE(model.embeds);
  EXPECT_TRUE(model.supports_tools);
  EXPECT_TRUE(model.supports_thinking);
  EXPECT_EQ(model.context_max, 512);
  const Health health = service_->GetHealth();
  EXPECT_TRUE(health.ready);
  EXPECT_EQ(health.concurrent_limit, 64);
  EXPECT_FALSE(Service::Create(Options())->GetHealth().ready);
}

TEST_F(ServiceTest, CancellationEndsOnceAndFreesItsBlocks) {
  script_->Set("", /*endless=*/true);
  ChatRequest request = Ask();
  request.new_tokens_max = 400;
  auto generation = Chat(request);
  ASSERT_TRUE(generation->Next().has_value());
  generation->Cancel();
  const Answer answer = Collect(*generation);
  EXPECT_TRUE(answer.last.kind == Kind::kCancelled || answer.last.kind == Kind::kDone);
  Chat(request).reset();  // destroyed at once
  WaitForFreeBlocks();
}

TEST_F(ServiceTest, AWakerTellsOfEveryEvent) {
  script_->Set("some words");
  std::mutex mutex;
  std::condition_variable woken;
  bool ready = false;
  auto generation = Chat(Ask());
  generation->SetWaker([&] {
    const std::lock_guard lock(mutex);
    ready = true;
    woken.notify_one();
  });
  std::string text;
  bool over = false;
  while (!over) {
    {
      std::unique_lock lock(mutex);
      woken.wait(lock, [&] { return ready; });
      ready = false;
    }
    while (auto event = generation->TryNext()) {
      text += event->text;
      over = event->terminal();
    }
  }
  EXPECT_EQ(text, "some words");
}

TEST_F(ServiceTest, ManyChatsAtOnce) {
  script_->Set("all of them get this");
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      auto generation = service_->Chat(Ask("question " + std::to_string(i)));
      ASSERT_TRUE(generation.has_value());
      if (Collect(**generation).text == "all of them get this") ++right;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 16);
}

TEST_F(ServiceTest, DrainingRefusesNewWork) {
  EXPECT_TRUE(service_->Drain(1000));
  const Status refused = service_->Chat(Ask()).status();
  EXPECT_EQ(refused.reason(), ErrorReason::kShuttingDown);
  EXPECT_TRUE(service_->GetHealth().draining);
  EXPECT_FALSE(service_->GetHealth().ready);
}

TEST_F(ServiceTest, DrainCutsWhatTakesTooLong) {
  script_->Set("", /*endless=*/true);
  ChatRequest request = Ask();
  request.new_tokens_max = 400;
  auto generation = Chat(request);
  service_->Drain(0);
  EXPECT_EQ(Collect(*generation).terminals, 1);
}

TEST_F(ServiceTest, ALostDeviceIsAnErrorAndNotReady) {
  auto loaded = ScriptedLoadedModel(script_);
  auto& device = static_cast<engine::TestBackend&>(*loaded->backend);
  device.waits_to_fail = 0;
  device.fails_for_good = true;
  ASSERT_TRUE(service_->AddModel("lost", {}, std::move(loaded)).ok());
  EXPECT_TRUE(service_->GetHealth().ready);
  ChatRequest request = Ask();
  request.model = "lost";
  const Answer answer = Collect(*Chat(request));
  EXPECT_EQ(answer.terminals, 1);
  EXPECT_EQ(answer.last.error.code(), StatusCode::kUnavailable);
  EXPECT_FALSE(service_->GetHealth().ready);
  EXPECT_EQ(service_->Chat(request).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(Collect(*Chat(Ask())).last.error.code(), StatusCode::kOk) << "the other model's device is there";
}

TEST(Preparing, AnEndWaitsForRequestsThatNoEngineHasYet) {
  Preparing preparing;
  const auto now = [] { return std::chrono::steady_clock::now(); };
  EXPECT_TRUE(preparing.WaitForNone(now()));
  std::optional<Preparing::Scope> first(preparing);
  std::optional<Preparing::Scope> second(preparing);
  EXPECT_FALSE(preparing.WaitForNone(now()));
  first.reset();
  EXPECT_FALSE(preparing.WaitForNone(now()));
  std::thread ender([&] { second.reset(); });
  EXPECT_TRUE(preparing.WaitForNone(now() + std::chrono::hours(1)));
  ender.join();
}

TEST(ServiceModels, NoRequestIsTakenWhileModelsLoad) {
  auto service = Service::Create(Options());
  service->SetLoading(LoadProgress{.model = "m", .step = "loading", .models_loaded = 0, .models_total = 1});
  ChatRequest request;
  request.messages = {{{"role", "user"}, {"content", "x"}}};
  EXPECT_EQ(service->Chat(request).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(service->CountTokens(request).status().code(), StatusCode::kUnavailable);
  EXPECT_GT(service->Chat(request).status().retry_after_ms(), 0);
  EXPECT_FALSE(service->GetHealth().ready);
  EXPECT_EQ(service->GetHealth().loading->model, "m");
  service->SetKvBytesMax(1 << 19);
  ASSERT_TRUE(service->AddModel("m", {}, ScriptedLoadedModel(std::make_shared<Script>())).ok());
  EXPECT_EQ(service->CountTokens(request).status().code(), StatusCode::kUnavailable);
  service->SetLoading(std::nullopt);
  EXPECT_TRUE(service->GetHealth().ready);
  EXPECT_TRUE(service->CountTokens(request).has_value());
}

TEST(ServiceModels, KvMemoryIsOfTheTimeWhenAModelIsAdded) {
  auto service = Service::Create(Options());
  const auto blocks = [&](const char* name, int64_t bytes) {
    service->SetKvBytesMax(bytes);
    EXPECT_TRUE(service->AddModel(name, {}, ScriptedLoadedModel(std::make_shared<Script>())).ok());
    return service->GetMetrics().back().engine.kv_blocks_total;
  };
  const int64_t small = blocks("small", 1 << 16);
  EXPECT_EQ(blocks("large", 1 << 18), 4 * small);
}

TEST(ServiceMemory, TheGateRefusesBelowItsMark) {
  ASSERT_TRUE(AvailableMemoryBytes().has_value());
  ServiceOptions options = Options();
  options.memory_gate = true;
  options.memory_critical_gb = 1e9;
  auto service = Service::Create(options);
  ASSERT_TRUE(service->AddModel("m", {}, ScriptedLoadedModel(std::make_shared<Script>())).ok());
  ChatRequest request;
  request.messages = {{{"role", "user"}, {"content", "x"}}};
  const Status refused = service->Chat(request).status();
  EXPECT_EQ(refused.code(), StatusCode::kUnavailable);
  EXPECT_EQ(refused.reason(), ErrorReason::kMemoryPressure);
  EXPECT_EQ(service->GetHealth().memory_status, "critical");
  EXPECT_TRUE(service->CountTokens(request).has_value());
  EXPECT_EQ(MemoryGate({.enabled = true, .critical_gb = 0, .emergency_gb = 0}).State().level, "safe");
  EXPECT_EQ(MemoryGate({.enabled = true, .critical_gb = 1e9, .emergency_gb = 1e9}).State().level, "emergency");
}

TEST(ServiceModels, AMissingTemplateIsGuessedAndABrokenOneRefused) {
  auto script = std::make_shared<Script>();
  auto loaded = ScriptedLoadedModel(script, {.has_template = false});
  auto service = Service::Create(Options());
  // The vocabulary's <|im_start|> suggests ChatML.
  ASSERT_TRUE(service->AddModel("m", {}, std::move(loaded)).ok());
  ChatRequest request;
  request.messages = {{{"role", "user"}, {"content", "x"}}};
  EXPECT_THAT(*service->Render(request), HasSubstr("<|im_start|>user\nx<|im_end|>"));

  auto broken = ScriptedLoadedModel(script);
  broken->text.chat_template = "{% if %}";
  EXPECT_THAT(service->AddModel("b", {}, std::move(broken)).message(), HasSubstr("test-model: chat template"));
}

}  // namespace
}  // namespace pensieve::service
