#include "http/embedding.h"

#include "api/akidb/embed.h"
#include "api/openai/requests.h"
#include "api/openai/responses.h"

namespace pensieve::http {
namespace {

Result<PreparedEmbedding> PrepareOpenAi(const Request& request) {
  PENSIEVE_TRY(const Json body, ParseJson(request.body));
  PENSIEVE_TRY(auto call, api::openai::FromEmbeddings(body, request.id));
  PreparedEmbedding prepared;
  prepared.texts = call.embed.texts.size() + call.embed.token_ids.size();
  prepared.format = [base64 = call.base64](const service::EmbedResult& result) {
    return api::openai::ToEmbeddingsReply(result, base64);
  };
  prepared.call = std::move(call.embed);
  return prepared;
}

Result<PreparedEmbedding> PrepareAkiDb(const Request& request) {
  PENSIEVE_TRY(auto fields, api::akidb::ParseEmbedBody(request.body));
  PENSIEVE_TRY(auto call, api::akidb::FromEmbedFields(std::move(fields), request.id));
  PreparedEmbedding prepared;
  prepared.texts = call.request.texts.size();
  prepared.call = std::move(call.request);
  prepared.format = [call = std::move(call)](const service::EmbedResult& result) {
    return api::akidb::ToEmbedReply(result, call);
  };
  return prepared;
}

}  // namespace

Result<PreparedEmbedding> PrepareEmbedding(const Request& request, RouteId route) {
  return route == RouteId::kEmbed ? PrepareAkiDb(request) : PrepareOpenAi(request);
}

}  // namespace pensieve::http
