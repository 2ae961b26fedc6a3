// One line a request, whatever became of it.
#pragma once

#include <cstdint>
#include <string>

#include "observe/log.h"

namespace pensieve {

struct RequestRecord {
  std::string id;  // req_...
  std::string transport = "http";
  std::string method;   // HTTP method, or the gRPC method
  std::string route;    // the pattern, "/v1/messages"; never the raw path of an unknown one
  std::string model;    // the served model's own name; "" where none took part
  int status = 0;       // HTTP status, or the gRPC code
  std::string outcome;  // "done", "error", "cancelled", "refused"
  std::string error;    // one sentence when there is one
  int64_t prompt_tokens = 0;
  int64_t prompt_tokens_seen = 0;  // of texts to embed, before they were cut; 0: not counted
  int64_t truncated_texts = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double first_token_s = 0;  // 0: no token was generated
  double total_s = 0;

  // Tokens per second after the first token; 0 when fewer than two were generated.
  double TokensPerSecond() const;
};

// Info for what went well and for clients' errors, Warn for our own (HTTP 5xx but refusals of load).
void LogRequest(Logger& logger, const RequestRecord& record);

}  // namespace pensieve
