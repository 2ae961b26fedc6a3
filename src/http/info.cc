#include "http/info.h"

#include <fmt/format.h>

#include "base/json.h"

namespace pensieve::http {
namespace {

api::HttpReply JsonReply(int status, const Json& body) {
  api::HttpReply reply;
  reply.status = status;
  reply.body = DumpJson(body);
  return reply;
}

// The default generator, else whatever is loaded.
std::string ModelPath(const service::Service& service) {
  const auto models = service.Models();
  for (const auto& model : models)
    if (model.generates) return model.path;
  return models.empty() ? "" : models.front().path;
}

const char* NameOf(backend::KvDType dtype) {
  switch (dtype) {
    case backend::KvDType::kF16: return "f16";
    case backend::KvDType::kF32: return "f32";
    case backend::KvDType::kInt8: return "int8";
  }
  PENSIEVE_UNREACHABLE();
}

Json DeviceJson(const service::Health& health) {
  if (!health.device) return nullptr;
  Json dtypes = Json::array();
  for (const auto dtype : health.device->kv_dtypes) dtypes.push_back(NameOf(dtype));
  return {{"kind", health.device->device},
          {"name", health.device->name},
          {"reason", health.device_reason},
          {"threads", health.device->threads},
          {"memory_bytes", health.device->memory_bytes},
          {"company_matters", health.device->company_matters},
          {"precision_differs", health.device->precision_differs},
          {"kv_dtypes", std::move(dtypes)}};
}

}  // namespace

api::HttpReply RootReply(const std::string& version) {
  return JsonReply(200, {{"service", "pensieve"}, {"version", version}, {"status", "running"}});
}

api::HttpReply HealthReply(const service::Service& service, const std::string& version) {
  const service::Health health = service.GetHealth();
  // A server that drains or loads is alive: a probe that restarted it would undo what it is doing.
  const bool healthy = (health.ready || health.draining || health.loading) && health.lost.empty();
  const char* message = !health.lost.empty() ? "A model's file was lost"
                        : health.loading     ? "Service is alive and loads its models"
                        : healthy            ? "Service is alive and operational"
                                             : "No usable model is loaded";
  const bool accepting =
      health.ready && !health.draining && health.memory_status != "critical" && health.memory_status != "emergency";
  Json body = {{"status", healthy ? "healthy" : "unhealthy"},
               {"message", message},
               {"version", version},
               {"model_loaded", health.ready},
               {"model_path", ModelPath(service)},
               {"uptime_seconds", health.uptime_s},
               {"memory_status", health.memory_status},
               {"memory_available_gb", health.memory_available_gb},
               {"concurrent_limit", health.concurrent_limit},
               {"device", DeviceJson(health)},
               {"memory",
                {{"status", health.memory_status},
                 {"available_gb", fmt::format("{:.2f}", health.memory_available_gb)},
                 {"accepting_requests", accepting}}}};
  if (!health.lost.empty()) body["lost_models"] = health.lost;
  return JsonReply(healthy ? 200 : 503, body);
}

api::HttpReply ReadyReply(const service::Service& service, bool stopping) {
  const service::Health health = service.GetHealth();
  if (health.ready && !health.draining && !stopping)
    return JsonReply(200, {{"status", "ready"}, {"message", "Service is ready to accept traffic"}});
  const char* why = health.draining || stopping ? "Service is shutting down"
                    : health.loading            ? "Service is still loading models"
                    : !health.lost.empty()      ? "A model's file was lost"
                                                : "No usable model is loaded";
  Json body = {{"status", "not_ready"}, {"message", why}};
  if (const auto& loading = health.loading) {
    body["loading"] = {{"model", loading->model},
                       {"step", loading->step},
                       {"models_loaded", loading->models_loaded},
                       {"models_total", loading->models_total}};
    if (loading->total_bytes > 0) {
      body["loading"]["done_bytes"] = loading->done_bytes;
      body["loading"]["total_bytes"] = loading->total_bytes;
    }
  }
  return JsonReply(503, body);
}

api::HttpReply MetricsReply(const Request& request, Metrics& metrics) {
  if (request.Header("accept").find("application/json") != std::string_view::npos)
    return JsonReply(200, metrics.ToJson());
  api::HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = metrics.PrometheusText();
  return reply;
}

}  // namespace pensieve::http
