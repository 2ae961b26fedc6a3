// A Service with one model inside this process, for the commands that talk to a model without a server.
#pragma once

#include <memory>

#include "cli/model_options.h"
#include "service/service.h"

namespace pensieve::cli {

// Engine memory is sized for one conversation (or a batch of texts) instead of many clients.
Result<std::unique_ptr<service::Service>> OpenLocalService(const ModelOptions& options, DefaultModel fallback);

}  // namespace pensieve::cli
