// Any bytes as the body of a request, through each dialect's translation: the first byte chooses the route. A body is
// taken or refused with a well-formed error of the dialect and a status of 4xx; what is taken can be written again.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "api/akidb/embed.h"
#include "api/anthropic/messages_request.h"
#include "api/errors.h"
#include "api/openai/requests.h"
#include "base/check.h"
#include "base/json.h"

namespace {

using namespace pensieve;

void CheckRefusal(const Status& status, api::Dialect dialect) {
  const api::HttpReply reply = api::ErrorReply(status, dialect, {.request_id = "req_1"});
  PENSIEVE_CHECK(reply.status >= 400 && reply.status < 500);
  const auto body = ParseJson(reply.body);
  PENSIEVE_CHECK(body.has_value() && body->contains("error"));
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
    case 1:
      return UseMessages(body, route == 1);
    case 2:
      return UseChatCompletion(body);
    case 3:
      return api::openai::FromCompletion(body, "req_1").status();
    default:
      return api::openai::FromEmbeddings(body, "req_1").status();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  const auto route = static_cast<uint8_t>(bytes[0] % 6);
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const Status status = UseBody(route, text);
  if (status.ok()) return 0;
  CheckRefusal(status, route < 2 ? api::Dialect::kAnthropic : route < 5 ? api::Dialect::kOpenAi : api::Dialect::kAkiDb);
  return 0;
}
