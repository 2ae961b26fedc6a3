#include "http/info.h"

#include <fmt/format.h>

#include "api/models.h"

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
  // A draining server is alive: a probe that restarted it would cut off what it is finishing.
  const bool healthy = health.ready || health.draining;
  const bool accepting =
      health.ready && !health.draining && health.memory_status != "critical" && health.memory_status != "emergency";
  return JsonReply(healthy ? 200 : 503,
                   {{"status", healthy ? "healthy" : "unhealthy"},
                    {"message", healthy ? "Service is alive and operational" : "No usable model is loaded"},
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
                      {"accepting_requests", accepting}}}});
}

api::HttpReply ReadyReply(const service::Service& service, bool stopping) {
  const service::Health health = service.GetHealth();
  if (health.ready && !health.draining && !stopping)
    return JsonReply(200, {{"status", "ready"}, {"message", "Service is ready to accept traffic"}});
  const char* why = health.draining || stopping ? "Service is shutting down" : "Service is still loading models";
  return JsonReply(503, {{"status", "not_ready"}, {"message", why}});
}

api::HttpReply MetricsReply(const Request& request, Metrics& metrics) {
  if (request.Header("accept").find("application/json") != std::string_view::npos)
    return JsonReply(200, metrics.ToJson());
  api::HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = metrics.PrometheusText();
  return reply;
}

Result<api::HttpReply> ModelsReply(const Request& request, const service::Service& service) {
  const api::ModelsQuery query{.limit = QueryParameter(request.query, "limit"),
                               .before_id = QueryParameter(request.query, "before_id"),
                               .after_id = QueryParameter(request.query, "after_id")};
  PENSIEVE_TRY(const Json list, api::ToModelList(service.Models(), query));
  return JsonReply(200, list);
}

Result<api::HttpReply> ModelReply(const std::string& encoded_id, const service::Service& service) {
  const auto id = PercentDecode(encoded_id, false);
  if (!id) return InvalidArgument("the model id in the path has a broken percent escape");
  if (id->empty()) return NotFound("model: an empty name is no model");
  auto model = service.FindModel(*id, false);
  if (!model.has_value()) model = service.FindModel(*id, true);
  if (!model.has_value()) return model.error();
  return JsonReply(200, api::ToModel(*model));
}

}  // namespace pensieve::http
