#include "api/akidb/embed.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/number_text.h"
#include "base/json.h"

namespace pensieve::api::akidb {
namespace {

Status TypeError(std::string_view what) {
  return {StatusCode::kFailedPrecondition,
          fmt::format("Failed to deserialize the JSON body into the target type: {}", what)};
}

Result<std::optional<std::string>> OptionalString(const Json& body, const char* key) {
  const auto it = body.find(key);
  if (it == body.end()) return std::optional<std::string>();
  if (!it->is_string()) return TypeError(fmt::format("{}: invalid type, expected a string", key));
  return std::optional(it->get<std::string>());
}

Result<service::PoolingChoice> ToPooling(const std::optional<std::string>& name) {
  if (!name) return service::PoolingChoice::kMeanForDecoders;
  if (*name == "mean") return service::PoolingChoice::kMean;
  if (*name == "cls") return service::PoolingChoice::kCls;
  if (*name == "last") return service::PoolingChoice::kLast;
  if (*name == "max") return service::PoolingChoice::kMax;
  return InvalidArgument("pooling must be one of mean, cls, last, max");
}

}  // namespace

Result<EmbedFields> ParseEmbedBody(std::string_view body) {
  auto parsed = ParseJson(body);
  if (!parsed.has_value()) {
    return InvalidArgument("Failed to parse the request body as JSON: " + parsed.error().message());
  }
  const Json& json = *parsed;
  if (!json.is_object()) return TypeError("expected an object");
  EmbedFields fields;
  const auto texts = json.find("texts");
  if (texts == json.end()) return TypeError("missing field `texts`");
  if (!texts->is_array()) return TypeError("texts: invalid type, expected an array of strings");
  for (const Json& text : *texts) {
    if (!text.is_string())
      return TypeError(fmt::format("texts[{}]: invalid type, expected a string", fields.texts.size()));
    fields.texts.push_back(text.get<std::string>());
  }
  PENSIEVE_TRY(fields.model, OptionalString(json, "model"));
  PENSIEVE_TRY(fields.pooling, OptionalString(json, "pooling"));
  if (const auto normalize = json.find("normalize"); normalize != json.end()) {
    if (!normalize->is_boolean()) return TypeError("normalize: invalid type, expected a boolean");
    fields.normalize = normalize->get<bool>();
  }
  return fields;
}

Result<EmbedCall> FromEmbedFields(EmbedFields fields, std::string request_id) {
  if (fields.texts.empty()) return InvalidArgument("texts cannot be empty");
  if (fields.texts.size() > kTextsMax) return InvalidArgument("Maximum 32 texts per request");
  EmbedCall call;
  PENSIEVE_TRY(call.request.pooling, ToPooling(fields.pooling));
  int64_t estimate = 0;
  for (const std::string& text : fields.texts) estimate += static_cast<int64_t>(text.size() / 4);
  call.total_tokens_estimate = std::max<int64_t>(estimate, static_cast<int64_t>(fields.texts.size()));
  call.model = fields.model.value_or(kDefaultModel);
  call.request.id = std::move(request_id);
  call.request.model = call.model;
  call.request.any_model = true;
  call.request.texts = std::move(fields.texts);
  call.request.normalize = fields.normalize.value_or(true);
  call.request.truncate = true;
  call.request.tokens_max = kTokensMax;
  return call;
}

HttpReply ToEmbedReply(const service::EmbedResult& result, const EmbedCall& call) {
  HttpReply reply;
  std::string& out = reply.body;
  size_t values = 0;
  for (const auto& row : result.embeddings) values += row.size();
  out.reserve(values * 13 + 256);
  out = "{\"embeddings\":[";
  for (size_t i = 0; i < result.embeddings.size(); ++i) {
    if (i != 0) out += ',';
    AppendJsonFloats(result.embeddings[i], out);
  }
  out += fmt::format("],\"model\":{},\"dimension\":{},\"usage\":{{\"total_tokens\":{},\"duration_ms\":{}}}}}",
                     DumpJson(call.model), result.dimension, call.total_tokens_estimate,
                     static_cast<int64_t>(result.total_s * 1000));
  return reply;
}

}  // namespace pensieve::api::akidb
