#include "api/models.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

namespace pensieve::api {
namespace {

constexpr int64_t kLimitDefault = 20;
constexpr int64_t kLimitMax = 1000;

Json Supported(bool supported) { return {{"supported", supported}}; }

Json Capabilities(const service::ModelDescription& model) {
  const Json yes = Supported(true);
  const Json no = Supported(false);
  Json effort = Supported(model.supports_thinking);
  for (const char* level : {"low", "medium", "high", "max", "xhigh"})
    effort[level] = Supported(model.supports_thinking);
  Json thinking = Supported(model.supports_thinking);
  for (const char* type : {"adaptive", "between_tools", "disabled", "enabled"}) {
    thinking["types"][type] = Supported(model.supports_thinking);
  }
  return {{"batch", no},
          {"citations", no},
          {"code_execution", no},
          {"context_management",
           {{"supported", false},
            {"clear_thinking_20251015", no},
            {"clear_tool_uses_20250919", no},
            {"compact_20260112", no}}},
          {"effort", effort},
          {"image_input", no},
          {"pdf_input", no},
          {"server_tools", {{"supported", false}, {"code_execution", no}, {"web_search", no}}},
          {"structured_outputs", no},
          {"thinking", thinking},
          {"tool_use", model.supports_tools ? yes : no}};
}

Result<int64_t> ParseLimit(const std::optional<std::string>& text) {
  if (!text) return kLimitDefault;
  int64_t limit = 0;
  const auto parsed = std::from_chars(text->data(), text->data() + text->size(), limit);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text->data() + text->size();
  if (!whole || limit < 1 || limit > kLimitMax) {
    return InvalidArgument(fmt::format("limit: must be an integer from 1 to {}", kLimitMax));
  }
  return limit;
}

size_t IndexOf(const std::vector<service::ModelDescription>& models, const std::string& name) {
  const auto it = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model.name == name; });
  return static_cast<size_t>(it - models.begin());
}

}  // namespace

std::string ToTimestamp(int64_t unix_s) {
  using namespace std::chrono;
  const sys_seconds time{seconds{std::clamp<int64_t>(unix_s, 0, 253402300799)}};  // up to the year 9999
  const auto day = floor<days>(time);
  const year_month_day date{day};
  const hh_mm_ss clock{time - day};
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count());
}

Json ToModel(const service::ModelDescription& model) {
  const int64_t context = model.generates ? model.context_max : model.embed_context_max;
  Json entry = {{"id", model.name},
                {"object", "model"},
                {"created", model.created_unix_s},
                {"owned_by", "local"},
                {"type", "model"},
                {"display_name", model.display_name},
                {"created_at", ToTimestamp(model.created_unix_s)},
                {"max_input_tokens", context},
                {"max_tokens", model.generates ? Json(context) : Json(nullptr)},
                {"capabilities", Capabilities(model)},
                {"lifecycle", "active"},
                {"deprecated_at", nullptr},
                {"retires_at", nullptr},
                {"line", nullptr},
                {"max_model_len", context},
                {"meta", {{"n_ctx_train", context}}},
                {"generates", model.generates},
                {"embeds", model.embeds}};
  if (model.embeds) entry["dimension"] = model.dimension;
  return entry;
}

Result<Json> ToModelList(const std::vector<service::ModelDescription>& models, const ModelsQuery& query) {
  PENSIEVE_TRY(const int64_t limit, ParseLimit(query.limit));
  size_t begin = 0;
  size_t end = models.size();
  // A cursor that names no model gives an empty page rather than the first one again, which a pager would follow for
  // ever.
  if (query.after_id) begin = std::min(IndexOf(models, *query.after_id) + 1, end);
  if (query.before_id) end = std::max(begin, std::min(IndexOf(models, *query.before_id), end));
  const bool has_more = end - begin > static_cast<size_t>(limit);
  if (has_more) {
    if (query.before_id && !query.after_id) {
      begin = end - static_cast<size_t>(limit);
    } else {
      end = begin + static_cast<size_t>(limit);
    }
  }
  Json data = Json::array();
  for (size_t i = begin; i < end; ++i) data.push_back(ToModel(models[i]));
  const Json first = data.empty() ? Json(nullptr) : data.front()["id"];
  const Json last = data.empty() ? Json(nullptr) : data.back()["id"];
  return Json{
      {"object", "list"}, {"data", std::move(data)}, {"has_more", has_more}, {"first_id", first}, {"last_id", last}};
}

Result<HttpReply> AnswerModels(const RouteCall& call) {
  const ModelsQuery query{.limit = QueryParameter(call.request.query, "limit"),
                          .before_id = QueryParameter(call.request.query, "before_id"),
                          .after_id = QueryParameter(call.request.query, "after_id")};
  PENSIEVE_TRY(const Json list, ToModelList(call.service.Models(), query));
  HttpReply reply;
  reply.body = DumpJson(list);
  return reply;
}

Result<HttpReply> AnswerModel(const RouteCall& call) {
  auto model = call.service.FindModel(call.parameter, false);
  if (!model.has_value()) model = call.service.FindModel(call.parameter, true);
  if (!model.has_value()) return model.error();
  HttpReply reply;
  reply.body = DumpJson(ToModel(*model));
  return reply;
}

}  // namespace pensieve::api
