// Fields that chat and text completions share.
#pragma once

#include "api/fields.h"
#include "api/openai/requests.h"

namespace pensieve::api::openai {

// model, stream, stream_options, stop and all sampling fields but the log-probabilities.
void ReadShared(FieldReader& fields, service::SamplingRequest& sampling, std::vector<std::string>& stop_sequences,
                StreamOptions& stream);

// `n`: the choices for one prompt.
size_t ReadN(FieldReader& fields);
// The request of choice `k` of one prompt: with a seed, each has its own.
template <typename Request>
Request ForChoice(Request request, size_t k) {
  if (request.sampling.seed) *request.sampling.seed += k;
  return request;
}

// `key` as a limit of new tokens; -1, in LM Studio's examples, is INT64_MAX: as many as fit.
std::optional<int64_t> ReadNewTokensMax(FieldReader& fields, std::string_view key);

}  // namespace pensieve::api::openai
