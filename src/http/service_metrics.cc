#include "http/service_metrics.h"

namespace pensieve::http {
namespace {

struct EngineMetric {
  const char* name;
  const char* help;
  bool counter;
  int64_t engine::EngineSnapshot::*field;
};

constexpr EngineMetric kEngineMetrics[] = {
    {"pensieve_engine_waiting", "Requests waiting for the engine", false, &engine::EngineSnapshot::waiting},
    {"pensieve_engine_running", "Sequences being worked on", false, &engine::EngineSnapshot::running},
    {"pensieve_kv_blocks_total", "Blocks of the KV pool", false, &engine::EngineSnapshot::kv_blocks_total},
    {"pensieve_kv_blocks_used", "KV blocks in use", false, &engine::EngineSnapshot::kv_blocks_used},
    {"pensieve_engine_steps_total", "Forward passes", true, &engine::EngineSnapshot::steps},
    {"pensieve_engine_prompt_tokens_total", "Prompt tokens computed", true, &engine::EngineSnapshot::prompt_tokens},
    {"pensieve_engine_generated_tokens_total", "Tokens generated", true, &engine::EngineSnapshot::generated_tokens},
    {"pensieve_engine_embedded_tokens_total", "Tokens embedded", true, &engine::EngineSnapshot::embedded_tokens},
    {"pensieve_engine_requests_done_total", "Requests finished", true, &engine::EngineSnapshot::requests_done},
    {"pensieve_engine_requests_failed_total", "Requests failed", true, &engine::EngineSnapshot::requests_failed},
    {"pensieve_engine_requests_cancelled_total", "Requests cancelled", true,
     &engine::EngineSnapshot::requests_cancelled},
    {"pensieve_engine_requests_refused_total", "Requests refused", true, &engine::EngineSnapshot::requests_refused},
};

}  // namespace

std::vector<CollectedMetric> CollectServiceMetrics(const service::Service& service) {
  std::vector<CollectedMetric> collected;
  const service::Health health = service.GetHealth();
  collected.push_back({.name = "pensieve_ready",
                       .help = "1 when every model is usable",
                       .labels = {},
                       .value = health.ready ? 1.0 : 0.0});
  collected.push_back({.name = "pensieve_memory_available_gb",
                       .help = "Free memory of the machine in 2^30 bytes",
                       .labels = {},
                       .value = health.memory_available_gb});
  const auto models = service.GetMetrics();
  for (const EngineMetric& metric : kEngineMetrics)
    for (const service::ModelMetrics& model : models)
      collected.push_back({.name = metric.name,
                           .help = metric.help,
                           .counter = metric.counter,
                           .labels = {{"model", model.model}},
                           .value = static_cast<double>(model.engine.*metric.field)});
  int64_t embedding_waiting = 0;
  for (const service::ModelDescription& description : service.Models()) {
    if (!description.embeds) continue;
    for (const service::ModelMetrics& model : models)
      if (model.model == description.name) embedding_waiting += model.engine.waiting;
  }
  collected.push_back({.name = "akidb_embedding_queue_depth",
                       .help = "Requests waiting for embedding models",
                       .labels = {},
                       .value = static_cast<double>(embedding_waiting)});
  return collected;
}

}  // namespace pensieve::http
