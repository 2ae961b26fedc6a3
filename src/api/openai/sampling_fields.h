// Fields that chat and text completions share.
#pragma once

#include "api/fields.h"
#include "api/openai/requests.h"

namespace pensieve::api::openai {

// model, stream, stream_options, n, stop and all sampling fields but the log-probabilities.
void ReadShared(FieldReader& fields, service::SamplingRequest& sampling, std::vector<std::string>& stop_sequences,
                StreamOptions& stream);

}  // namespace pensieve::api::openai
