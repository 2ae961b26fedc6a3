// From generation events to OpenAI's response object and its stream of events.
#pragma once

#include <cstdint>
#include <string>

#include "api/dialect.h"
#include "api/record_store.h"
#include "base/json.h"
#include "service/service.h"

namespace pensieve::api::openai {

struct ResponseOptions {
  std::string id = {};  // "resp_..." from NewId
  std::string model = {};
  int64_t created_unix_s = 0;
  bool stream = false;
  bool store = true;
  bool encrypted_reasoning = false;
  bool logprobs = false;
  std::string previous_id = {};
  std::string owner = {};  // whose records
  Json input = {};         // items, to be kept beside the answer
  Json settings = {};      // fields of the response object that repeat the request
};

// Events in OpenAI's order: response.created, response.in_progress, then for each item output_item.added, its parts and
// deltas, output_item.done, and at the end response.completed, response.incomplete or response.failed. A finished
// answer is kept in the store before its last event is written. The store must outlive the format.
class ResponseFormat final : public AnswerFormat {
 public:
  ResponseFormat(ResponseOptions options, RecordStore& records);

  void Add(size_t choice, const service::GenerationEvent& event) override { (void)Write(choice, event); }
  Json Finish() override { return std::move(response_); }
  std::string Start() override;
  std::string Write(size_t choice, const service::GenerationEvent& event) override;
  std::string Ping() const override { return ": keep-alive\n\n"; }

 private:
  // What is appended here goes out; nothing for whole answers.
  void Emit(const char* type, Json event);
  void EmitResponse(const char* type);
  void OpenMessage();
  void OpenReasoning();
  void OpenCall(const service::GenerationEvent& event);
  void AddText(const service::GenerationEvent& event);
  void AddReasoning(const std::string& text);
  void CloseItem();
  void CloseMessage(Json& item);
  void CloseReasoning(Json& item);
  void CloseCall(Json& item);
  void End(const service::GenerationEvent& event);
  void Keep();
  // Where events of the open item belong.
  Json Place(Json event) const;

  ResponseOptions options_;
  RecordStore& records_;
  Json response_;
  std::string open_type_;  // of the last item of the output while it grows; "" when it is whole
  std::string text_;       // of the open item
  Json logprobs_ = Json::array();
  int64_t sequence_number_ = 0;
  std::string out_;
};

// {input_tokens, input_tokens_details, output_tokens, output_tokens_details, total_tokens}.
Json ToResponseUsage(const service::Usage& usage);

// What the store keeps of a response, as text and back.
struct KeptResponse {
  Json response;
  Json input;
  std::string previous_id;
};
std::string ToRecord(const KeptResponse& kept);
// Nothing for an id that is not kept.
std::optional<KeptResponse> FindResponse(RecordStore& records, std::string_view owner, std::string_view id);

}  // namespace pensieve::api::openai
