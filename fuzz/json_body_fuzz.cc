// Any bytes as the body of a request, through each dialect's translation: the first byte chooses the route. A body is
// taken or refused with a well-formed error of the dialect and a status of 4xx; what is taken can be written again.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "api/akidb/dialect.h"
#include "api/akidb/embed.h"
#include "api/anthropic/dialect.h"
#include "api/anthropic/messages_request.h"
#include "api/ollama/dialect.h"
#include "api/ollama/requests.h"
#include "api/openai/dialect.h"
#include "api/openai/requests.h"
#include "api/openai/response_request.h"
#include "api/pensieve1/dialect.h"
#include "base/check.h"
#include "base/json.h"

namespace {

using namespace pensieve;

void CheckRefusal(const Status& status, const api::Dialect& dialect) {
  const api::HttpReply reply = api::ErrorReply(status, dialect.errors, {.request_id = "req_1"});
  PENSIEVE_CHECK(reply.status >= 400 && reply.status < 500);
  const auto body = ParseJson(reply.body);
  PENSIEVE_CHECK(body.has_value() && (body->contains("error") || body->contains("detail")));
}

void UseChat(const service::ChatRequest& chat) {
  PENSIEVE_CHECK(chat.messages.is_array());
  for (const Json& turn : chat.messages) PENSIEVE_CHECK(turn.is_object() && turn.at("role").is_string());
  PENSIEVE_CHECK(chat.tools.is_null() || chat.tools.is_array());
  PENSIEVE_CHECK(chat.stop_sequences.size() <= 64);
  (void)DumpJson(chat.messages);
  (void)DumpJson(chat.tools);
}

Status UseMessages(const Json& body, bool count_only) {
  PENSIEVE_TRY(const auto request,
               api::anthropic::FromMessagesRequest(body, {.request_id = "req_1", .count_only = count_only}));
  UseChat(request.chat);
  return OkStatus();
}

Status UseChatCompletion(const Json& body) {
  PENSIEVE_TRY(const auto request, api::openai::FromChatCompletion(body, "req_1"));
  UseChat(request.chat);
  return OkStatus();
}

Status UseResponses(const Json& body) {
  // Any value as history too: the store only holds what was let in, but by other rules perhaps.
  const Json history =
      body.is_object() && body.contains("input") && body["input"].is_array() ? body["input"] : Json::array();
  PENSIEVE_TRY(const auto request, api::openai::FromResponses(body, history, "req_1"));
  UseChat(request.chat);
  for (const Json& item : request.input) PENSIEVE_CHECK(item.at("id").is_string() || item.contains("id"));
  return OkStatus();
}

Status UseOllama(const Json& body, bool chat) {
  PENSIEVE_TRY(const auto request,
               chat ? api::ollama::FromChat(body, "req_1") : api::ollama::FromGenerate(body, "req_1"));
  if (const auto* turns = std::get_if<service::ChatRequest>(&request.text)) UseChat(*turns);
  return OkStatus();
}

Status UseEmbedBody(std::string_view text) {
  PENSIEVE_TRY(auto fields, api::akidb::ParseEmbedBody(text));
  PENSIEVE_TRY(const auto call, api::akidb::FromEmbedFields(std::move(fields), "req_1"));
  PENSIEVE_CHECK(!call.request.texts.empty() && call.request.texts.size() <= api::akidb::kTextsMax);
  return OkStatus();
}

Status UseBody(uint8_t route, std::string_view text) {
  if (route == 5) return UseEmbedBody(text);
  PENSIEVE_TRY(const Json body, ParseJson(text));
  switch (route) {
    case 0:
    case 1: return UseMessages(body, route == 1);
    case 2: return UseChatCompletion(body);
    case 3: return api::openai::FromCompletion(body, "req_1").status();
    case 6: return UseResponses(body);
    case 7:
    case 8: return UseOllama(body, route == 7);
    case 9: return api::pensieve1::FromGenerate(body, "req_1").status();
    case 10: return api::ollama::FromEmbed(body, "req_1").status();
    case 11: return api::ollama::FromEmbeddings(body, "req_1").status();
    default: return api::openai::FromEmbeddings(body, "req_1").status();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  const auto route = static_cast<uint8_t>(bytes[0] % 12);
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const Status status = UseBody(route, text);
  if (status.ok()) return 0;
  const api::Dialect* const dialects[] = {&api::anthropic::kDialect, &api::anthropic::kDialect, &api::openai::kDialect,
                                          &api::openai::kDialect,    &api::openai::kDialect,    &api::akidb::kDialect,
                                          &api::openai::kDialect,    &api::ollama::kDialect,    &api::ollama::kDialect,
                                          &api::pensieve1::kDialect, &api::ollama::kDialect,    &api::ollama::kDialect};
  CheckRefusal(status, *dialects[route]);
  return 0;
}
