#include "cli/local_service.h"

#include <algorithm>
#include <optional>

#include "base/system_memory.h"

namespace pensieve::cli {
namespace {

// Room for one sequence of the whole context, within reason for models of very long context.
constexpr int64_t kKvBytesMax = int64_t{2} << 30;

}  // namespace

Result<std::unique_ptr<service::Service>> OpenLocalService(const ModelOptions& options, DefaultModel fallback) {
  const std::optional<int64_t> available = AvailableMemoryBytes();
  PENSIEVE_TRY(auto model, LoadModel(options, fallback));
  const auto& config = model->config;
  service::ServiceOptions service_options;
  service_options.memory_gate = false;
  service_options.engine.context_max = options.context_max;
  service_options.engine.kv_dtype =
      options.activations == "f32" || options.reference ? backend::KvDType::kF32 : backend::KvDType::kF16;
  const backend::KvShape shape{.layers = config.layers,
                               .kv_heads = config.kv_heads,
                               .head_dim = config.head_dim,
                               .dtype = service_options.engine.kv_dtype};
  const int64_t context = options.context_max > 0 ? options.context_max : config.context_max;
  const int64_t block_len = service_options.engine.kv_block_len;
  const int64_t wanted = std::min(kKvBytesMax, (context + 2 * block_len) * shape.bytes_per_token());
  // Half of what the weights, which may not be read yet, leave; a few blocks in any case.
  const int64_t left = available ? (*available - model->weight_bytes) / 2 : wanted;
  service_options.engine.kv_bytes_max = std::max(std::min(wanted, left), 8 * block_len * shape.bytes_per_token());
  auto service = service::Service::Create(service_options);
  const std::string name = config.name.empty() ? "model" : config.name;
  PENSIEVE_RETURN_IF_ERROR(service->AddModel(name, {}, std::move(model)));
  return service;
}

}  // namespace pensieve::cli
