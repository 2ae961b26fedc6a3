#include "api/akidb/dialect.h"

#include "api/akidb/embed.h"

namespace pensieve::api::akidb {
namespace {

// The sentence AkiDB's published clients look for.
constexpr char kBusy[] =
    "Embedding model is currently processing another request. Please retry with exponential backoff.";

Result<EmbeddingCall> Embeddings(const RouteCall& call) {
  PENSIEVE_TRY(auto fields, ParseEmbedBody(call.request.body));
  PENSIEVE_TRY(auto embed, FromEmbedFields(std::move(fields), call.request.id));
  EmbeddingCall translated;
  translated.request = std::move(embed.request);
  translated.format = [embed = std::move(embed)](const service::EmbedResult& result) {
    return ToEmbedReply(result, embed);
  };
  return translated;
}

bool Claims(const HttpRequest& request) { return request.path.starts_with("/api/v1/"); }

Json Body(const Status& status, int, const std::string&) { return {{"error", ErrorMessage(status)}}; }

const Route kRoutes[] = {
    {.methods = "POST", .path = "/api/v1/embed", .action = Embed{Embeddings}},
};

}  // namespace

std::string ErrorMessage(const Status& status) {
  return status.reason() == ErrorReason::kQueueFull ? kBusy : status.message();
}

const Dialect kDialect = {
    .name = "akidb",
    .claims = Claims,
    .errors = {.queue_full = 503, .wrong_types = 422, .retry_after_ms = false, .body = Body},
    .json_type_required = true,
    .routes = kRoutes,
};

}  // namespace pensieve::api::akidb
