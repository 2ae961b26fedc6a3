// AkiDB's embedding contract, shared by POST /api/v1/embed and akidb.embedding.v1.EmbeddingService.
//
// Between 1 and 32 texts; any model name is accepted and echoed; unknown fields are ignored; an explicit null is a type
// error. A text is cut to its first 512 tokens. `usage.total_tokens` is AkiDB's estimate max(sum of floor(bytes / 4),
// texts), which its clients compare, not the count of real tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/reply.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::api::akidb {

inline constexpr size_t kTextsMax = 32;
inline constexpr int64_t kTokensMax = 512;
inline constexpr char kDefaultModel[] = "qwen3-0.6b-4bit";

// The fields of a request by either transport; what is absent was not sent.
struct EmbedFields {
  std::vector<std::string> texts;
  std::optional<std::string> model;
  std::optional<std::string> pooling;
  std::optional<bool> normalize;
};

struct EmbedCall {
  service::EmbedRequest request;
  std::string model;                  // to echo
  int64_t total_tokens_estimate = 0;  // for usage.total_tokens
};

// Body bytes -> fields. InvalidArgument (400) for bad JSON, FailedPrecondition (422) for a body of the wrong types.
Result<EmbedFields> ParseEmbedBody(std::string_view body);

// InvalidArgument: "texts cannot be empty", "Maximum 32 texts per request", or an unknown pooling.
Result<EmbedCall> FromEmbedFields(EmbedFields fields, std::string request_id);

// 200 with {embeddings, model, dimension, usage{total_tokens, duration_ms}}.
HttpReply ToEmbedReply(const service::EmbedResult& result, const EmbedCall& call);

}  // namespace pensieve::api::akidb
