#include "api/openai/response_answer.h"

#include <fmt/format.h>

#include <ctime>

#include "api/openai/dialect.h"
#include "api/openai/response_request.h"
#include "api/openai/responses.h"
#include "base/random_id.h"

namespace pensieve::api::openai {
namespace {

using Kind = service::GenerationEvent::Kind;

Json InProgress(const ResponseOptions& options) {
  Json response = {{"id", options.id},
                   {"object", "response"},
                   {"created_at", options.created_unix_s},
                   {"status", "in_progress"},
                   {"background", false},
                   {"completed_at", nullptr},
                   {"error", nullptr},
                   {"incomplete_details", nullptr},
                   {"model", options.model},
                   {"output", Json::array()},
                   {"usage", nullptr},
                   {"service_tier", "default"}};
  response.update(options.settings);
  return response;
}

Json TextPart(const std::string& text, Json logprobs) {
  return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", std::move(logprobs)}};
}

}  // namespace

Json ToResponseUsage(const service::Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_prompt_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

std::string ToRecord(const KeptResponse& kept) {
  return DumpJson({{"response", kept.response}, {"input", kept.input}, {"previous", kept.previous_id}});
}

std::optional<KeptResponse> FindResponse(RecordStore& records, std::string_view owner, std::string_view id) {
  const auto text = records.Get(owner, id);
  if (!text) return std::nullopt;
  auto record = ParseJson(*text);
  if (!record.has_value()) return std::nullopt;
  return KeptResponse{.response = std::move((*record)["response"]),
                      .input = std::move((*record)["input"]),
                      .previous_id = (*record)["previous"].get<std::string>()};
}

ResponseFormat::ResponseFormat(ResponseOptions options, RecordStore& records)
    : options_(std::move(options)), records_(records), response_(InProgress(options_)) {}

void ResponseFormat::Emit(const char* type, Json event) {
  if (!options_.stream) return;
  Json whole = {{"type", type}};
  whole.update(event);
  whole["sequence_number"] = sequence_number_++;
  out_ += fmt::format("event: {}\ndata: {}\n\n", type, DumpJson(whole));
}

void ResponseFormat::EmitResponse(const char* type) {
  if (options_.stream) Emit(type, {{"response", response_}});
}

Json ResponseFormat::Place(Json event) const {
  Json placed = {{"item_id", response_["output"].back()["id"]},
                 {"output_index", response_["output"].size() - 1},
                 {"content_index", 0}};
  if (open_type_ == "function_call") placed.erase("content_index");
  placed.update(event);
  return placed;
}

std::string ResponseFormat::Start() {
  EmitResponse("response.created");
  EmitResponse("response.in_progress");
  return std::exchange(out_, "");
}

void ResponseFormat::OpenMessage() {
  if (open_type_ == "message") return;
  CloseItem();
  open_type_ = "message";
  response_["output"].push_back({{"id", NewId("msg_")},
                                 {"type", "message"},
                                 {"role", "assistant"},
                                 {"status", "in_progress"},
                                 {"content", Json::array()}});
  Emit("response.output_item.added",
       {{"output_index", response_["output"].size() - 1}, {"item", response_["output"].back()}});
  Emit("response.content_part.added", Place({{"part", TextPart("", Json::array())}}));
}

void ResponseFormat::OpenReasoning() {
  if (open_type_ == "reasoning") return;
  CloseItem();
  open_type_ = "reasoning";
  response_["output"].push_back({{"id", NewId("rs_")},
                                 {"type", "reasoning"},
                                 {"summary", Json::array()},
                                 {"content", Json::array()},
                                 {"encrypted_content", nullptr},
                                 {"status", "in_progress"}});
  Emit("response.output_item.added",
       {{"output_index", response_["output"].size() - 1}, {"item", response_["output"].back()}});
  Emit("response.content_part.added", Place({{"part", {{"type", "reasoning_text"}, {"text", ""}}}}));
}

void ResponseFormat::OpenCall(const service::GenerationEvent& event) {
  CloseItem();
  open_type_ = "function_call";
  response_["output"].push_back({{"id", NewId("fc_")},
                                 {"type", "function_call"},
                                 {"call_id", "call_" + event.call_id},
                                 {"name", event.tool_name},
                                 {"arguments", ""},
                                 {"status", "in_progress"}});
  Emit("response.output_item.added",
       {{"output_index", response_["output"].size() - 1}, {"item", response_["output"].back()}});
}

void ResponseFormat::AddText(const service::GenerationEvent& event) {
  if (event.text.empty() && event.logprobs.empty()) return;
  OpenMessage();
  text_ += event.text;
  Json logprobs = options_.logprobs ? ChatLogprobList(event.logprobs) : Json::array();
  for (const Json& entry : logprobs) logprobs_.push_back(entry);
  if (options_.stream)
    Emit("response.output_text.delta", Place({{"delta", event.text}, {"logprobs", std::move(logprobs)}}));
}

void ResponseFormat::AddReasoning(const std::string& text) {
  if (text.empty()) return;
  OpenReasoning();
  text_ += text;
  if (options_.stream) Emit("response.reasoning_text.delta", Place({{"delta", text}}));
}

void ResponseFormat::CloseMessage(Json& item) {
  Json part = TextPart(text_, std::move(logprobs_));
  logprobs_ = Json::array();
  Emit("response.output_text.done", Place({{"text", text_}, {"logprobs", part["logprobs"]}}));
  Emit("response.content_part.done", Place({{"part", part}}));
  item["content"].push_back(std::move(part));
}

void ResponseFormat::CloseReasoning(Json& item) {
  const Json part = {{"type", "reasoning_text"}, {"text", text_}};
  Emit("response.reasoning_text.done", Place({{"text", text_}}));
  Emit("response.content_part.done", Place({{"part", part}}));
  item["content"].push_back(part);
  if (options_.encrypted_reasoning) item["encrypted_content"] = SealReasoning(text_);
}

void ResponseFormat::CloseCall(Json& item) {
  item["arguments"] = text_.empty() ? "{}" : text_;
  Emit("response.function_call_arguments.done", Place({{"arguments", item["arguments"]}, {"name", item["name"]}}));
}

void ResponseFormat::CloseItem() {
  if (open_type_.empty()) return;
  Json& item = response_["output"].back();
  if (open_type_ == "message") CloseMessage(item);
  if (open_type_ == "reasoning") CloseReasoning(item);
  if (open_type_ == "function_call") CloseCall(item);
  item["status"] = "completed";
  Emit("response.output_item.done", {{"output_index", response_["output"].size() - 1}, {"item", item}});
  open_type_.clear();
  text_.clear();
}

void ResponseFormat::Keep() {
  if (!options_.store) return;
  records_.Put(options_.owner, options_.id,
               ToRecord({.response = response_, .input = options_.input, .previous_id = options_.previous_id}));
}

void ResponseFormat::End(const service::GenerationEvent& event) {
  const bool cut =
      event.stop_reason == service::StopReason::kMaxTokens || event.stop_reason == service::StopReason::kContextFull;
  CloseItem();
  if (cut && !response_["output"].empty()) response_["output"].back()["status"] = "incomplete";
  response_["status"] = cut ? "incomplete" : "completed";
  if (cut) response_["incomplete_details"] = {{"reason", "max_output_tokens"}};
  response_["completed_at"] = cut ? Json(nullptr) : Json(static_cast<int64_t>(std::time(nullptr)));
  response_["usage"] = ToResponseUsage(event.usage);
  Keep();
  EmitResponse(cut ? "response.incomplete" : "response.completed");
}

std::string ResponseFormat::Write(size_t, const service::GenerationEvent& event) {
  switch (event.kind) {
    case Kind::kProgress: break;
    case Kind::kText: AddText(event); break;
    case Kind::kReasoning: AddReasoning(event.text); break;
    case Kind::kToolCallStart: OpenCall(event); break;
    case Kind::kToolCallArguments:
      text_ += event.text;
      if (options_.stream) Emit("response.function_call_arguments.delta", Place({{"delta", event.text}}));
      break;
    case Kind::kToolCallEnd: CloseItem(); break;
    case Kind::kDone: End(event); break;
    case Kind::kError:
    case Kind::kCancelled: {
      const Status why = event.kind == Kind::kError
                             ? event.error
                             : Unavailable("the request was cancelled because the server is shutting down");
      response_["status"] = "failed";
      response_["error"] = {{"code", "server_error"}, {"message", why.message()}};
      EmitResponse("response.failed");
      break;
    }
  }
  return std::exchange(out_, "");
}

}  // namespace pensieve::api::openai
